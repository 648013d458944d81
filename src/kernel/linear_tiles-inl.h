// Products of a linear layer on AMX tiles (amx-inl.h). Included where HWY_TARGET is HWY_AVX3.

#if defined(WEIR_KERNEL_LINEAR_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_LINEAR_TILES_INL_H_
#undef WEIR_KERNEL_LINEAR_TILES_INL_H_
#else
#define WEIR_KERNEL_LINEAR_TILES_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernel/amx-inl.h"
#include "kernel/linear_block.h"
#include "kernel/scratch.h"
#include "kernel/tile-inl.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// Sums of a block of two row tiles on their way to the output: rows of it may lie a power of two
// apart, where tile instructions would wait for lines that compete for the same sets of the caches.
struct TileSums {
  const float* sums = nullptr;  // [rows, kPanel]
  float* out = nullptr;
  std::int64_t out_stride = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  bool add = false;             // To what `out` holds.
  const float* bias = nullptr;  // [columns], or null.

  HWY_INLINE void put_row(std::int64_t row) const {
    const float* const from = sums + row * kPanel;
    float* const to = out + row * out_stride;
    const float* const also = add ? to : bias;
    if (columns < kPanel) {
      for (std::int64_t column = 0; column < columns; ++column) {
        to[column] = from[column] + (also == nullptr ? 0 : also[column]);
      }
      return;
    }
    const DF d;
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      const VecF sum = hn::Load(d, from + v * kLanes);
      hn::StoreU(also == nullptr ? sum : hn::Add(sum, hn::LoadU(d, also + v * kLanes)), d,
                 to + v * kLanes);
    }
  }
};

// Sums of `rows` rows from row `begin` on, of a part.
HWY_INLINE TileSums sums_of(const LinearBlock& block, Part part, std::int64_t begin,
                            std::int64_t rows, const float* sums) {
  const std::int64_t column = part.panel * kPanel;
  return {.sums = sums,
          .out = block.out.data + begin * block.out.row_stride + column,
          .out_stride = block.out.row_stride,
          .rows = rows,
          .columns = std::min(kPanel, block.weights->out_features - column),
          .add = part.k > 0,
          .bias = block.bias.empty() ? nullptr : block.bias.data() + column};
}

// Whether parts are cut into pieces. Pairs of bf16 are tiles as they are.
template <class T>
inline constexpr bool kCut = !std::is_same_v<T, Bf16Pair>;

// Pairs of rows of the next part that are cut meanwhile.
template <class T>
struct PanelCutting {
  const T* from = nullptr;
  std::int64_t depth = 0;
  std::uint32_t* to = nullptr;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// What is done while the steps of a block are multiplied: the sums of the block before it go to the
// output, the next part is cut, and what comes then is asked for.
template <class T>
class TilesAhead {
 public:
  HWY_INLINE TilesAhead(const TileSums& before, const PanelCutting<T>& cutting,
                        const TilePrefetch& weights, const TilePrefetch& output, std::int64_t turns)
      : before_(before),
        cutting_(cutting),
        weights_(weights, turns),
        output_(output, turns),
        rows_pace_(before.rows, turns),
        pairs_pace_(cutting.end - cutting.begin, turns) {}

  HWY_INLINE void step() {
    if constexpr (kCut<T>) {
      step_apart();
    } else {
      do_step();
    }
  }
  // What no step was there for.
  HWY_INLINE void finish() {
    while (row_ < before_.rows) before_.put_row(row_++);
    if constexpr (kCut<T>) {
      while (cutting_.begin < cutting_.end) cut_pair();
    }
  }

 private:
  // Not inlined: with cutting it is long, and called after every pair of pieces.
  HWY_NOINLINE void step_apart() { do_step(); }

  HWY_INLINE void do_step() {
    weights_.step();
    output_.step();
    for (rows_pace_.step(); rows_pace_.due();) before_.put_row(row_++);
    if constexpr (kCut<T>) {
      for (pairs_pace_.step(); pairs_pace_.due();) cut_pair();
    }
  }
  HWY_INLINE void cut_pair() {
    cut_panel_pair(cutting_.from, cutting_.depth, cutting_.begin++, cutting_.to);
  }

  TileSums before_;
  PanelCutting<T> cutting_;
  SpreadPrefetch weights_;
  SpreadPrefetch output_;
  EvenPace rows_pace_;
  EvenPace pairs_pace_;
  std::int64_t row_ = 0;
};

constexpr std::int64_t kBlockRows = 2 * kTileSize;

// Rows [begin, end) of a block in tiles, and the memory for them.
template <class T>
class TileChunk {
 public:
  TileChunk(const LinearBlock& block, std::int64_t begin, std::int64_t end)
      : block_(block), begin_(begin), rows_(end - begin) {
    constexpr std::int64_t kSteps = kDepth / kStepDepth;
    constexpr std::int64_t kPartWords = kCut<T> ? kSteps * kPanelStepWords<kPieces<T>> : 0;
    const std::int64_t a_words =
        ceil_div(rows_, kTileSize) * row_tile_words(kPieces<float>, kSteps);
    Scratch& scratch = worker_scratch();
    scratch.reserve(Scratch::bytes_of_floats(a_words) + 2 * Scratch::bytes_of_floats(kPartWords) +
                    2 * Scratch::bytes_of_floats(kBlockRows * kPanel));
    a_ = reinterpret_cast<std::uint32_t*>(scratch.floats(a_words));
    now_ = reinterpret_cast<std::uint32_t*>(scratch.floats(kPartWords));
    next_ = reinterpret_cast<std::uint32_t*>(scratch.floats(kPartWords));
    sums_ = scratch.floats(kBlockRows * kPanel);
    other_sums_ = scratch.floats(kBlockRows * kPanel);
  }

  // False where a value of x is too large to be cut: then the output is not complete.
  HWY_INLINE bool multiply() {
    const TileRegisters registers;
    Part part{.panel = block_.panel_begin, .k = 0};
    if constexpr (kCut<T>) cut_panel(at(part), part.depth(block_), now_);
    for (; part.depth(block_) > 0; part = part.next(block_), std::swap(now_, next_)) {
      if (part.panel == block_.panel_begin && !cut_rows(part)) return false;
      multiply_part(part);
    }
    for (std::int64_t row = 0; row < before_.rows; ++row) before_.put_row(row);
    return true;
  }

 private:
  [[nodiscard]] HWY_INLINE const T* at(Part part) const {
    return reinterpret_cast<const T*>(part.at(block_));
  }

  [[nodiscard]] HWY_INLINE const std::uint32_t* operand(Part part) const {
    return kCut<T> ? now_ : reinterpret_cast<const std::uint32_t*>(part.at(block_));
  }

  HWY_INLINE bool cut_rows(Part part) {
    const std::int64_t depth = part.depth(block_);
    Magnitude magnitude;
    for (std::int64_t row = 0; row < rows_; ++row) {
      cut_row(block_.x.data + (begin_ + row) * block_.x.row_stride + part.k, depth, row, a_,
              magnitude);
    }
    clear_rows<kPieces<float>>(rows_, round_up(rows_, kTileSize), ceil_div(depth, kStepDepth), a_);
    return magnitude.moderate();
  }

  HWY_INLINE void multiply_part(Part part) {
    const Part next = part.next(block_);
    const Part fetched = !kCut<T> || next.depth(block_) == 0 ? next : next.next(block_);
    const std::int64_t steps = ceil_div(part.depth(block_), kStepDepth);
    const std::int64_t pairs = kCut<T> ? ceil_div(next.depth(block_), kStepDepth) * kTileSize : 0;
    const std::int64_t row_tile = row_tile_words(kPieces<float>, steps);
    const std::int64_t blocks = ceil_div(rows_, kBlockRows);
    for (std::int64_t index = 0; index < blocks; ++index) {
      const std::int64_t row = index * kBlockRows;
      const TileSums sums =
          sums_of(block_, part, begin_ + row, std::min(kBlockRows, rows_ - row), sums_);
      TilesAhead<T> ahead(before_,
                          {.from = at(next),
                           .depth = next.depth(block_),
                           .to = next_,
                           .begin = pairs * index / blocks,
                           .end = pairs * (index + 1) / blocks},
                          share_of(fetched.at(block_), fetched.bytes(block_), index, blocks),
                          output_rows(sums.out, sums.out_stride, sums.rows),
                          turns_beside<kPieces<float>, kPieces<T>>(steps));
      multiply_tile_block<kPieces<float>, kPieces<T>>({.a = a_ + index * 2 * row_tile,
                                                       .b = operand(part),
                                                       .steps = steps,
                                                       .c = sums_,
                                                       .c_stride = kPanel,
                                                       .row_tile = row_tile},
                                                      sums.rows, ahead);
      ahead.finish();
      before_ = sums;
      std::swap(sums_, other_sums_);
    }
  }

  const LinearBlock& block_;
  std::int64_t begin_;
  std::int64_t rows_;
  std::uint32_t* a_ = nullptr;    // Rows of x, [row tile, step, piece] tiles.
  std::uint32_t* now_ = nullptr;  // The part that is multiplied, and the next, which is cut.
  std::uint32_t* next_ = nullptr;
  float* sums_ = nullptr;  // Of the block that is multiplied, and of the one before it.
  float* other_sums_ = nullptr;
  TileSums before_;
};

// Rows up to which vectors read pairs from afar faster than tiles, which need no cutting.
constexpr std::int64_t kFewRowsOfPairs = 8;

// Rows whose pieces, one below the other, fill no more than a tile.
constexpr std::int64_t kStackedRows = kTileSize / kPieces<float>;

// As many rows at most times weights of bf16 that are near. Each tile of weights is multiplied
// once, by all pieces of all rows, and the sums of a row's pieces are added up at the end. Tiles do
// not ask for what comes next well enough for weights from further away: there vectors are faster.
class StackedRows {
 public:
  StackedRows(const LinearBlock& block, std::int64_t begin, std::int64_t end)
      : block_(block), begin_(begin), rows_(end - begin) {
    constexpr std::int64_t kRowWords = kDepth / kStepDepth * kTileWords;
    Scratch& scratch = worker_scratch();
    scratch.reserve(Scratch::bytes_of_floats(kRowWords) +
                    2 * Scratch::bytes_of_floats(kTileSize * kPanel));
    a_ = reinterpret_cast<std::uint32_t*>(scratch.floats(kRowWords));
    sums_ = scratch.floats(kTileSize * kPanel);
    other_sums_ = scratch.floats(kTileSize * kPanel);
  }

  // False where a value of x is too large to be cut: then the output is not complete.
  HWY_INLINE bool multiply() {
    const TileRegisters registers(static_cast<int>(kPieces<float> * rows_));
    for (std::int64_t k = 0; k < block_.x.cols; k += kDepth) {
      if (!cut_rows(k)) return false;
      for (std::int64_t panel = block_.panel_begin; panel < block_.panel_end; ++panel)
        multiply_part({.panel = panel, .k = k});
    }
    return true;
  }

 private:
  HWY_INLINE bool cut_rows(std::int64_t k) {
    const std::int64_t depth = block_.weights->depth(k);
    Magnitude magnitude;
    for (std::int64_t row = 0; row < rows_; ++row) {
      cut_values_of_row(block_.x.data + (begin_ + row) * block_.x.row_stride + k, depth,
                        a_ + row * kTileSize, rows_ * kTileSize, kTileWords, magnitude);
    }
    return magnitude.moderate();
  }

  // A tile instruction takes 52 cycles and the next starts after 16: two sets of sums of two tiles.
  HWY_INLINE void multiply_part(Part part) {
    const std::uint32_t* a = a_;
    const auto* b = reinterpret_cast<const std::uint32_t*>(part.at(block_));
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    const std::int64_t steps = ceil_div(part.depth(block_), kStepDepth);
    for (std::int64_t step = 0; step + 2 <= steps; step += 2) {
      multiply_step<0, 4>(a, b);
      multiply_step<2, 5>(a + kTileWords, b + kPanelStepWords<1>);
      a += 2 * kTileWords;
      b += 2 * kPanelStepWords<1>;
    }
    if (steps % 2 == 1) multiply_step<0, 4>(a, b);
    constexpr auto kStride = kPanel * static_cast<std::int64_t>(sizeof(float));
    store_tile<0>(sums_, kStride);
    store_tile<1>(sums_ + kTileSize, kStride);
    store_tile<2>(other_sums_, kStride);
    store_tile<3>(other_sums_ + kTileSize, kStride);
    put_sums(part);
  }

  template <int c, int a_tile>
  HWY_INLINE void multiply_step(const std::uint32_t* a, const std::uint32_t* b) {
    load_tile<a_tile>(a, kTileStride);
    load_tile<6>(b, kTileStride);
    load_tile<7>(b + kTileWords, kTileStride);
    multiply_tiles<c, a_tile, 6>();
    multiply_tiles<c + 1, a_tile, 7>();
  }

  HWY_INLINE void put_sums(Part part) {
    const DF d;
    const TileSums out = sums_of(block_, part, begin_, rows_, sums_);
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t at = row * kPanel; at < (row + 1) * kPanel; at += kLanes) {
        VecF sum = hn::Add(hn::Load(d, sums_ + at), hn::Load(d, other_sums_ + at));
        for (std::int64_t piece = 1; piece < kPieces<float>; ++piece) {
          const std::int64_t from = at + piece * rows_ * kPanel;
          sum = hn::Add(sum, hn::Add(hn::Load(d, sums_ + from), hn::Load(d, other_sums_ + from)));
        }
        hn::Store(sum, d, sums_ + at);
      }
      out.put_row(row);
    }
  }

  const LinearBlock& block_;
  std::int64_t begin_;
  std::int64_t rows_;
  std::uint32_t* a_ = nullptr;   // [step] tiles of the pieces of all rows.
  float* sums_ = nullptr;        // [kTileSize, kPanel] of even steps,
  float* other_sums_ = nullptr;  // and of odd ones.
};

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET == HWY_AVX3
#endif  // WEIR_KERNEL_LINEAR_TILES_INL_H_
