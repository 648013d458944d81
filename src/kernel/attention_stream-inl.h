// Attention of one task with few rows, as when decoding: bound by reading keys and values, which
// therefore pass once through the caches and are widened in registers. Dimensions lie across vector
// lanes. Keys are taken in runs that stay in L1 or L2 while all rows use them.

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
#include "kernel/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// Keys of a run at most: 64 rows of 128 two-byte values are 16 KiB each for keys and values.
inline constexpr std::int64_t kRunKeys = 64;
// Rows whose products are formed while a vector of K or V is in a register.
inline constexpr int kStreamRows = 4;
// Keys that are scored at once.
inline constexpr int kScoreKeys = 4;
// Vectors of values added at once for `rows` rows: 8 to 16 sums in registers.
constexpr int value_vectors(std::int64_t rows) { return rows == 1 ? 8 : 4; }

// What is read next, to be asked for while the present rows are worked on: hardware prefetchers
// lose the thread where the stream jumps from keys to values and back. Lines are asked for at an
// even pace, so that memory never idles, and into L2, to which a core can have more of them under
// way than to L1.
struct NextRun {
  const std::byte* at = nullptr;  // The first row not yet asked for.
  std::int64_t stride = 0;        // Bytes.
  std::int64_t bytes = 0;         // Of one row.
  std::int64_t rows = 0;          // Not yet asked for.
  std::int64_t asked = 0;         // Bytes of the first of them.
  std::int64_t pace = 0;          // Lines asked for in one step.

  static constexpr std::int64_t kCacheLine = 64;

  // The next `steps` steps ask for all of it.
  HWY_INLINE void spread_over(std::int64_t steps) {
    pace = ceil_div(rows * ceil_div(bytes, kCacheLine), steps);
  }

  HWY_INLINE void step() {
    for (std::int64_t line = 0; line < pace && rows > 0; ++line) {
      __builtin_prefetch(at + asked, 0, 2);
      asked += kCacheLine;
      if (asked < bytes) continue;
      asked = 0;
      at += stride;
      --rows;
    }
  }
};

// `count` rows of keys or values at equal distances in memory.
template <class T>
struct Run {
  const T* at;
  std::int64_t stride;
  std::int64_t count;
  NextRun next;
};

// The rows of one task while it passes over a run.
struct StreamRows {
  float* q = nullptr;           // [count, key_dim], times scale and log2(e).
  float* out = nullptr;         // [count, value_dim], not yet divided by `sum`.
  float* largest = nullptr;     // [count], base 2.
  float* sums = nullptr;        // [count, kLanes], parts of the sum of weights.
  float* scores = nullptr;      // [count, kRunKeys], of the present run.
  float* correction = nullptr;  // [count], likewise.
  std::int64_t count = 0;
  std::int64_t key_dim = 0;
  std::int64_t value_dim = 0;
};

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

#if HWY_TARGET == HWY_SCALAR
// to[0..4) = sums over the lanes of four vectors.
HWY_INLINE void store_sums(const VecF (&v)[4], float* to) {
  for (int i = 0; i < 4; ++i) to[i] = hn::GetLane(v[i]);
}
#else
// Sum of all blocks of 128 bits.
template <class D>
HWY_INLINE auto sum_of_blocks(D, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return sum_of_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// to[0..4) = sums over the lanes of four vectors, with a third of the shuffles that four separate
// sums would take.
HWY_INLINE void store_sums(const VecF (&v)[4], float* to) {
  const DF d;
  const hn::Repartition<double, DF> pairs;
  const auto sum01 = hn::BitCast(
      pairs, hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1])));
  const auto sum23 = hn::BitCast(
      pairs, hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3])));
  const VecF sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, sum01, sum23)),
                            hn::BitCast(d, hn::InterleaveUpper(pairs, sum01, sum23)));
  hn::StoreU(sum_of_blocks(d, sums), hn::CappedTag<float, 4>(), to);
}
#endif

// acc[r][k] += `vectors` vectors of row r of q times those of key k. Each key's lie together and
// are read in one go, for hardware prefetchers to see a stream.
template <int vectors, int rows, class T>
HWY_INLINE void add_products(const T* keys, std::int64_t stride, const float* q,
                             std::int64_t key_dim, VecF (&acc)[rows][kScoreKeys]) {
  const DF d;
  VecF query[rows][vectors];
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) query[r][v] = hn::LoadU(d, q + r * key_dim + v * kLanes);
  }
  HWY_UNROLL(8)
  for (int k = 0; k < kScoreKeys; ++k) {
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) {
      const VecF key = load_wide(d, keys + k * stride + v * kLanes);
      HWY_UNROLL(8)
      for (int r = 0; r < rows; ++r) acc[r][k] = hn::MulAdd(query[r][v], key, acc[r][k]);
    }
  }
}

// scores[r, 0..kScoreKeys) for `rows` rows of q and the keys from `keys` on, `stride` apart.
template <int rows, class T>
HWY_INLINE void score_keys_of_rows(const T* keys, std::int64_t stride, const float* q,
                                   std::int64_t key_dim, float* scores) {
  const DF d;
  constexpr int kWide = rows == 1 ? 8 : 4;
  VecF acc[rows][kScoreKeys];
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int k = 0; k < kScoreKeys; ++k) acc[r][k] = hn::Zero(d);
  }
  std::int64_t i = 0;
  for (; i + kWide * kLanes <= key_dim; i += kWide * kLanes) {
    add_products<kWide, rows>(keys + i, stride, q + i, key_dim, acc);
  }
  for (; i + 4 * kLanes <= key_dim; i += 4 * kLanes) {
    add_products<4, rows>(keys + i, stride, q + i, key_dim, acc);
  }
  for (; i + kLanes <= key_dim; i += kLanes) {
    add_products<1, rows>(keys + i, stride, q + i, key_dim, acc);
  }
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) store_sums(acc[r], scores + r * kRunKeys);
  for (; i < key_dim; ++i) {
    for (int r = 0; r < rows; ++r) {
      for (int k = 0; k < kScoreKeys; ++k) {
        scores[r * kRunKeys + k] += q[r * key_dim + i] * widen_one(keys + k * stride + i);
      }
    }
  }
}

template <int rows, class T>
HWY_NOINLINE void score_run(Run<T>& run, const float* q, std::int64_t key_dim, float* scores) {
  // Fewer than kScoreKeys keys are scored one by one, each kScoreKeys times.
  const bool few = run.count < kScoreKeys;
  const std::int64_t last = run.count - (few ? 1 : kScoreKeys);
  const std::int64_t step = few ? 1 : kScoreKeys;
  const std::int64_t stride = few ? 0 : run.stride;
  NextRun next = run.next;
  for (std::int64_t key = 0; key < run.count; key += step) {
    next.step();
    const std::int64_t j = std::min(key, last);  // The last keys may overlap those before.
    score_keys_of_rows<rows>(run.at + j * run.stride, stride, q, key_dim, scores + j);
  }
  run.next = next;
}

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

// acc += the weighted values of one key: its weights from `weight` on, kRunKeys apart.
template <int vectors, int rows, class T>
HWY_INLINE void add_key(const T* value, const float* weight, VecF (&acc)[rows][vectors]) {
  const DF d;
  VecF values[vectors];
  HWY_UNROLL(8)
  for (int v = 0; v < vectors; ++v) values[v] = load_wide(d, value + v * kLanes);
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    const VecF w = hn::Set(d, weight[r * kRunKeys]);
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) acc[r][v] = hn::MulAdd(w, values[v], acc[r][v]);
  }
}

// Adds dimensions [dim, dim + vectors * kLanes) of the weighted values.
template <int vectors, int rows, class T>
HWY_INLINE void add_dimensions(Run<T>& run, std::int64_t dim, const StreamRows& state,
                               std::int64_t row) {
  const DF d;
  // As many keys at once, each with sums of its own, as it takes to keep eight multiply-adds in
  // flight (see tile_product).
  constexpr int kSets = std::clamp(8 / (rows * vectors), 1, 4);
  VecF acc[kSets][rows][vectors];
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    const VecF correction = hn::Set(d, state.correction[row + r]);
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) {
      const float* const out = state.out + (row + r) * state.value_dim + dim + v * kLanes;
      acc[0][r][v] = hn::Mul(hn::LoadU(d, out), correction);
      HWY_UNROLL(8)
      for (int set = 1; set < kSets; ++set) acc[set][r][v] = hn::Zero(d);
    }
  }
  NextRun next = run.next;
  const float* weight = state.scores + row * kRunKeys;
  const T* value = run.at + dim;
  std::int64_t j = 0;
  for (; j + kSets <= run.count; j += kSets) {
    HWY_UNROLL(8)
    for (int set = 0; set < kSets; ++set, value += run.stride, ++weight) {
      next.step();
      add_key<vectors, rows>(value, weight, acc[set]);
    }
  }
  for (; j < run.count; ++j, value += run.stride, ++weight) {
    next.step();
    add_key<vectors, rows>(value, weight, acc[0]);
  }
  run.next = next;
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) {
      VecF sum = acc[0][r][v];
      HWY_UNROLL(8)
      for (int set = 1; set < kSets; ++set) sum = hn::Add(sum, acc[set][r][v]);
      float* const out = state.out + (row + r) * state.value_dim + dim + v * kLanes;
      hn::StoreU(sum, d, out);
    }
  }
}

template <int rows, class T>
HWY_NOINLINE void add_run(Run<T>& run, const StreamRows& state, std::int64_t row) {
  constexpr int kWide = value_vectors(rows);
  std::int64_t dim = 0;
  for (; dim + kWide * kLanes <= state.value_dim; dim += kWide * kLanes) {
    add_dimensions<kWide, rows>(run, dim, state, row);
  }
  for (; dim + 4 * kLanes <= state.value_dim; dim += 4 * kLanes) {
    add_dimensions<4, rows>(run, dim, state, row);
  }
  for (; dim + 2 * kLanes <= state.value_dim; dim += 2 * kLanes) {
    add_dimensions<2, rows>(run, dim, state, row);
  }
  for (; dim + kLanes <= state.value_dim; dim += kLanes) {
    add_dimensions<1, rows>(run, dim, state, row);
  }
  for (; dim < state.value_dim; ++dim) {
    for (int r = 0; r < rows; ++r) {
      float& out = state.out[(row + r) * state.value_dim + dim];
      out *= state.correction[row + r];
      for (std::int64_t j = 0; j < run.count; ++j) {
        out += state.scores[(row + r) * kRunKeys + j] * widen_one(run.at + j * run.stride + dim);
      }
    }
  }
}

template <class T>
HWY_INLINE void score_rows(Run<T> run, const StreamRows& state) {
  run.next.spread_over(ceil_div(state.count, kStreamRows) * ceil_div(run.count, kScoreKeys));
  for (std::int64_t row = 0; row < state.count; row += kStreamRows) {
    const float* const q = state.q + row * state.key_dim;
    float* const scores = state.scores + row * kRunKeys;
    switch (std::min<std::int64_t>(kStreamRows, state.count - row)) {
      case 1:
        score_run<1>(run, q, state.key_dim, scores);
        break;
      case 2:
        score_run<2>(run, q, state.key_dim, scores);
        break;
      case 3:
        score_run<3>(run, q, state.key_dim, scores);
        break;
      default:
        score_run<4>(run, q, state.key_dim, scores);
        break;
    }
  }
}

template <class T>
HWY_INLINE void add_rows(Run<T> run, const StreamRows& state) {
  run.next.spread_over(ceil_div(state.count, kStreamRows) *
                       ceil_div(state.value_dim, value_vectors(state.count) * kLanes) * run.count);
  for (std::int64_t row = 0; row < state.count; row += kStreamRows) {
    switch (std::min<std::int64_t>(kStreamRows, state.count - row)) {
      case 1:
        add_run<1>(run, state, row);
        break;
      case 2:
        add_run<2>(run, state, row);
        break;
      case 3:
        add_run<3>(run, state, row);
        break;
      default:
        add_run<4>(run, state, row);
        break;
    }
  }
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
  const float scale = static_cast<float>(task.tile->scale * std::numbers::log2e);
  for (std::int64_t row = 0; row < state.count; ++row) {
    const float* const from = task.q(task.row_begin + row);
    float* const to = state.q + row * state.key_dim;
    for (std::int64_t d = 0; d < state.key_dim; ++d) to[d] = from[d] * scale;
  }
}

// Divides the weighted sum of values of one row, whose dimension d is from[column_of(d)], by the
// sum of weights.
template <class ColumnOf>
HWY_INLINE void finish_row(const AttentionTask& task, std::int64_t row, const float* from,
                           const float* sums, float largest, ColumnOf column_of) {
  const DF d;
  const float sum = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, sums)));
  const float inverse = inverse_or_zero(sum);
  float* const out = task.out(task.row_begin + row);
  for (std::int64_t dim = 0; dim < task.tile->value_dim; ++dim)
    out[dim] = from[column_of(dim)] * inverse;
  float* const lse = task.lse(task.row_begin + row);
  if (lse != nullptr) *lse = natural_lse(largest, sum);
}

HWY_INLINE void finish_rows(const AttentionTask& task, const StreamRows& state) {
  for (std::int64_t row = 0; row < state.count; ++row) {
    finish_row(task, row, state.out + row * state.value_dim, state.sums + row * kLanes,
               state.largest[row], [](std::int64_t dim) { return dim; });
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
