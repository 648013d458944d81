#pragma once
// The layouts of one layer, of the embedding and of the logits under plain tensor parallelism over
// a group of devices. Other strategies start from these and replace what they split otherwise.

#include <span>

#include "plan/lower.h"
#include "spec/model.h"

namespace weir {

// Requests [begin, end) of the batch as the request range of a box.
[[nodiscard]] Range request_range(Interval requests);

// Query heads of rank `rank` of `tp`: contiguous, even to within one head.
[[nodiscard]] Interval q_heads_of_rank(const ModelSpec& model, std::int64_t rank, std::int64_t tp);

// Heads and FFN columns in even parts, K and V heads with the query heads that use them (replicated
// where ranks share one), the residual replicated. Needs group.size() <= num_q_heads.
[[nodiscard]] LayerLayouts tensor_parallel_layer(const ModelSpec& model,
                                                 std::span<const DeviceId> group,
                                                 Interval requests);

// The embedding split by vocabulary: partial sums.
[[nodiscard]] Layout vocabulary_parallel_embedding(const ModelSpec& model,
                                                   std::span<const DeviceId> group,
                                                   Interval requests);

// Logits split by vocabulary.
[[nodiscard]] Layout vocabulary_parallel_logits(const ModelSpec& model,
                                                std::span<const DeviceId> group, Interval requests);

}  // namespace weir
