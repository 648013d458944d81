// Attention of one task with few rows, as when decoding: bound by reading keys and values, which
// therefore pass once through the caches and are widened in registers. Keys are taken in runs that
// stay in L1 or L2 while all rows use them (attention_runs-inl.h).

#if defined(WEIR_KERNEL_ATTENTION_STREAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_ATTENTION_STREAM_INL_H_
#undef WEIR_KERNEL_ATTENTION_STREAM_INL_H_
#else
#define WEIR_KERNEL_ATTENTION_STREAM_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>
#include <span>

#include "kernel/attention_block-inl.h"
#include "kernel/attention_plan.h"
#include "kernel/attention_runs-inl.h"
#include "kernel/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// The memory of a job, cut from the worker's scratch.
class StreamMemory {
 public:
  explicit StreamMemory(std::span<const AttentionTask> tasks)
      : key_dim_(tasks.front().tile->key_dim), value_dim_(tasks.front().tile->value_dim) {
    std::int64_t rows = 0;
    std::int64_t most_rows = 0;
    for (const AttentionTask& task : tasks) {
      rows += task.rows();
      most_rows = std::max(most_rows, task.rows());
    }
    Scratch& scratch = worker_scratch();
    scratch.reserve(
        Scratch::bytes_of_floats(rows * key_dim_) + Scratch::bytes_of_floats(rows * value_dim_) +
        Scratch::bytes_of_floats(rows) + Scratch::bytes_of_floats(rows * kLanes) +
        Scratch::bytes_of_floats(most_rows * kRunKeys) + Scratch::bytes_of_floats(most_rows));
    q_ = scratch.floats(rows * key_dim_);
    out_ = scratch.floats(rows * value_dim_);
    largest_ = scratch.floats(rows);
    sums_ = scratch.floats(rows * kLanes);
    scores_ = scratch.floats(most_rows * kRunKeys);
    correction_ = scratch.floats(most_rows);
    std::fill_n(out_, rows * value_dim_, 0.0F);
    std::fill_n(largest_, rows, kNoScore);
    std::fill_n(sums_, rows * kLanes, 0.0F);
  }

  // `before` rows belong to earlier tasks of the job.
  [[nodiscard]] StreamRows rows_of(const AttentionTask& task, std::int64_t before) const {
    return {.q = q_ + before * key_dim_,
            .out = out_ + before * value_dim_,
            .largest = largest_ + before,
            .sums = sums_ + before * kLanes,
            .scores = scores_,
            .correction = correction_,
            .count = task.rows(),
            .key_dim = key_dim_,
            .value_dim = value_dim_};
  }

 private:
  std::int64_t key_dim_;
  std::int64_t value_dim_;
  float* q_ = nullptr;
  float* out_ = nullptr;
  float* largest_ = nullptr;
  float* sums_ = nullptr;
  float* scores_ = nullptr;
  float* correction_ = nullptr;
};

// Turns scores of one row into weights: those in `seen` relative to the running maximum, the others
// zero. `sums` holds kLanes parts of the running sum, so that nothing is summed across lanes here.
HWY_INLINE void softmax_run(KeyRange seen, std::int64_t count, float* scores, float& largest,
                            float* sums, float& correction) {
  const DF d;
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  // Up to a whole vector, so that there is no remainder.
  const std::int64_t padded = round_up(count, kLanes);
  if (seen.begin > 0) std::fill(scores, scores + std::min(seen.begin, count), kNothing);
  const std::int64_t end = std::clamp<std::int64_t>(seen.end, 0, count);
  if (end < padded) std::fill(scores + end, scores + padded, kNothing);
  VecF maxima = hn::Load(d, scores);
  for (std::int64_t j = kLanes; j < padded; j += kLanes) {
    maxima = hn::Max(maxima, hn::Load(d, scores + j));
  }
  VecF total = hn::Load(d, sums);
  correction = 1;
  // Rare after the first runs, so that the weights need not wait for the maximum.
  if (!hn::AllFalse(d, hn::Gt(maxima, hn::Set(d, largest)))) {
    const VecF maximum = hn::Max(hn::MaxOfLanes(d, maxima), hn::Set(d, largest));
    const VecF scale = exp2_nonpositive(d, hn::Sub(hn::Set(d, largest), maximum));
    correction = hn::GetLane(scale);
    largest = hn::GetLane(maximum);
    total = hn::Mul(total, scale);
  }
  const VecF maximum = hn::Set(d, largest);
  for (std::int64_t j = 0; j < padded; j += kLanes) {
    const VecF weight = exp2_nonpositive(d, hn::Sub(hn::Load(d, scores + j), maximum));
    hn::Store(weight, d, scores + j);
    total = hn::Add(total, weight);
  }
  hn::Store(total, d, sums);
}

template <class T>
HWY_INLINE Run<T> run_of(const KvBlocks& kv, std::int64_t head, KeyRange range, NextRun next) {
  return {.at = kv_at<T>(kv, range.begin, head),
          .stride = kv.position_stride,
          .count = range.end - range.begin,
          .next = next};
}

HWY_INLINE NextRun next_run(const KvBlocks& kv, std::int64_t head, KeyRange range,
                            std::int64_t dim) {
  if (range.begin >= range.end) return {};
  const std::int64_t size = size_in_bytes(kv.dtype);
  return {.at = size == 4 ? reinterpret_cast<const std::byte*>(kv_at<float>(kv, range.begin, head))
                          : reinterpret_cast<const std::byte*>(kv_at<Bf16>(kv, range.begin, head)),
          .stride = kv.position_stride * size,
          .bytes = dim * size,
          .rows = range.end - range.begin};
}

HWY_INLINE void score_range(const AttentionTask& task, KeyRange range, NextRun next,
                            const StreamRows& state) {
  const KvBlocks& keys = task.tile->keys;
  switch (keys.dtype) {
    case DType::f32:
      return score_rows(run_of<float>(keys, task.kv_head, range, next), state);
    case DType::bf16:
      return score_rows(run_of<Bf16>(keys, task.kv_head, range, next), state);
    case DType::f16:
      return score_rows(run_of<F16>(keys, task.kv_head, range, next), state);
  }
}

HWY_INLINE void add_range(const AttentionTask& task, KeyRange range, NextRun next,
                          const StreamRows& state) {
  const KvBlocks& values = task.tile->values;
  switch (values.dtype) {
    case DType::f32:
      return add_rows(run_of<float>(values, task.kv_head, range, next), state);
    case DType::bf16:
      return add_rows(run_of<Bf16>(values, task.kv_head, range, next), state);
    case DType::f16:
      return add_rows(run_of<F16>(values, task.kv_head, range, next), state);
  }
}

// Where a job stands. It takes the keys of a block head by head, as they lie in memory, before it
// goes on to the next block: two streams, one of keys and one of values, that never jump.
struct StreamPlace {
  std::size_t task = 0;
  std::int64_t rows_before = 0;  // Of earlier tasks.
  KeyRange block = {};           // The keys of the job that lie in the present blocks.
  KeyRange run = {};             // Within `block`. Empty at the end.
};

// The longest range from `begin` on that lies within one block of keys and one of values.
HWY_INLINE KeyRange block_from(const AttentionTask& task, std::int64_t begin) {
  const std::int64_t end = std::max(begin, task.keys.end);
  if (begin == end) return {.begin = begin, .end = end};
  return {.begin = begin,
          .end = begin + std::min({end - begin, left_in_block(task.tile->keys, begin),
                                   left_in_block(task.tile->values, begin)})};
}

// With several rows a run must be long enough to make up for the softmax between its two passes.
// One row waits for memory anyway, and memory delivers more where the streams alternate sooner.
HWY_INLINE KeyRange run_from(const AttentionTask& task, KeyRange block, std::int64_t begin) {
  const std::int64_t keys = task.rows() == 1 ? kRunKeys / 2 : kRunKeys;
  return {.begin = begin, .end = std::min(block.end, begin + keys)};
}

HWY_INLINE StreamPlace place_after(std::span<const AttentionTask> tasks, StreamPlace at) {
  std::int64_t begin = at.run.end;
  if (begin == at.block.end) {
    at.rows_before += tasks[at.task].rows();
    ++at.task;
    if (at.task == tasks.size()) at = {.block = block_from(tasks.front(), at.block.end)};
    begin = at.block.begin;
  }
  at.run = run_from(tasks[at.task], at.block, begin);
  return at;
}

HWY_INLINE void start_rows(const AttentionTask& task, const StreamRows& state) {
  const DF d;
  const float scale = static_cast<float>(task.tile->scale * std::numbers::log2e);
  const std::int64_t pairs = dims_in_pairs(task.tile->keys.dtype, state.key_dim);
  for (std::int64_t row = 0; row < state.count; ++row) {
    const float* const from = task.q(task.row_begin + row);
    float* const to = state.q + row * state.key_dim;
    std::int64_t dim = 0;
    for (; dim < pairs; dim += 2 * kLanes) {
      VecF even;
      VecF odd;
      hn::LoadInterleaved2(d, from + dim, even, odd);
      hn::StoreU(hn::Mul(even, hn::Set(d, scale)), d, to + dim);
      hn::StoreU(hn::Mul(odd, hn::Set(d, scale)), d, to + dim + kLanes);
    }
    for (; dim < state.key_dim; ++dim) to[dim] = from[dim] * scale;
  }
}

// What the weighted sum of values of one row is to be multiplied by: one over the sum of weights.
HWY_INLINE float finish_sum(const AttentionTask& task, std::int64_t row, const float* sums,
                            float largest) {
  const DF d;
  const float sum = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, sums)));
  float* const lse = task.lse(task.row_begin + row);
  if (lse != nullptr) *lse = natural_lse(largest, sum);
  return inverse_or_zero(sum);
}

HWY_INLINE void finish_rows(const AttentionTask& task, const StreamRows& state) {
  const DF d;
  const std::int64_t pairs = dims_in_pairs(task.tile->values.dtype, state.value_dim);
  for (std::int64_t row = 0; row < state.count; ++row) {
    const float inverse = finish_sum(task, row, state.sums + row * kLanes, state.largest[row]);
    const float* const from = state.out + row * state.value_dim;
    float* const out = task.out(task.row_begin + row);
    std::int64_t dim = 0;
    for (; dim < pairs; dim += 2 * kLanes) {
      const VecF even = hn::Mul(hn::LoadU(d, from + dim), hn::Set(d, inverse));
      const VecF odd = hn::Mul(hn::LoadU(d, from + dim + kLanes), hn::Set(d, inverse));
      hn::StoreInterleaved2(even, odd, d, out + dim);
    }
    for (; dim < state.value_dim; ++dim) out[dim] = from[dim] * inverse;
  }
}

// The tasks of a job: of the same tile, with the same keys and few rows each.
HWY_INLINE void attend_in_runs(std::span<const AttentionTask> tasks) {
  const StreamMemory memory(tasks);
  std::int64_t rows_before = 0;
  for (const AttentionTask& task : tasks) {
    start_rows(task, memory.rows_of(task, rows_before));
    rows_before += task.rows();
  }
  const AttentionTile& tile = *tasks.front().tile;
  StreamPlace at{.block = block_from(tasks.front(), tasks.front().keys.begin)};
  at.run = run_from(tasks.front(), at.block, at.block.begin);
  while (at.run.begin < at.run.end) {
    const AttentionTask& task = tasks[at.task];
    const KeyRange range = at.run;
    const StreamRows state = memory.rows_of(task, at.rows_before);
    score_range(task, range, next_run(tile.values, task.kv_head, range, tile.value_dim), state);
    for (std::int64_t row = 0; row < state.count; ++row) {
      const KeyRange seen = task.seen(task.row_begin + row);
      softmax_run({.begin = seen.begin - range.begin, .end = seen.end - range.begin},
                  range.end - range.begin, state.scores + row * kRunKeys, state.largest[row],
                  state.sums + row * kLanes, state.correction[row]);
    }
    at = place_after(tasks, at);
    add_range(task, range, next_run(tile.keys, tasks[at.task].kv_head, at.run, tile.key_dim),
              state);
  }
  rows_before = 0;
  for (const AttentionTask& task : tasks) {
    finish_rows(task, memory.rows_of(task, rows_before));
    rows_before += task.rows();
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // WEIR_KERNEL_ATTENTION_STREAM_INL_H_
