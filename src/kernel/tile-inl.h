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

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernel/panel.h"
#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

inline constexpr int kVectors = static_cast<int>(kPanel) / kLanes;  // Vectors in a row of C.
// As many rows as leave registers for one row of B and one value of A, or at least for one vector
// of B and a column of A.
inline constexpr int kTileRows = kVectors == 2 ? 14 : (kVectors == 4 || HWY_ARCH_ARM) ? 3 : 1;
inline constexpr bool kHoldsRowOfB = kTileRows * kVectors + kVectors + 1 <= kRegisters;

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

constexpr std::int64_t kCacheLine = 64;

// Share `index` of `tiles` of bringing `bytes` from `at`.
HWY_INLINE TilePrefetch share_of(const std::byte* at, std::int64_t bytes, std::int64_t index,
                                 std::int64_t tiles) {
  const std::int64_t pairs = ceil_div(bytes, 2 * kCacheLine);
  const std::int64_t begin = pairs * index / tiles;
  return {.at = at + begin * 2 * kCacheLine,
          .pairs = pairs * (index + 1) / tiles - begin,
          .apart = 2 * kCacheLine,
          .second = kCacheLine};
}

// Rows of one panel of the output: both ends of each, for they need not begin with a cache line.
HWY_INLINE TilePrefetch output_rows(const float* c, std::int64_t stride, std::int64_t rows) {
  return {.at = reinterpret_cast<const std::byte*>(c),
          .pairs = rows,
          .apart = stride * static_cast<std::int64_t>(sizeof(float)),
          .second = (kPanel - 1) * static_cast<std::int64_t>(sizeof(float))};
}

// Rows of a part to widen while a tile is multiplied.
struct TileWidening {
  const void* from = nullptr;  // The part,
  float* to = nullptr;         // [depth, kPanel] for all of it.
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// Rows of a part of that depth, as widen_row counts them: of values, or of pairs.
template <class T>
HWY_INLINE constexpr std::int64_t rows_of_part(std::int64_t depth) {
  return std::is_same_v<T, Bf16Pair> ? ceil_div(depth, kStepDepth) * kPairDistance : depth;
}
// Elements of type T in a part of that depth.
template <class T>
HWY_INLINE constexpr std::int64_t elements_of_part(std::int64_t depth) {
  return rows_of_part<T>(depth) * kPanel;
}

// Vector v of a row of a panel; of pairs, in feature by in feature.
template <class T>
HWY_INLINE VecF load_of_row(const T* row, int v) {
  return load_wide(DF(), row + v * kLanes);
}
HWY_INLINE auto load_pairs(const Bf16Pair* row, int v) {
  const std::int64_t column = static_cast<std::int64_t>(v) * kLanes;
  const Bf16Pair* const at = row + column / kPairsInRow * kHalfStepPairs + column % kPairsInRow;
  return hn::LoadU(hn::RebindToUnsigned<DF>(), reinterpret_cast<const std::uint32_t*>(at));
}
HWY_INLINE VecF load_low(const Bf16Pair* row, int v) { return lower_bf16(load_pairs(row, v)); }
// Shifting twice takes one operation more than a mask, but no register for it: a mask beside 12
// sums in 16 registers takes half as long again.
template <bool spares_mask = !kHoldsRowOfB>
HWY_INLINE VecF load_high(const Bf16Pair* row, int v) {
  const auto pairs = load_pairs(row, v);
  return spares_mask ? lower_bf16(hn::ShiftRight<16>(pairs)) : upper_bf16(pairs);
}

// Widens row `index` of a part.
template <class T>
HWY_INLINE void widen_row(const T* part, std::int64_t index, float* to) {
  HWY_UNROLL(8)
  for (int v = 0; v < kVectors; ++v) {
    const VecF values = load_of_row(part + index * kPanel, v);
    hn::StoreU(values, DF(), to + index * kPanel + v * kLanes);
  }
}
HWY_INLINE void widen_row(const Bf16Pair* part, std::int64_t index, float* to) {
  const std::int64_t step = index / kPairDistance;
  const std::int64_t pair = index % kPairDistance;
  const Bf16Pair* const row = part + step * 2 * kHalfStepPairs + pair * kPairsInRow;
  float* const low = to + (step * kStepDepth + pair) * kPanel;
  float* const high = low + kPairDistance * kPanel;
  HWY_UNROLL(8)
  for (int v = 0; v < kVectors; ++v) {
    hn::StoreU(load_low(row, v), DF(), low + v * kLanes);
    hn::StoreU(load_high(row, v), DF(), high + v * kLanes);
  }
}

struct TileOperands {
  const float* a = nullptr;
  std::int64_t a_step = 0;  // For RowsTogether.
  const void* b = nullptr;  // A panel of the tile's element type (panel.h).
  std::int64_t depth = 0;
  float* c = nullptr;
  std::int64_t c_stride = 0;
  TileStart start_with = TileStart::zero;
  const float* start = nullptr;  // [kPanel]
  // Panels to multiply by, one after the other in `b`, `c` and `start`: a call for all of them
  // costs as much as a call for one.
  std::int64_t panels = 1;
  // What a tile that works ahead does besides (WorksAhead).
  std::array<TilePrefetch, 2> prefetch = {};
  TileWidening widening = {};
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
      acc[r][v] = hn::Zero(d);
      switch (t.start_with) {
        case TileStart::zero:
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

// The low or the high in features of a row of pairs, for a tile of so many rows.
template <bool high, int rows>
struct HalfOfPairs {
  const Bf16Pair* row;
};
template <bool high, int rows>
HWY_INLINE VecF load_of_row(HalfOfPairs<high, rows> half, int v) {
  constexpr bool kSparesMask = !kHoldsRowOfB && rows == kTileRows;
  return high ? load_high<kSparesMask>(half.row, v) : load_low(half.row, v);
}

// Adds the product of one column of A and one row of B, of which load_of_row makes vectors.
template <int rows, class Layout, class Row>
HWY_INLINE void add_outer_product(const float* a, Row row_of_b, Accumulators<rows>& acc) {
  const DF d;
  if constexpr (!kHoldsRowOfB && rows == kTileRows) {
    // Three values of A and one vector of B leave 12 of 16 registers for sums; a whole row of B
    // would push some of them out.
    VecF values[rows];
    HWY_UNROLL(16)
    for (int r = 0; r < rows; ++r) values[r] = hn::Set(d, Layout::at(a, r));
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      const VecF b = load_of_row(row_of_b, v);
      HWY_UNROLL(16)
      for (int r = 0; r < rows; ++r) acc[r][v] = hn::MulAdd(values[r], b, acc[r][v]);
    }
  } else {
    VecF b[kVectors];
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) b[v] = load_of_row(row_of_b, v);
    HWY_UNROLL(16)
    for (int r = 0; r < rows; ++r) {
      const VecF value = hn::Set(d, Layout::at(a, r));
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) acc[r][v] = hn::MulAdd(value, b[v], acc[r][v]);
    }
  }
}

// What a tile product does besides multiplying.
//   nothing: A and B are in a cache, and what comes next is not known.
//   streams: B comes from memory, and is asked for well before its turn. Panels that are read one
//   after the other make one stream, so that reaching past the end of one is right.
//   works_ahead: asks for what later tiles need, and widens B for them from Narrow, if that is not
//   f32. Both go at an even pace: a burst of misses would keep the lines of A and B, which come
//   from L2, waiting for a free miss buffer, and widening costs next to nothing in the shade of
//   multiply-adds, which it leaves most of the other units to.
struct Nothing {};
struct Streams {};
template <class Narrow>
struct WorksAhead {};
template <class Beside>
inline constexpr bool kWorksAhead =
    !std::is_same_v<Beside, Nothing> && !std::is_same_v<Beside, Streams>;

// `units` of work, spread over so many steps.
class EvenPace {
 public:
  HWY_INLINE EvenPace(std::int64_t units, std::int64_t steps) : units_(units), steps_(steps) {}
  HWY_INLINE void step() { owed_ += units_; }
  // Whether one more unit is to be done now.
  HWY_INLINE bool due() {
    if (owed_ < steps_) return false;
    owed_ -= steps_;
    return true;
  }

 private:
  std::int64_t units_;
  std::int64_t steps_;
  std::int64_t owed_ = 0;
};

class SpreadPrefetch {
 public:
  HWY_INLINE SpreadPrefetch(const TilePrefetch& work, std::int64_t steps)
      : work_(work), pace_(work.pairs, steps) {}

  HWY_INLINE void step() {
    for (pace_.step(); pace_.due(); work_.at += work_.apart) {
      __builtin_prefetch(work_.at, 0, 2);
      __builtin_prefetch(work_.at + work_.second, 0, 2);
    }
  }

 private:
  TilePrefetch work_;
  EvenPace pace_;
};

template <class Narrow>
class SpreadWidening {
 public:
  HWY_INLINE SpreadWidening(const TileWidening& work, std::int64_t steps)
      : from_(static_cast<const Narrow*>(work.from)),
        to_(work.to),
        next_(work.begin),
        end_(work.end),
        pace_(work.end - work.begin, steps) {}

  HWY_INLINE void step() {
    for (pace_.step(); pace_.due();) widen_row(from_, next_++, to_);
  }
  // What no step was there for.
  HWY_INLINE void finish() {
    while (next_ < end_) widen_row(from_, next_++, to_);
  }

 private:
  const Narrow* from_;
  float* to_;
  std::int64_t next_;
  std::int64_t end_;
  EvenPace pace_;
};

// In f32 nothing is to be widened.
template <>
class SpreadWidening<float> {
 public:
  HWY_INLINE SpreadWidening(const TileWidening&, std::int64_t) {}
  HWY_INLINE void step() {}
  HWY_INLINE void finish() {}
};

// To L2, not L1: an L1 has 12 to 16 lines under way at once, which at 110 ns each is 9 GB/s. As far
// ahead as a core with twice that bandwidth needs: on Zen 4 with 4 KiB a row of f16 came at 19 GB/s
// in place of 22, on both cores 27 in place of 30.
template <class T>
HWY_INLINE void prefetch_stream(const T* row) {
  constexpr std::int64_t kAhead = 6144;  // Bytes.
  const auto* const ahead = reinterpret_cast<const std::byte*>(row) + kAhead;
  constexpr std::int64_t kLines = kPanel * static_cast<std::int64_t>(sizeof(T)) / kCacheLine;
  // Both halves of a row of pairs are a line.
  constexpr std::int64_t kApart = std::is_same_v<T, Bf16Pair>
                                      ? kHalfStepPairs * static_cast<std::int64_t>(sizeof(Bf16Pair))
                                      : kCacheLine;
  HWY_UNROLL(2)
  for (std::int64_t line = 0; line < kLines; ++line)
    __builtin_prefetch(ahead + line * kApart, 0, 2);
}

// Where the next step of depth finds its operands.
template <class Layout, class T>
struct TilePosition {
  const float* a = nullptr;
  const T* b = nullptr;
  std::int64_t a_step = 0;
};

template <int rows, bool streams, class Layout, class T>
HWY_INLINE void add_row(TilePosition<Layout, T>& at, Accumulators<rows>& acc) {
  if constexpr (streams) prefetch_stream(at.b);
  add_outer_product<rows, Layout>(at.a, at.b, acc);
  at.a += at.a_step;
  at.b += kPanel;
}

// `depth` steps, those of each set in turn.
template <int rows, bool streams, class Layout, class T, int sets>
HWY_INLINE void add_products(std::int64_t depth, TilePosition<Layout, T>& at,
                             Accumulators<rows> (&acc)[sets]) {
  std::int64_t k = 0;
  for (; k + sets <= depth; k += sets) {
    HWY_UNROLL(8)
    for (int set = 0; set < sets; ++set) add_row<rows, streams>(at, acc[set]);
  }
  for (; k < depth; ++k) add_row<rows, streams>(at, acc[0]);
}

// One in feature of a row of pairs: the low one, or the high one.
template <bool high, int rows, class Layout>
HWY_INLINE void add_of_pair(const TilePosition<Layout, Bf16Pair>& at, std::int64_t pair,
                            Accumulators<rows>& acc) {
  const std::int64_t k = high ? pair + kPairDistance : pair;
  add_outer_product<rows, Layout>(at.a + k * at.a_step,
                                  HalfOfPairs<high, rows>{.row = at.b + pair * kPairsInRow}, acc);
}

// The same by pairs. `depth` begins with a step.
template <int rows, bool streams, class Layout, int sets>
HWY_INLINE void add_products(std::int64_t depth, TilePosition<Layout, Bf16Pair>& at,
                             Accumulators<rows> (&acc)[sets]) {
  constexpr int kAtOnce = sets > 2 ? sets / 2 : 1;
  for (; depth >= kStepDepth; depth -= kStepDepth) {
    for (std::int64_t first = 0; first < kPairDistance; first += kAtOnce) {
      HWY_UNROLL(4)
      for (int i = 0; i < kAtOnce; ++i) {
        if constexpr (streams) prefetch_stream(at.b + (first + i) * kPairsInRow);
        add_of_pair<false, rows>(at, first + i, acc[2 * i % sets]);
        add_of_pair<true, rows>(at, first + i, acc[(2 * i + 1) % sets]);
      }
    }
    at.a += kStepDepth * at.a_step;
    at.b += 2 * kHalfStepPairs;
  }
  for (std::int64_t pair = 0; pair < std::min(depth, kPairDistance); ++pair) {
    add_of_pair<false, rows>(at, pair, acc[0]);
    if (pair + kPairDistance < depth) add_of_pair<true, rows>(at, pair, acc[0]);
  }
}

template <int rows, class Narrow, class Layout, class T, int sets>
HWY_INLINE void add_working_ahead(const TileOperands& t, WorksAhead<Narrow>,
                                  TilePosition<Layout, T>& at, Accumulators<rows> (&acc)[sets]) {
  // Pairs are added by whole steps.
  constexpr std::int64_t kStride = std::is_same_v<T, Bf16Pair> ? kStepDepth : 16;
  const std::int64_t strides = t.depth / kStride;
  SpreadPrefetch first(t.prefetch[0], strides);
  SpreadPrefetch second(t.prefetch[1], strides);
  SpreadWidening<Narrow> widening(t.widening, strides);
  for (std::int64_t stride = 0; stride < strides; ++stride) {
    first.step();
    second.step();
    widening.step();
    add_products<rows, false>(kStride, at, acc);
  }
  add_products<rows, false>(t.depth % kStride, at, acc);
  widening.finish();
}

template <int rows, class Layout, class T, class Beside>
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
  TilePosition<Layout, T> at{
      .a = t.a, .b = static_cast<const T*>(t.b), .a_step = Layout::step(t.a_step)};
  if constexpr (kWorksAhead<Beside>) {
    add_working_ahead<rows>(t, Beside{}, at, acc);
  } else {
    add_products<rows, std::is_same_v<Beside, Streams>>(t.depth, at, acc);
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

template <int rows, class Layout, class T, class Beside>
HWY_NOINLINE void tile_product(const TileOperands& t) {
  TileOperands panel = t;
  for (std::int64_t index = 0; index < t.panels; ++index) {
    if constexpr (std::is_same_v<Beside, Streams> && rows > 1) {
      // The next sums: rows of C may lie so far apart that they push each other out of the caches.
      for (int r = 0; r < rows && index + 1 < t.panels; ++r) {
        const float* const row = panel.c + r * t.c_stride + kPanel;
        __builtin_prefetch(row, 1);
        __builtin_prefetch(row + kPanel - 1, 1);
      }
    }
    multiply_by_panel<rows, Layout, T, Beside>(panel);
    panel.b = static_cast<const T*>(panel.b) + elements_of_part<T>(t.depth);
    panel.c += kPanel;
    if (panel.start != nullptr) panel.start += kPanel;
  }
}

template <class Layout, class T, class Beside, int... index>
constexpr std::array<TileProduct, sizeof...(index)> make_tile_products(
    std::integer_sequence<int, index...>) {
  return {&tile_product<index + 1, Layout, T, Beside>...};
}

// The product for a tile of `rows` rows, 1..most.
template <class Layout, class T, class Beside = Nothing, int most = kTileRows>
HWY_INLINE TileProduct tile_product_for(std::int64_t rows) {
  static constexpr auto kProducts =
      make_tile_products<Layout, T, Beside>(std::make_integer_sequence<int, most>());
  return kProducts[static_cast<std::size_t>(rows - 1)];
}

// `rows` rows cut into the fewest tiles of no more than `most` rows, of nearly equal height.
struct TileSplit {
  std::int64_t rows;
  std::int64_t tiles;

  explicit TileSplit(std::int64_t total, std::int64_t most = kTileRows)
      : rows(total), tiles(ceil_div(total, most)) {}
  [[nodiscard]] std::int64_t begin(std::int64_t tile) const { return rows * tile / tiles; }
};

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // WEIR_KERNEL_TILE_INL_H_
