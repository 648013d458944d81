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

#include "kernel/attention_block-inl.h"
#include "kernel/attention_plan.h"
#include "kernel/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// Keys of a run: 64 rows of 128 two-byte values are 16 KiB each for keys and values.
inline constexpr std::int64_t kRunKeys = 64;
// Rows whose products are formed while a vector of K or V is in a register.
inline constexpr int kStreamRows = 4;

// What is read next, to be asked for while the present rows are worked on: hardware prefetchers
// lose the thread where the stream jumps from keys to values and back.
struct NextRun {
  const std::byte* at = nullptr;
  std::int64_t stride = 0;  // Bytes.
  std::int64_t bytes = 0;   // Of one row.
  std::int64_t count = 0;

  HWY_INLINE void prefetch(std::int64_t row) const {
    constexpr std::int64_t kCacheLine = 64;
    if (row >= count) return;
    for (std::int64_t line = 0; line < bytes; line += kCacheLine) {
      __builtin_prefetch(at + row * stride + line, 0, 3);
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

struct StreamMemory {
  float* q = nullptr;           // [rows, key_dim], times scale and log2(e).
  float* out = nullptr;         // [rows, value_dim], not yet divided by `sum`.
  float* scores = nullptr;      // [rows, kRunKeys]
  float* largest = nullptr;     // [rows], base 2.
  float* sum = nullptr;         // [rows]
  float* correction = nullptr;  // [rows]
  std::int64_t rows = 0;
  std::int64_t key_dim = 0;
  std::int64_t value_dim = 0;

  explicit StreamMemory(const AttentionTask& task)
      : rows(task.rows()), key_dim(task.tile->key_dim), value_dim(task.tile->value_dim) {
    Scratch& scratch = worker_scratch();
    scratch.reserve(Scratch::bytes_of_floats(rows * key_dim) +
                    Scratch::bytes_of_floats(rows * value_dim) +
                    Scratch::bytes_of_floats(rows * kRunKeys) + 3 * Scratch::bytes_of_floats(rows));
    q = scratch.floats(rows * key_dim);
    out = scratch.floats(rows * value_dim);
    scores = scratch.floats(rows * kRunKeys);
    largest = scratch.floats(rows);
    sum = scratch.floats(rows);
    correction = scratch.floats(rows);
    const float scale = static_cast<float>(task.tile->scale * std::numbers::log2e);
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* const from = task.q(task.row_begin + row);
      for (std::int64_t d = 0; d < key_dim; ++d) q[row * key_dim + d] = from[d] * scale;
    }
    std::fill_n(out, rows * value_dim, 0.0F);
    std::fill_n(largest, rows, kNoScore);
    std::fill_n(sum, rows, 0.0F);
  }
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

// scores[r, j..j+4) for `rows` rows of q; `valid` of the keys exist, the others repeat the last.
template <int rows, class T>
HWY_INLINE void score_four(const Run<T>& run, std::int64_t j, std::int64_t valid, const float* q,
                           std::int64_t key_dim, float* scores) {
  const DF d;
  constexpr int kKeys = 4;
  const T* keys[kKeys];
  for (int k = 0; k < kKeys; ++k) {
    keys[k] = run.at + (j + std::min<std::int64_t>(k, valid - 1)) * run.stride;
  }
  VecF acc[rows][kKeys];
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int k = 0; k < kKeys; ++k) acc[r][k] = hn::Zero(d);
  }
  std::int64_t i = 0;
  for (; i + kLanes <= key_dim; i += kLanes) {
    VecF key[kKeys];
    HWY_UNROLL(8)
    for (int k = 0; k < kKeys; ++k) key[k] = load_wide(d, keys[k] + i);
    HWY_UNROLL(8)
    for (int r = 0; r < rows; ++r) {
      const VecF query = hn::LoadU(d, q + r * key_dim + i);
      HWY_UNROLL(8)
      for (int k = 0; k < kKeys; ++k) acc[r][k] = hn::MulAdd(query, key[k], acc[r][k]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    float* const score = scores + r * kRunKeys + j;
    store_sums(acc[r], score);
    for (std::int64_t rest = i; rest < key_dim; ++rest) {
      for (int k = 0; k < kKeys; ++k) score[k] += q[r * key_dim + rest] * widen_one(keys[k] + rest);
    }
  }
}

template <int rows, class T>
HWY_NOINLINE void score_run(const Run<T>& run, const float* q, std::int64_t key_dim,
                            float* scores) {
  for (std::int64_t j = 0; j < run.count; j += 4) {
    for (std::int64_t k = j; k < j + 4; ++k) run.next.prefetch(k);
    score_four<rows>(run, j, std::min<std::int64_t>(4, run.count - j), q, key_dim, scores);
  }
}

// Turns scores of one row into weights: those in `seen` relative to the new running maximum, the
// others zero.
HWY_INLINE void softmax_run(KeyRange seen, std::int64_t count, float* scores, float& largest,
                            float& sum, float& correction) {
  const DF d;
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  std::fill(scores, scores + std::clamp<std::int64_t>(seen.begin, 0, count), kNothing);
  // Up to a whole vector, so that there is no remainder.
  const std::int64_t padded = round_up(count, kLanes);
  std::fill(scores + std::clamp<std::int64_t>(seen.end, 0, count), scores + padded, kNothing);
  VecF maxima = hn::Set(d, largest);
  for (std::int64_t j = 0; j < padded; j += kLanes)
    maxima = hn::Max(maxima, hn::Load(d, scores + j));
  const VecF maximum = hn::MaxOfLanes(d, maxima);
  VecF sums = hn::Zero(d);
  for (std::int64_t j = 0; j < padded; j += kLanes) {
    const VecF weight = exp2_nonpositive(d, hn::Sub(hn::Load(d, scores + j), maximum));
    hn::Store(weight, d, scores + j);
    sums = hn::Add(sums, weight);
  }
  correction = hn::GetLane(exp2_nonpositive(d, hn::Sub(hn::Set(d, largest), maximum)));
  largest = hn::GetLane(maximum);
  sum = sum * correction + hn::GetLane(hn::SumOfLanes(d, sums));
}

// Adds dimensions [dim, dim + vectors * kLanes) of the weighted values.
template <int vectors, int rows, class T>
HWY_INLINE void add_dimensions(const Run<T>& run, std::int64_t dim, const StreamMemory& memory,
                               std::int64_t row) {
  const DF d;
  VecF acc[rows][vectors];
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    const VecF correction = hn::Set(d, memory.correction[row + r]);
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) {
      const float* const out = memory.out + (row + r) * memory.value_dim + dim + v * kLanes;
      acc[r][v] = hn::Mul(hn::LoadU(d, out), correction);
    }
  }
  const float* weight = memory.scores + row * kRunKeys;
  const T* value = run.at + dim;
  for (std::int64_t j = 0; j < run.count; ++j, value += run.stride, ++weight) {
    run.next.prefetch(j);
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
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) {
      float* const out = memory.out + (row + r) * memory.value_dim + dim + v * kLanes;
      hn::StoreU(acc[r][v], d, out);
    }
  }
}

template <int rows, class T>
HWY_NOINLINE void add_run(Run<T> run, const StreamMemory& memory, std::int64_t row) {
  constexpr int kWide = rows == 1 ? 8 : 4;  // 8 to 16 sums in registers.
  std::int64_t dim = 0;
  for (; dim + kWide * kLanes <= memory.value_dim; dim += kWide * kLanes) {
    add_dimensions<kWide, rows>(run, dim, memory, row);
    run.next = {};
  }
  for (; dim + kLanes <= memory.value_dim; dim += kLanes) {
    add_dimensions<1, rows>(run, dim, memory, row);
    run.next = {};
  }
  for (; dim < memory.value_dim; ++dim) {
    for (int r = 0; r < rows; ++r) {
      float& out = memory.out[(row + r) * memory.value_dim + dim];
      out *= memory.correction[row + r];
      for (std::int64_t j = 0; j < run.count; ++j) {
        out += memory.scores[(row + r) * kRunKeys + j] * widen_one(run.at + j * run.stride + dim);
      }
    }
  }
}

// The next run is asked for once, while the first rows of the task pass over this one.
template <class T>
HWY_INLINE void score_rows(Run<T> run, const StreamMemory& memory) {
  for (std::int64_t row = 0; row < memory.rows; row += kStreamRows, run.next = {}) {
    const float* const q = memory.q + row * memory.key_dim;
    float* const scores = memory.scores + row * kRunKeys;
    switch (std::min<std::int64_t>(kStreamRows, memory.rows - row)) {
      case 1:
        score_run<1>(run, q, memory.key_dim, scores);
        break;
      case 2:
        score_run<2>(run, q, memory.key_dim, scores);
        break;
      case 3:
        score_run<3>(run, q, memory.key_dim, scores);
        break;
      default:
        score_run<4>(run, q, memory.key_dim, scores);
        break;
    }
  }
}

template <class T>
HWY_INLINE void add_rows(Run<T> run, const StreamMemory& memory) {
  for (std::int64_t row = 0; row < memory.rows; row += kStreamRows, run.next = {}) {
    switch (std::min<std::int64_t>(kStreamRows, memory.rows - row)) {
      case 1:
        add_run<1>(run, memory, row);
        break;
      case 2:
        add_run<2>(run, memory, row);
        break;
      case 3:
        add_run<3>(run, memory, row);
        break;
      default:
        add_run<4>(run, memory, row);
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
          .count = range.end - range.begin};
}

HWY_INLINE void score_range(const AttentionTask& task, KeyRange range, NextRun next,
                            const StreamMemory& memory) {
  const KvBlocks& keys = task.tile->keys;
  switch (keys.dtype) {
    case DType::f32:
      return score_rows(run_of<float>(keys, task.kv_head, range, next), memory);
    case DType::bf16:
      return score_rows(run_of<Bf16>(keys, task.kv_head, range, next), memory);
    case DType::f16:
      return score_rows(run_of<F16>(keys, task.kv_head, range, next), memory);
  }
}

HWY_INLINE void add_range(const AttentionTask& task, KeyRange range, NextRun next,
                          const StreamMemory& memory) {
  const KvBlocks& values = task.tile->values;
  switch (values.dtype) {
    case DType::f32:
      return add_rows(run_of<float>(values, task.kv_head, range, next), memory);
    case DType::bf16:
      return add_rows(run_of<Bf16>(values, task.kv_head, range, next), memory);
    case DType::f16:
      return add_rows(run_of<F16>(values, task.kv_head, range, next), memory);
  }
}

// The longest run from `begin` on that lies within one block of keys and one of values.
HWY_INLINE KeyRange run_from(const AttentionTask& task, std::int64_t begin) {
  if (begin >= task.keys.end) return {.begin = begin, .end = begin};
  return {.begin = begin,
          .end = begin +
                 std::min({kRunKeys, task.keys.end - begin, left_in_block(task.tile->keys, begin),
                           left_in_block(task.tile->values, begin)})};
}

HWY_INLINE void attend_in_runs(const AttentionTask& task) {
  const StreamMemory memory(task);
  const AttentionTile& tile = *task.tile;
  for (KeyRange range = run_from(task, task.keys.begin); range.begin < range.end;) {
    const KeyRange following = run_from(task, range.end);
    score_range(task, range, next_run(tile.values, task.kv_head, range, tile.value_dim), memory);
    for (std::int64_t row = 0; row < memory.rows; ++row) {
      const KeyRange seen = task.seen(task.row_begin + row);
      softmax_run({.begin = seen.begin - range.begin, .end = seen.end - range.begin},
                  range.end - range.begin, memory.scores + row * kRunKeys, memory.largest[row],
                  memory.sum[row], memory.correction[row]);
    }
    add_range(task, range, next_run(tile.keys, task.kv_head, following, tile.key_dim), memory);
    range = following;
  }
  for (std::int64_t row = 0; row < memory.rows; ++row) {
    const float inverse = inverse_or_zero(memory.sum[row]);
    float* const out = task.out(task.row_begin + row);
    const float* const from = memory.out + row * memory.value_dim;
    for (std::int64_t dim = 0; dim < memory.value_dim; ++dim) out[dim] = from[dim] * inverse;
    float* const lse = task.lse(task.row_begin + row);
    if (lse != nullptr) *lse = natural_lse(memory.largest[row], memory.sum[row]);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // WEIR_KERNEL_ATTENTION_STREAM_INL_H_
