// Attention of one task with many rows: keys and values are widened a block at a time, and every
// panel of 32 rows goes over the block with the tile product of tile-inl.h,
//   scores^T [keys, 32] = K [keys, key_dim] q^T [key_dim, 32]
//   out^T [value_dim, 32] = out^T * correction + V^T [value_dim, keys] p^T [keys, 32]
// Rows lie across vector lanes, so that the softmax needs no sums or maxima within a vector, and
// neither K nor V is ever transposed.

#if defined(WEIR_KERNEL_ATTENTION_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_ATTENTION_BLOCK_INL_H_
#undef WEIR_KERNEL_ATTENTION_BLOCK_INL_H_
#else
#define WEIR_KERNEL_ATTENTION_BLOCK_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "kernel/attention_plan.h"
#include "kernel/tile-inl.h"
#include "kernel/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// Keys widened at a time: scores of a panel take 16 KiB of L1, keys and values of 128 dimensions
// 72 KiB each of L2.
inline constexpr std::int64_t kKeyBlock = 128;
// Least finite value: as the maximum of nothing it makes exp(-inf - maximum) zero, where -inf would
// make it NaN.
inline constexpr float kNoScore = std::numeric_limits<float>::lowest();

// Natural log of (sum * 2^largest), or -inf where nothing was summed.
HWY_INLINE float natural_lse(float largest, float sum) {
  if (sum == 0) return -std::numeric_limits<float>::infinity();
  return static_cast<float>((static_cast<double>(largest) + std::log2(static_cast<double>(sum))) *
                            std::numbers::ln2);
}
// By what the weighted sum of values is multiplied at the end; NaN stays NaN.
HWY_INLINE float inverse_or_zero(float sum) { return sum == 0 ? 0.0F : 1.0F / sum; }

template <class T>
HWY_INLINE const T* kv_at(const KvBlocks& kv, std::int64_t position, std::int64_t head) {
  const std::int64_t offset = position - kv.first_position;
  const auto* block =
      static_cast<const T*>(kv.blocks[static_cast<std::size_t>(offset / kv.block_size)]);
  return block + head * kv.head_stride + (offset % kv.block_size) * kv.position_stride;
}

// Positions from `position` to the end of the block that holds it.
HWY_INLINE std::int64_t left_in_block(const KvBlocks& kv, std::int64_t position) {
  return kv.block_size - (position - kv.first_position) % kv.block_size;
}

template <class T>
HWY_NOINLINE void widen_positions(const KvBlocks& kv, std::int64_t head, KeyRange range,
                                  std::int64_t dim, float* to, std::int64_t stride) {
  for (std::int64_t position = range.begin; position < range.end;) {
    const std::int64_t end = std::min(range.end, position + left_in_block(kv, position));
    const T* from = kv_at<T>(kv, position, head);
    for (; position < end; ++position, from += kv.position_stride, to += stride) {
      widen(from, to, dim);
    }
  }
}

HWY_INLINE void widen_kv(const KvBlocks& kv, std::int64_t head, KeyRange range, std::int64_t dim,
                         float* to, std::int64_t stride) {
  switch (kv.dtype) {
    case DType::f32:
      return widen_positions<float>(kv, head, range, dim, to, stride);
    case DType::bf16:
      return widen_positions<Bf16>(kv, head, range, dim, to, stride);
    case DType::f16:
      return widen_positions<F16>(kv, head, range, dim, to, stride);
  }
}

// One panel of rows: its queries, running softmax and output, transposed.
struct RowPanel {
  float* q = nullptr;             // [key_dim, 32], times scale and log2(e).
  float* out = nullptr;           // [value_dim, 32], not yet divided by `sum`.
  float* largest = nullptr;       // [32], base 2.
  float* sum = nullptr;           // [32]
  std::int32_t* begin = nullptr;  // [32] keys seen, counted from the task's first key.
  std::int32_t* end = nullptr;    // [32]

  // Keys that any and that every row sees; both ends grow with the row.
  [[nodiscard]] KeyRange any() const { return {.begin = begin[0], .end = end[kPanel - 1]}; }
  [[nodiscard]] KeyRange every() const { return {.begin = begin[kPanel - 1], .end = end[0]}; }
};

// The memory of a task, cut from the worker's scratch.
class BlockMemory {
 public:
  explicit BlockMemory(const AttentionTask& task)
      : key_dim_(task.tile->key_dim),
        value_dim_(task.tile->value_dim),
        panel_floats_((key_dim_ + value_dim_ + 4) * kPanel) {
    const std::int64_t panels = ceil_div(task.rows(), kPanel);
    // An odd number of cache lines, one of the strides that `score_product` knows.
    key_stride = key_dim_ <= 64 ? 80 : key_dim_ <= 128 ? 144 : key_dim_ <= 256 ? 272 : 528;
    value_stride = round_up(value_dim_, 32) + 16;
    const std::int64_t key_floats = kKeyBlock * key_stride;
    const std::int64_t value_floats = kKeyBlock * value_stride;
    Scratch& scratch = worker_scratch();
    scratch.reserve(Scratch::bytes_of_floats(panels * panel_floats_) +
                    Scratch::bytes_of_floats(key_floats) + Scratch::bytes_of_floats(value_floats) +
                    Scratch::bytes_of_floats(kKeyBlock * kPanel));
    panels_ = scratch.floats(panels * panel_floats_);
    keys = scratch.floats(key_floats);
    values = scratch.floats(value_floats);
    scores = scratch.floats(kKeyBlock * kPanel);
  }

  [[nodiscard]] RowPanel panel(std::int64_t index) const {
    float* const q = panels_ + index * panel_floats_;
    float* const out = q + key_dim_ * kPanel;
    float* const largest = out + value_dim_ * kPanel;
    auto* const begin = reinterpret_cast<std::int32_t*>(largest + 2 * kPanel);
    return {.q = q,
            .out = out,
            .largest = largest,
            .sum = largest + kPanel,
            .begin = begin,
            .end = begin + kPanel};
  }

  std::int64_t key_stride = 0;
  std::int64_t value_stride = 0;
  float* keys = nullptr;    // [kKeyBlock, key_stride]
  float* values = nullptr;  // [kKeyBlock, value_stride]
  float* scores = nullptr;  // [kKeyBlock, 32]

 private:
  std::int64_t key_dim_;
  std::int64_t value_dim_;
  std::int64_t panel_floats_ = 0;
  float* panels_ = nullptr;
};

// to[c][r] = from[r][c] * factor[c] for 4 rows and 4 columns.
HWY_INLINE void transpose_quad(const std::array<const float*, 4>& from,
                               const std::array<float, 4>& factor,
                               const std::array<float*, 4>& to) {
#if HWY_TARGET == HWY_SCALAR
  for (std::size_t r = 0; r < 4; ++r) {
    for (std::size_t c = 0; c < 4; ++c) to[c][r] = from[r][c] * factor[c];
  }
#else
  const hn::CappedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pairs;
  const auto factors = hn::LoadU(d, factor.data());
  const auto r0 = hn::Mul(hn::LoadU(d, from[0]), factors);
  const auto r1 = hn::Mul(hn::LoadU(d, from[1]), factors);
  const auto r2 = hn::Mul(hn::LoadU(d, from[2]), factors);
  const auto r3 = hn::Mul(hn::LoadU(d, from[3]), factors);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to[0]);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to[1]);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to[2]);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to[3]);
#endif
}

// panel[c, r] = rows[r][c] * factor for 4 rows, which become 4 lanes of a panel.
HWY_INLINE void rows_to_lanes(const std::array<const float*, 4>& rows, std::int64_t columns,
                              float factor, float* panel) {
  std::int64_t c = 0;
  for (; c + 4 <= columns; c += 4, panel += 4 * kPanel) {
    transpose_quad({rows[0] + c, rows[1] + c, rows[2] + c, rows[3] + c},
                   {factor, factor, factor, factor},
                   {panel, panel + kPanel, panel + 2 * kPanel, panel + 3 * kPanel});
  }
  for (; c < columns; ++c, panel += kPanel) {
    for (std::size_t r = 0; r < 4; ++r) panel[r] = rows[r][c] * factor;
  }
}

// rows[r][c] = panel[c, r] * factor[r], the way back.
HWY_INLINE void lanes_to_rows(const float* panel, std::int64_t columns,
                              const std::array<float, 4>& factor,
                              const std::array<float*, 4>& rows) {
  std::int64_t c = 0;
  for (; c + 4 <= columns; c += 4, panel += 4 * kPanel) {
    transpose_quad({panel, panel + kPanel, panel + 2 * kPanel, panel + 3 * kPanel}, factor,
                   {rows[0] + c, rows[1] + c, rows[2] + c, rows[3] + c});
  }
  for (; c < columns; ++c, panel += kPanel) {
    for (std::size_t r = 0; r < 4; ++r) rows[r][c] = panel[r] * factor[r];
  }
}

HWY_INLINE void start_panel(const AttentionTask& task, std::int64_t first, const RowPanel& panel) {
  const std::int64_t rows = std::min(kPanel, task.row_end - first);
  const float scale = static_cast<float>(task.tile->scale * std::numbers::log2e);
  std::fill_n(panel.out, task.tile->value_dim * kPanel, 0.0F);
  std::fill_n(panel.largest, kPanel, kNoScore);
  std::fill_n(panel.sum, kPanel, 0.0F);
  // Lanes past the last row repeat it; nobody reads what they compute.
  const auto row_of = [&](std::int64_t lane) { return first + std::min(lane, rows - 1); };
  for (std::int64_t lane = 0; lane < kPanel; ++lane) {
    const KeyRange seen = task.seen(row_of(lane));
    panel.begin[lane] = static_cast<std::int32_t>(seen.begin - task.keys.begin);
    panel.end[lane] = static_cast<std::int32_t>(seen.end - task.keys.begin);
  }
  for (std::int64_t lane = 0; lane < kPanel; lane += 4) {
    rows_to_lanes({task.q(row_of(lane)), task.q(row_of(lane + 1)), task.q(row_of(lane + 2)),
                   task.q(row_of(lane + 3))},
                  task.tile->key_dim, scale, panel.q + lane);
  }
}

HWY_INLINE TileProduct score_product(std::int64_t key_stride, std::int64_t rows) {
  switch (key_stride) {
    case 80:
      return tile_product_for<RowsApart<80>, float>(rows);
    case 144:
      return tile_product_for<RowsApart<144>, float>(rows);
    case 272:
      return tile_product_for<RowsApart<272>, float>(rows);
    default:
      return tile_product_for<RowsApart<528>, float>(rows);
  }
}

// scores[j, :] = keys[j] . q for `count` keys.
HWY_INLINE void score_keys(const BlockMemory& memory, const float* keys, std::int64_t count,
                           std::int64_t key_dim, const RowPanel& panel) {
  const TileSplit split(count);
  for (std::int64_t index = 0; index < split.tiles; ++index) {
    const std::int64_t key = split.begin(index);
    score_product(memory.key_stride,
                  split.begin(index + 1) - key)({.a = keys + key * memory.key_stride,
                                                 .b = panel.q,
                                                 .depth = key_dim,
                                                 .c = memory.scores + key * kPanel,
                                                 .c_stride = kPanel});
  }
}

// Sets to -inf what a row does not see. `first` is the key of scores[0], counted as in the panel.
HWY_INLINE void mask_scores(const RowPanel& panel, std::int64_t first, std::int64_t count,
                            float* scores) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const VecF nothing = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int v = 0; v < kVectors; ++v) {
    const auto begin = hn::LoadU(di, panel.begin + v * kLanes);
    const auto end = hn::LoadU(di, panel.end + v * kLanes);
    for (std::int64_t j = 0; j < count; ++j) {
      const auto key = hn::Set(di, static_cast<std::int32_t>(first + j));
      const auto seen = hn::AndNot(hn::Lt(key, begin), hn::Lt(key, end));
      float* const score = scores + j * kPanel + v * kLanes;
      hn::Store(hn::IfThenElse(hn::RebindMask(d, seen), hn::Load(d, score), nothing), d, score);
    }
  }
}

// Moves the running maximum and sum on to `count` more scores, which are not yet in the sum;
// `correction` becomes what earlier sums must be multiplied by.
HWY_INLINE void start_softmax(const RowPanel& panel, std::int64_t count, const float* scores,
                              float* correction) {
  const DF d;
  constexpr int kChains = 4;  // Independent maxima, to hide their latency.
  for (int v = 0; v < kVectors; ++v) {
    const float* const column = scores + v * kLanes;
    const VecF before = hn::Load(d, panel.largest + v * kLanes);
    VecF chain[kChains] = {before, before, before, before};
    std::int64_t j = 0;
    for (; j + kChains <= count; j += kChains) {
      for (int c = 0; c < kChains; ++c) {
        chain[c] = hn::Max(chain[c], hn::Load(d, column + (j + c) * kPanel));
      }
    }
    for (; j < count; ++j) chain[0] = hn::Max(chain[0], hn::Load(d, column + j * kPanel));
    const VecF largest = hn::Max(hn::Max(chain[0], chain[1]), hn::Max(chain[2], chain[3]));
    const VecF rescale = exp2_nonpositive(d, hn::Sub(before, largest));
    hn::Store(largest, d, panel.largest + v * kLanes);
    hn::Store(hn::Mul(hn::Load(d, panel.sum + v * kLanes), rescale), d, panel.sum + v * kLanes);
    hn::Store(rescale, d, correction + v * kLanes);
  }
}

// Turns scores into weights relative to the running maximum, and adds them to the sum.
HWY_INLINE void weigh_keys(const RowPanel& panel, std::int64_t count, float* scores) {
  const DF d;
  for (int v = 0; v < kVectors; ++v) {
    const VecF largest = hn::Load(d, panel.largest + v * kLanes);
    VecF sum = hn::Load(d, panel.sum + v * kLanes);
    for (std::int64_t j = 0; j < count; ++j) {
      float* const score = scores + v * kLanes + j * kPanel;
      const VecF weight = exp2_nonpositive(d, hn::Sub(hn::Load(d, score), largest));
      hn::Store(weight, d, score);
      sum = hn::Add(sum, weight);
    }
    hn::Store(sum, d, panel.sum + v * kLanes);
  }
}

// out^T = out^T * correction + V^T p^T over `count` keys.
HWY_INLINE void add_values(const BlockMemory& memory, const float* values, std::int64_t count,
                           std::int64_t value_dim, const float* correction, const RowPanel& panel) {
  const TileSplit split(value_dim);
  for (std::int64_t index = 0; index < split.tiles; ++index) {
    const std::int64_t dim = split.begin(index);
    tile_product_for<RowsTogether, float>(split.begin(index + 1) -
                                          dim)({.a = values + dim,
                                                .a_step = memory.value_stride,
                                                .b = memory.scores,
                                                .depth = count,
                                                .c = panel.out + dim * kPanel,
                                                .c_stride = kPanel,
                                                .start_with = TileStart::own_scaled,
                                                .start = correction});
  }
}

// One panel against the widened block of keys [block.begin, block.end), counted from the task's
// first key.
HWY_INLINE void attend_panel(const AttentionTask& task, const BlockMemory& memory, KeyRange block,
                             const RowPanel& panel) {
  const KeyRange any{.begin = std::max(block.begin, panel.any().begin),
                     .end = std::min(block.end, panel.any().end)};
  const std::int64_t count = any.end - any.begin;
  if (count <= 0) return;
  const std::int64_t skipped = any.begin - block.begin;
  score_keys(memory, memory.keys + skipped * memory.key_stride, count, task.tile->key_dim, panel);
  const bool all_seen = panel.every().begin <= any.begin && any.end <= panel.every().end;
  if (!all_seen) mask_scores(panel, any.begin, count, memory.scores);
  HWY_ALIGN float correction[kPanel];
  start_softmax(panel, count, memory.scores, correction);
  weigh_keys(panel, count, memory.scores);
  add_values(memory, memory.values + skipped * memory.value_stride, count, task.tile->value_dim,
             correction, panel);
}

HWY_INLINE void finish_panel(const AttentionTask& task, std::int64_t first, const RowPanel& panel) {
  const std::int64_t rows = std::min(kPanel, task.row_end - first);
  for (std::int64_t lane = 0; lane < rows; ++lane) {
    float* const lse = task.lse(first + lane);
    if (lse != nullptr) *lse = natural_lse(panel.largest[lane], panel.sum[lane]);
    panel.sum[lane] = inverse_or_zero(panel.sum[lane]);
  }
  for (std::int64_t lane = 0; lane < rows; lane += 4) {
    // The last quad repeats the last row, with the same values.
    std::array<float, 4> factor{};
    std::array<float*, 4> out{};
    for (std::int64_t r = 0; r < 4; ++r) {
      const std::int64_t repeated = std::min(lane + r, rows - 1);
      factor[static_cast<std::size_t>(r)] = panel.sum[repeated];
      out[static_cast<std::size_t>(r)] = task.out(first + repeated);
    }
    lanes_to_rows(panel.out + lane, task.tile->value_dim, factor, out);
  }
}

HWY_INLINE void attend_in_blocks(const AttentionTask& task) {
  const BlockMemory memory(task);
  const std::int64_t panels = ceil_div(task.rows(), kPanel);
  for (std::int64_t p = 0; p < panels; ++p) {
    start_panel(task, task.row_begin + p * kPanel, memory.panel(p));
  }
  for (std::int64_t begin = task.keys.begin; begin < task.keys.end; begin += kKeyBlock) {
    const KeyRange range{.begin = begin, .end = std::min(begin + kKeyBlock, task.keys.end)};
    widen_kv(task.tile->keys, task.kv_head, range, task.tile->key_dim, memory.keys,
             memory.key_stride);
    widen_kv(task.tile->values, task.kv_head, range, task.tile->value_dim, memory.values,
             memory.value_stride);
    const KeyRange block{.begin = range.begin - task.keys.begin,
                         .end = range.end - task.keys.begin};
    for (std::int64_t p = 0; p < panels; ++p) attend_panel(task, memory, block, memory.panel(p));
  }
  for (std::int64_t p = 0; p < panels; ++p) {
    finish_panel(task, task.row_begin + p * kPanel, memory.panel(p));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // WEIR_KERNEL_ATTENTION_BLOCK_INL_H_
