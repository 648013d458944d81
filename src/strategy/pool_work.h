#pragma once
// How a pool of devices without weights shares the attention of long requests: which device gets
// which K and V, which tiles it computes, and how partial outputs come together again.

#include <cstdint>
#include <string_view>
#include <vector>

#include "plan/lower.h"
#include "spec/model.h"
#include "strategy/pool_policy.h"
#include "strategy/strategy.h"

namespace weir {

// query_blocks: K and V replicated, new tokens in ceil(q_len / p) blocks. balanced_query_blocks: an
// early and a late block each, since under a causal mask late queries see more. kv_blocks:
// positions beyond the crest in blocks that stay where they were written, partial outputs merged.
// heads: as in tensor parallelism.
enum class PoolSplit { query_blocks, balanced_query_blocks, kv_blocks, heads };
inline constexpr std::string_view kPoolSplits[] = {"query_blocks", "balanced_query_blocks",
                                                   "kv_blocks", "heads"};
enum class PoolReduction { flat, hierarchical };
inline constexpr std::string_view kPoolReductions[] = {"flat", "hierarchical"};

struct PoolWork {
  PoolSizing sizing;
  PoolSplit split = PoolSplit::kv_blocks;
  PoolReduction reduction = PoolReduction::flat;
  std::int64_t kv_block = 1024;   // Positions.
  std::int64_t first_device = 0;  // Pool device i is device first_device + i.
};

// Gives the attention of a tensor-parallel layer to the pool. All of `requests` are beyond the
// crest.
void spill_to_pool(const ModelSpec& model, const PoolWork& work, Interval requests,
                   const StepShape& step, LayerLayouts& layer);

// Whether both requests stay below the crest, or are spilled alike.
[[nodiscard]] bool spills_alike(const PoolWork& work, const RequestShape& a, const RequestShape& b);

}  // namespace weir
