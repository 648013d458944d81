// Matrix products on AMX tiles (amx.h) that are as exact as those in f32. Included where
// HWY_TARGET is HWY_AVX3, which every processor with AMX has.
//
// A value is cut into a sum of bf16 pieces: x = x0 + x1 + x2, each piece the nearest bf16 to what
// the ones before it leave. Three hold all 24 digits of an f32, two all 11 of an f16, one a bf16.
// Then
//   x w = sum of xi wj over i + j <= 2, and what is left out is below 2^-24 of it, as one rounding
//   in f32:
// 6 products for f32 by f32, 5 for f32 by f16, 3 for f32 by bf16. A tile instruction sums 32
// products before it adds them to C, so that C is rounded once where multiply-adds round it 32
// times. Source: Henry, Tang, Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype
// For Higher-Precision Computations", arXiv:1904.06376.
//
// Tiles take subnormal pieces for zero: products of values below some 2^-100 lose their last
// digits. Infinities, NaN and values of kImmoderate and more are not cut; who calls looks for them
// (`Magnitude`) and multiplies on vectors instead.

#if defined(WEIR_KERNEL_AMX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_AMX_INL_H_
#undef WEIR_KERNEL_AMX_INL_H_
#else
#define WEIR_KERNEL_AMX_INL_H_
#endif

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernel/amx.h"
#include "kernel/tile-inl.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// A tile holds 16 rows of 16 words. Of A a word is the pair (A(r, k), A(r, k + 16)), of B
// (B(k, c), B(k + 16, c)), of C an f32: one instruction covers a step of 32 in depth. (Which 32
// values of depth meet in which pair is free as long as A and B agree; halves of a step need no
// shuffling.)
inline constexpr std::int64_t kTileSize = 16;
inline constexpr std::int64_t kTileWords = kTileSize * kTileSize;
inline constexpr std::int64_t kTileStride = 64;  // Bytes from row to row of a tile of pieces.

// Pieces that hold a value of type T.
template <class T>
inline constexpr int kPieces = std::is_same_v<T, float> ? 3
                               : std::is_same_v<T, F16> ? 2
                                                        : 1;

template <int tile>
HWY_INLINE void load_tile(const void* from, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
HWY_INLINE void store_tile(void* to, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
HWY_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
// Tile c += tile a x tile b.
template <int c, int a, int b>
HWY_INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}

// The largest magnitude of all values that were noted.
class Magnitude {
 public:
  HWY_INLINE Magnitude() : largest_(hn::Zero(hn::RebindToUnsigned<DF>())) {}
  HWY_INLINE void note(VecF values) {
    const hn::RebindToUnsigned<DF> du;
    const auto bits = hn::And(hn::BitCast(du, values), hn::Set(du, 0x7FFFFFFFU));
    largest_ = hn::Max(largest_, bits);
  }
  // Whether all of them may be cut into pieces.
  [[nodiscard]] HWY_INLINE bool moderate() const {
    const hn::RebindToUnsigned<DF> du;
    return hn::GetLane(hn::MaxOfLanes(du, largest_)) < std::bit_cast<std::uint32_t>(kImmoderate);
  }

 private:
  hn::Vec<hn::RebindToUnsigned<DF>> largest_;
};

// Puts the pieces of the pairs (low, high) to `to`, a vector of words, and `apart` words after one
// another.
template <int pieces>
HWY_INLINE void put_pieces(VecF low, VecF high, std::uint32_t* to, std::int64_t apart) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const auto half = hn::Set(du, 0x8000U);
  const auto upper = hn::Set(du, 0xFFFF0000U);
  HWY_UNROLL(3)
  for (int piece = 0; piece < pieces; ++piece, to += apart) {
    // The nearest bf16, ties away from zero, as an f32 whose lower half is zero.
    const auto low_bits = hn::And(hn::Add(hn::BitCast(du, low), half), upper);
    const auto high_bits = hn::And(hn::Add(hn::BitCast(du, high), half), upper);
    hn::Store(hn::Or(hn::ShiftRight<16>(low_bits), high_bits), du, to);
    if (piece + 1 == pieces) break;
    low = hn::Sub(low, hn::BitCast(d, low_bits));
    high = hn::Sub(high, hn::BitCast(d, high_bits));
  }
}

// --- Operand A: [row tile, step, piece] tiles. ---

// Words from one row tile to the next.
HWY_INLINE constexpr std::int64_t row_tile_words(int pieces, std::int64_t steps) {
  return steps * pieces * kTileWords;
}

// Up to kLanes values, and zeros after the last.
template <class T>
HWY_INLINE VecF load_up_to(const T* from, std::int64_t count) {
  const DF d;
  if (count >= kLanes) return load_wide(d, from);
  HWY_ALIGN float lanes[kLanes] = {};
  for (std::int64_t lane = 0; lane < count; ++lane) lanes[lane] = widen_one(from + lane);
  return hn::Load(d, lanes);
}

// Cuts `depth` values to `to`: from piece to piece there are `apart` words, from step to step
// `step`.
template <class T>
HWY_INLINE void cut_values_of_row(const T* from, std::int64_t depth, std::uint32_t* to,
                                  std::int64_t apart, std::int64_t step, Magnitude& magnitude) {
  for (std::int64_t k = 0; k < depth; k += kStepDepth, to += step) {
    const VecF low = load_up_to(from + k, depth - k);
    const VecF high = load_up_to(from + k + kTileSize, depth - k - kTileSize);
    magnitude.note(low);
    magnitude.note(high);
    put_pieces<kPieces<T>>(low, high, to, apart);
  }
}

// Cuts one row of `depth` values; `row` counts from the first row of `a`.
template <class T>
HWY_INLINE void cut_row(const T* from, std::int64_t depth, std::int64_t row, std::uint32_t* a,
                        Magnitude& magnitude) {
  const std::int64_t tile = row_tile_words(kPieces<T>, ceil_div(depth, kStepDepth));
  cut_values_of_row(from, depth, a + row / kTileSize * tile + row % kTileSize * kTileSize,
                    kTileWords, kPieces<T> * kTileWords, magnitude);
}

// Zeros in place of rows that `a` has but nobody reads the products of.
template <int pieces>
HWY_INLINE void clear_rows(std::int64_t begin, std::int64_t end, std::int64_t steps,
                           std::uint32_t* a) {
  const hn::RebindToUnsigned<DF> du;
  for (std::int64_t row = begin; row < end; ++row) {
    std::uint32_t* const to =
        a + row / kTileSize * row_tile_words(pieces, steps) + row % kTileSize * kTileSize;
    for (std::int64_t tile = 0; tile < steps * pieces; ++tile) {
      hn::Store(hn::Zero(du), du, to + tile * kTileWords);
    }
  }
}

// --- Operand B, a panel: [step, piece, half of the panel] tiles. ---

template <int pieces>
inline constexpr std::int64_t kPanelStepWords = pieces * 2 * kTileWords;

// Cuts pair `pair` of rows of a panel [depth, kPanel]: rows k and k + 16 of a step. There are
// kTileSize * steps pairs.
template <class T>
HWY_INLINE void cut_panel_pair(const T* panel, std::int64_t depth, std::int64_t pair,
                               std::uint32_t* b) {
  const DF d;
  const std::int64_t step = pair / kTileSize;
  const std::int64_t k = step * kStepDepth + pair % kTileSize;
  std::uint32_t* const to = b + step * kPanelStepWords<kPieces<T>> + pair % kTileSize * kTileSize;
  HWY_UNROLL(2)
  for (std::int64_t half = 0; half < 2; ++half) {
    const T* const from = panel + k * kPanel + half * kTileSize;
    const VecF low = k < depth ? load_wide(d, from) : hn::Zero(d);
    const VecF high = k + kTileSize < depth ? load_wide(d, from + kTileSize * kPanel) : hn::Zero(d);
    put_pieces<kPieces<T>>(low, high, to + half * kTileWords, 2 * kTileWords);
  }
}

template <class T>
HWY_INLINE void cut_panel(const T* panel, std::int64_t depth, std::uint32_t* b) {
  const std::int64_t pairs = ceil_div(depth, kStepDepth) * kTileSize;
  for (std::int64_t pair = 0; pair < pairs; ++pair) cut_panel_pair(panel, depth, pair, b);
}

// to[c, r] = from[r, c] for a tile of words, its first `columns` columns, by fours. Rows of `to`
// are `stride` words apart.
HWY_INLINE void transpose_tile(const std::uint32_t* from, std::uint32_t* to,
                               std::int64_t stride = kTileSize, std::int64_t columns = kTileSize) {
  for (std::int64_t group = 0; group < columns; group += 4) {
    // Vector q: words group..group+3 of rows q, 4 + q, 8 + q, 12 + q.
    __m512 rows[4];
    HWY_UNROLL(4)
    for (std::int64_t q = 0; q < 4; ++q) {
      const auto* const at = reinterpret_cast<const float*>(from) + q * kTileSize + group;
      __m512 row = _mm512_castps128_ps512(_mm_load_ps(at));
      row = _mm512_insertf32x4(row, _mm_load_ps(at + 4 * kTileSize), 1);
      row = _mm512_insertf32x4(row, _mm_load_ps(at + 8 * kTileSize), 2);
      rows[q] = _mm512_insertf32x4(row, _mm_load_ps(at + 12 * kTileSize), 3);
    }
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1]));
    const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3]));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1]));
    const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
    std::uint32_t* const out = to + group * stride;
    _mm512_store_pd(out, _mm512_unpacklo_pd(low01, low23));
    _mm512_store_pd(out + stride, _mm512_unpackhi_pd(low01, low23));
    _mm512_store_pd(out + 2 * stride, _mm512_unpacklo_pd(high01, high23));
    _mm512_store_pd(out + 3 * stride, _mm512_unpackhi_pd(high01, high23));
  }
}

// --- The product ---

// Which pieces meet, in an order in which few tiles have to be loaded anew.
struct PiecePair {
  int a = 0;
  int b = 0;
};
template <int a_pieces, int b_pieces>
constexpr auto pieces_that_meet() {
  constexpr int kLargestSum = 2;
  constexpr auto kCount = [] {
    int count = 0;
    for (int a = 0; a < a_pieces; ++a) {
      for (int b = 0; b < b_pieces; ++b) count += a + b <= kLargestSum ? 1 : 0;
    }
    return count;
  }();
  std::array<PiecePair, kCount> pairs{};
  std::size_t at = 0;
  for (int a = 0; a < a_pieces; ++a) {
    const int most = kLargestSum - a < b_pieces - 1 ? kLargestSum - a : b_pieces - 1;
    for (int i = 0; i <= most; ++i) {
      pairs[at++] = {.a = a, .b = a % 2 == 0 ? i : most - i};
    }
  }
  return pairs;
}
static_assert(pieces_that_meet<kPieces<float>, kPieces<float>>().size() ==
              products_of_pieces(DType::f32));
static_assert(pieces_that_meet<kPieces<float>, kPieces<Bf16>>().size() ==
              products_of_pieces(DType::bf16));
static_assert(pieces_that_meet<kPieces<float>, kPieces<F16>>().size() ==
              products_of_pieces(DType::f16));

// C[32 or 16 rows, 32] (+)= A B for two row tiles or one.
struct TileBlock {
  const std::uint32_t* a = nullptr;
  const std::uint32_t* b = nullptr;
  std::int64_t steps = 0;
  float* c = nullptr;
  std::int64_t c_stride = 0;
  bool add = false;           // To what C holds.
  std::int64_t row_tile = 0;  // Words of A from one row tile to the next.
};

// Bytes from row to row of C.
HWY_INLINE std::int64_t row_bytes(const TileBlock& block) {
  return block.c_stride * static_cast<std::int64_t>(sizeof(float));
}

template <int row_tiles>
HWY_INLINE void start_tiles(const TileBlock& block) {
  if (!block.add) {
    zero_tile<0>();
    zero_tile<1>();
    if (row_tiles == 2) zero_tile<2>();
    if (row_tiles == 2) zero_tile<3>();
    return;
  }
  const std::int64_t stride = row_bytes(block);
  const float* const lower = block.c + kTileSize * block.c_stride;
  load_tile<0>(block.c, stride);
  load_tile<1>(block.c + kTileSize, stride);
  if (row_tiles == 2) load_tile<2>(lower, stride);
  if (row_tiles == 2) load_tile<3>(lower + kTileSize, stride);
}

template <int row_tiles>
HWY_INLINE void store_tiles(const TileBlock& block) {
  const std::int64_t stride = row_bytes(block);
  float* const lower = block.c + kTileSize * block.c_stride;
  store_tile<0>(block.c, stride);
  store_tile<1>(block.c + kTileSize, stride);
  if (row_tiles == 2) store_tile<2>(lower, stride);
  if (row_tiles == 2) store_tile<3>(lower + kTileSize, stride);
}

// The pair of pieces with that index, in tiles 4 to 7, of which those of the pair before are kept.
template <int a_pieces, int b_pieces, int row_tiles, std::size_t index, class Beside>
HWY_INLINE void multiply_pieces(const std::uint32_t* a, const std::uint32_t* b,
                                std::int64_t row_tile, Beside& beside) {
  constexpr auto kPairs = pieces_that_meet<a_pieces, b_pieces>();
  constexpr PiecePair kNow = kPairs[index];
  constexpr PiecePair kBefore = index == 0 ? PiecePair{-1, -1} : kPairs[index == 0 ? 0 : index - 1];
  if constexpr (kNow.a != kBefore.a) {
    load_tile<4>(a + kNow.a * kTileWords, kTileStride);
    if (row_tiles == 2) load_tile<5>(a + row_tile + kNow.a * kTileWords, kTileStride);
  }
  if constexpr (kNow.b != kBefore.b) {
    load_tile<6>(b + kNow.b * 2 * kTileWords, kTileStride);
    load_tile<7>(b + (kNow.b * 2 + 1) * kTileWords, kTileStride);
  }
  multiply_tiles<0, 4, 6>();
  multiply_tiles<1, 4, 7>();
  if (row_tiles == 2) multiply_tiles<2, 5, 6>();
  if (row_tiles == 2) multiply_tiles<3, 5, 7>();
  if constexpr (b_pieces > 1 || index + 1 == kPairs.size()) beside.step();
}

template <int a_pieces, int b_pieces, int row_tiles, class Beside, std::size_t... index>
HWY_INLINE void multiply_step(const std::uint32_t* a, const std::uint32_t* b, std::int64_t row_tile,
                              Beside& beside, std::index_sequence<index...>) {
  (multiply_pieces<a_pieces, b_pieces, row_tiles, index>(a, b, row_tile, beside), ...);
}

// How often a product of that many steps gives way to what is done beside it. Tiles take some 64
// cycles for each pair of pieces, in which vector units could do a hundred instructions. They come
// in turn, for the processor looks only some 500 ahead for what it can do meanwhile. Where B is one
// piece nothing is cut, and once in a step is enough.
template <int a_pieces, int b_pieces>
HWY_INLINE constexpr std::int64_t turns_beside(std::int64_t steps) {
  return b_pieces == 1
             ? steps
             : steps * static_cast<std::int64_t>(pieces_that_meet<a_pieces, b_pieces>().size());
}

template <int a_pieces, int b_pieces, int row_tiles, class Beside>
HWY_INLINE void multiply_row_tiles(const TileBlock& block, Beside& beside) {
  constexpr auto kAll = std::make_index_sequence<pieces_that_meet<a_pieces, b_pieces>().size()>();
  start_tiles<row_tiles>(block);
  const std::uint32_t* a = block.a;
  const std::uint32_t* b = block.b;
  for (std::int64_t step = 0; step < block.steps; ++step) {
    multiply_step<a_pieces, b_pieces, row_tiles>(a, b, block.row_tile, beside, kAll);
    a += a_pieces * kTileWords;
    b += kPanelStepWords<b_pieces>;
  }
  store_tiles<row_tiles>(block);
}

// `rows` rows of C, 1..32: C has memory for whole tiles of 16.
template <int a_pieces, int b_pieces, class Beside>
HWY_INLINE void multiply_tile_block(const TileBlock& block, std::int64_t rows, Beside& beside) {
  if (rows > kTileSize) {
    multiply_row_tiles<a_pieces, b_pieces, 2>(block, beside);
  } else {
    multiply_row_tiles<a_pieces, b_pieces, 1>(block, beside);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET == HWY_AVX3
#endif  // WEIR_KERNEL_AMX_INL_H_
