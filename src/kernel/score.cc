#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel/kernel.h"
#include "kernel/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/score.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/vector_math-inl.h"
#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

template <class T>
HWY_INLINE float dot(const float* a, const T* b, std::int64_t count) {
  const DF d;
  VecF sum = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    sum = hn::MulAdd(hn::LoadU(d, a + i), load_wide(d, b + i), sum);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < count; ++i) total += a[i] * widen_one(b + i);
  return total;
}

template <class T>
HWY_INLINE void accumulate(float factor, const T* from, std::int64_t count, float* out) {
  const DF d;
  const VecF scale = hn::Set(d, factor);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    hn::StoreU(hn::MulAdd(scale, load_wide(d, from + i), hn::LoadU(d, out + i)), d, out + i);
  }
  for (; i < count; ++i) out[i] += factor * widen_one(from + i);
}

// Calls f(key, pointer to its first dimension) for the keys of [begin, end).
template <class T, class F>
HWY_INLINE void each_key(const KvBlocks& kv, std::int64_t head, std::int64_t first_dim,
                         std::int64_t begin, std::int64_t end, F f) {
  for (std::int64_t key = begin; key < end; ++key) {
    const std::int64_t offset = key - kv.first_position;
    const auto* block =
        static_cast<const T*>(kv.blocks[static_cast<std::size_t>(offset / kv.block_size)]);
    f(key,
      block + head * kv.head_stride + (offset % kv.block_size) * kv.position_stride + first_dim);
  }
}

template <class T>
HWY_INLINE void score_row(const ScoreTile& tile, std::int64_t query, std::int64_t head,
                          SeenKeys seen, float* scores) {
  const float* const q = tile.q + query * tile.q_row_stride + head * tile.q_head_stride;
  each_key<T>(tile.keys, tile.kv_head_of[static_cast<std::size_t>(head)], tile.first_dim,
              seen.begin, seen.end, [&](std::int64_t key, const T* k) {
                scores[key - tile.key_begin] = tile.scale * dot(q, k, tile.key_dim);
              });
}

void score_head(const ScoreTile& tile, std::int64_t query, std::int64_t head, SeenKeys seen,
                float* scores) {
  switch (tile.keys.dtype) {
    case DType::f32:
      return score_row<float>(tile, query, head, seen, scores);
    case DType::bf16:
      return score_row<Bf16>(tile, query, head, seen, scores);
    case DType::f16:
      return score_row<F16>(tile, query, head, seen, scores);
  }
}

template <class T>
HWY_INLINE float attend_row(const ScoredTile& tile, std::int64_t head, SeenKeys seen,
                            const float* scores, float* out) {
  const DF d;
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t key = seen.begin; key < seen.end; ++key) {
    largest = std::max(largest, scores[key - tile.key_begin]);
  }
  float sum = 0;
  each_key<T>(tile.values, tile.kv_head_of[static_cast<std::size_t>(head)], tile.first_dim,
              seen.begin, seen.end, [&](std::int64_t key, const T* v) {
                const VecF shifted = hn::Set(d, scores[key - tile.key_begin] - largest);
                const float weight = hn::GetLane(exp_nonpositive(d, shifted));
                sum += weight;
                accumulate(weight, v, tile.value_dim, out);
              });
  for (std::int64_t i = 0; i < tile.value_dim; ++i) out[i] /= sum;
  return largest + std::log(sum);
}

float attend_head(const ScoredTile& tile, std::int64_t head, SeenKeys seen, const float* scores,
                  float* out) {
  switch (tile.values.dtype) {
    case DType::f32:
      return attend_row<float>(tile, head, seen, scores, out);
    case DType::bf16:
      return attend_row<Bf16>(tile, head, seen, scores, out);
    case DType::f16:
      break;
  }
  return attend_row<F16>(tile, head, seen, scores, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {

HWY_EXPORT(score_head);
HWY_EXPORT(attend_head);

SeenKeys seen_keys(std::int64_t position, std::int64_t window, SeenKeys keys) {
  const std::int64_t oldest = window > position ? 0 : position - window + 1;
  const SeenKeys seen = {.begin = std::max(keys.begin, oldest),
                         .end = std::min(keys.end, position + 1)};
  return {.begin = seen.begin, .end = std::max(seen.begin, seen.end)};
}

void score_slice(Team& team, const ScoreTile& tile) {
  const std::int64_t keys = tile.key_end - tile.key_begin;
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t query = row / tile.num_heads;
      float* const scores = tile.scores + row * keys;
      std::fill_n(scores, keys, 0.0F);
      const SeenKeys seen = seen_keys(tile.first_query + query, tile.window,
                                      {.begin = tile.key_begin, .end = tile.key_end});
      HWY_DYNAMIC_DISPATCH(score_head)(tile, query, row % tile.num_heads, seen, scores);
    }
  };
  for_rows(team, tile.num_queries * tile.num_heads, keys * tile.key_dim, part);
}

void attend_scores(Team& team, const ScoredTile& tile) {
  const std::int64_t keys = tile.key_end - tile.key_begin;
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t query = row / tile.num_heads;
      const std::int64_t head = row % tile.num_heads;
      float* const out = tile.out + query * tile.out_row_stride + head * tile.out_head_stride;
      std::fill_n(out, tile.value_dim, 0.0F);
      const SeenKeys seen = seen_keys(tile.first_query + query, tile.window,
                                      {.begin = tile.key_begin, .end = tile.key_end});
      float lse = -std::numeric_limits<float>::infinity();
      if (seen.begin < seen.end) {
        lse = HWY_DYNAMIC_DISPATCH(attend_head)(tile, head, seen, tile.scores + row * keys, out);
      }
      if (tile.lse != nullptr) tile.lse[query * tile.lse_row_stride + head] = lse;
    }
  };
  for_rows(team, tile.num_queries * tile.num_heads, keys * tile.value_dim, part);
}

}  // namespace weir::kernel
#endif
