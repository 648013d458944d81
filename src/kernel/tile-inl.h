// The matrix product that everything here is made of:  C[rows, 32] (+)= A[rows, depth] B[depth,
// 32], with C in registers for the whole depth. A is read one value at a time and spread over a
// vector, B is a panel (panel.h). With 512-bit vectors a tile of 14 rows uses 28 of 32 registers
// and needs 16 loads for 28 multiply-adds, so that it is bound by arithmetic as long as A and B
// come from L2.

#if defined(WEIR_KERNEL_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_TILE_INL_H_
#undef WEIR_KERNEL_TILE_INL_H_
#else
#define WEIR_KERNEL_TILE_INL_H_
#endif

#include <array>
#include <cstdint>
#include <utility>

#include "kernel/panel.h"
#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

inline constexpr int kVectors = static_cast<int>(kPanel) / kLanes;  // Vectors in a row of C.
// As many rows as leave registers for one row of B and one value of A (32 or 16 registers).
inline constexpr int kTileRows = kVectors == 2 ? 14 : (kVectors == 4 || HWY_ARCH_ARM) ? 3 : 1;

// Where the values of A lie.
//   RowsApart: A(r, k) = a[r * stride + k]. The stride is a constant so that every row is reached
//   by a displacement from one register; it is an odd number of cache lines, so that rows do not
//   compete for the same cache sets.
template <std::int64_t stride>
struct RowsApart {
  static HWY_INLINE float at(const float* a, std::int64_t row) { return a[row * stride]; }
  static HWY_INLINE std::int64_t step(std::int64_t) { return 1; }
};
//   RowsTogether: A(r, k) = a[k * step + r].
struct RowsTogether {
  static HWY_INLINE float at(const float* a, std::int64_t row) { return a[row]; }
  static HWY_INLINE std::int64_t step(std::int64_t a_step) { return a_step; }
};

// What C holds before products are added: nothing, the vector `start` in every row, its own values,
// or its own values times the vector `start`.
enum class TileStart : std::uint8_t { zero, vector, own, own_scaled };

// Memory to bring to L2 while a tile is multiplied: `pairs` pairs of cache lines, `apart` bytes
// from one to the next, the second line of each `second` bytes after the first.
struct TilePrefetch {
  const std::byte* at = nullptr;
  std::int64_t pairs = 0;
  std::int64_t apart = 0;
  std::int64_t second = 0;
};

struct TileOperands {
  const float* a = nullptr;
  std::int64_t a_step = 0;  // For RowsTogether.
  const void* b = nullptr;  // [depth, kPanel] of the tile's element type.
  std::int64_t depth = 0;
  float* c = nullptr;
  std::int64_t c_stride = 0;
  TileStart start_with = TileStart::zero;
  const float* start = nullptr;  // [kPanel]
  // Panels to multiply by, one after the other in `b`, `c` and `start`: a call for all of them
  // costs as much as a call for one.
  std::int64_t panels = 1;
  std::array<TilePrefetch, 2> ahead = {};  // For PanelSource::cache_asking_ahead.
};

using TileProduct = void (*)(const TileOperands&);

// Not a struct: its implicit constructor would lack the attributes of the target, and so could not
// inline those of the vectors.
template <int rows>
using Accumulators = VecF[rows][kVectors];

template <int rows>
HWY_INLINE void load_start(const TileOperands& t, Accumulators<rows>& acc) {
  const DF d;
  HWY_UNROLL(16)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      const float* c = t.c + r * t.c_stride + v * kLanes;
      switch (t.start_with) {
        case TileStart::zero:
          acc[r][v] = hn::Zero(d);
          break;
        case TileStart::vector:
          acc[r][v] = hn::LoadU(d, t.start + v * kLanes);
          break;
        case TileStart::own:
          acc[r][v] = hn::LoadU(d, c);
          break;
        case TileStart::own_scaled:
          acc[r][v] = hn::Mul(hn::LoadU(d, c), hn::LoadU(d, t.start + v * kLanes));
          break;
      }
    }
  }
}

// Adds the product of one column of A and one row of B.
template <int rows, class Layout, class T>
HWY_INLINE void add_outer_product(const float* a, const T* b, Accumulators<rows>& acc) {
  const DF d;
  VecF row_of_b[kVectors];
  HWY_UNROLL(8)
  for (int v = 0; v < kVectors; ++v) row_of_b[v] = load_wide(d, b + v * kLanes);
  HWY_UNROLL(16)
  for (int r = 0; r < rows; ++r) {
    const VecF value = hn::Set(d, Layout::at(a, r));
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = hn::MulAdd(value, row_of_b[v], acc[r][v]);
    }
  }
}

// Where B comes from: a cache, or memory, from which it is asked for well before its turn. Panels
// that are read one after the other make one stream, so that reaching past the end of one is right.
// `cache_asking_ahead` asks for what later tiles need, `ahead`, at an even pace: a burst of misses
// would keep the lines of A and B, which come from L2, waiting for a free miss buffer.
enum class PanelSource : std::uint8_t { cache, cache_asking_ahead, memory };

// One TilePrefetch, spread over `steps` calls of `step`.
class SpreadPrefetch {
 public:
  HWY_INLINE SpreadPrefetch(const TilePrefetch& ahead, std::int64_t steps)
      : at_(ahead.at),
        apart_(ahead.apart),
        second_(ahead.second),
        pairs_(ahead.pairs),
        steps_(steps) {}

  HWY_INLINE void step() {
    for (due_ += pairs_; due_ >= steps_; due_ -= steps_, at_ += apart_) {
      __builtin_prefetch(at_, 0, 2);
      __builtin_prefetch(at_ + second_, 0, 2);
    }
  }

 private:
  const std::byte* at_;
  std::int64_t apart_;
  std::int64_t second_;
  std::int64_t pairs_;
  std::int64_t steps_;
  std::int64_t due_ = 0;
};

template <class T>
HWY_INLINE void prefetch_stream(const T* b) {
  constexpr std::int64_t kAhead = 4096;  // Bytes; some 100 ns at the bandwidth of one core.
  constexpr std::int64_t kCacheLine = 64;
  const auto* const ahead = reinterpret_cast<const std::byte*>(b) + kAhead;
  HWY_UNROLL(2)
  for (std::int64_t at = 0; at < kPanel * static_cast<std::int64_t>(sizeof(T)); at += kCacheLine) {
    __builtin_prefetch(ahead + at, 0, 3);
  }
}

template <int rows, class Layout, class T, PanelSource source>
HWY_INLINE void multiply_by_panel(const TileOperands& t) {
  const DF d;
  // A multiply-add takes 4 cycles and two start per cycle: with fewer than 8 accumulators the sums
  // are spread over several sets of them.
  constexpr int kSets = rows * kVectors >= 8 ? 1 : (8 + rows * kVectors - 1) / (rows * kVectors);
  Accumulators<rows> acc[kSets];
  load_start(t, acc[0]);
  HWY_UNROLL(8)
  for (int set = 1; set < kSets; ++set) {
    HWY_UNROLL(16)
    for (int r = 0; r < rows; ++r) {
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) acc[set][r][v] = hn::Zero(d);
    }
  }
  const float* a = t.a;
  const T* b = static_cast<const T*>(t.b);
  const std::int64_t step = Layout::step(t.a_step);
  std::int64_t k = 0;
  if constexpr (source == PanelSource::cache_asking_ahead) {
    constexpr std::int64_t kStride = 16;
    static_assert(kStride % kSets == 0, "the sets take turns within a stride");
    const std::int64_t strides = t.depth / kStride;
    SpreadPrefetch first(t.ahead[0], strides);
    SpreadPrefetch second(t.ahead[1], strides);
    for (std::int64_t stride = 0; stride < strides; ++stride) {
      first.step();
      second.step();
      for (std::int64_t in_stride = 0; in_stride < kStride; in_stride += kSets) {
        HWY_UNROLL(8)
        for (int set = 0; set < kSets; ++set, a += step, b += kPanel) {
          add_outer_product<rows, Layout>(a, b, acc[set]);
        }
      }
    }
    k = strides * kStride;
  }
  for (; k + kSets <= t.depth; k += kSets) {
    HWY_UNROLL(8)
    for (int set = 0; set < kSets; ++set) {
      if constexpr (source == PanelSource::memory) prefetch_stream(b);
      add_outer_product<rows, Layout>(a, b, acc[set]);
      a += step;
      b += kPanel;
    }
  }
  for (; k < t.depth; ++k, a += step, b += kPanel) {
    add_outer_product<rows, Layout>(a, b, acc[0]);
  }
  HWY_UNROLL(16)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      VecF sum = acc[0][r][v];
      HWY_UNROLL(8)
      for (int set = 1; set < kSets; ++set) sum = hn::Add(sum, acc[set][r][v]);
      hn::StoreU(sum, d, t.c + r * t.c_stride + v * kLanes);
    }
  }
}

template <int rows, class Layout, class T, PanelSource source>
HWY_NOINLINE void tile_product(const TileOperands& t) {
  TileOperands panel = t;
  for (std::int64_t index = 0; index < t.panels; ++index) {
    multiply_by_panel<rows, Layout, T, source>(panel);
    panel.b = static_cast<const T*>(panel.b) + t.depth * kPanel;
    panel.c += kPanel;
    if (panel.start != nullptr) panel.start += kPanel;
  }
}

template <class Layout, class T, PanelSource source, int... index>
constexpr std::array<TileProduct, sizeof...(index)> make_tile_products(
    std::integer_sequence<int, index...>) {
  return {&tile_product<index + 1, Layout, T, source>...};
}

// The product for a tile of `rows` rows, 1..kTileRows.
template <class Layout, class T, PanelSource source = PanelSource::cache>
HWY_INLINE TileProduct tile_product_for(std::int64_t rows) {
  static constexpr auto kProducts =
      make_tile_products<Layout, T, source>(std::make_integer_sequence<int, kTileRows>());
  return kProducts[static_cast<std::size_t>(rows - 1)];
}

// `rows` rows cut into the fewest tiles, of nearly equal height.
struct TileSplit {
  std::int64_t rows;
  std::int64_t tiles;

  explicit TileSplit(std::int64_t total) : rows(total), tiles(ceil_div(total, kTileRows)) {}
  [[nodiscard]] std::int64_t begin(std::int64_t tile) const { return rows * tile / tiles; }
};

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // WEIR_KERNEL_TILE_INL_H_
