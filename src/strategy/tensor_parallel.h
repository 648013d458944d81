#pragma once
// The layouts of one layer, of the embedding and of the logits under plain tensor parallelism over
// a group of devices. Other strategies start from these and replace what they split otherwise.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "plan/lower.h"
#include "spec/model.h"
#include "strategy/strategy.h"

namespace weir {

// Options that several strategies have.
inline constexpr std::int64_t kMostRanks = 65536;
inline constexpr OptionSpec kPipelineStages = {
    .name = "pp", .help = "pipeline stages", .default_value = "1", .max = kMostRanks};
inline constexpr OptionSpec kMicrobatches = {.name = "microbatches",
                                             .help = "parts of the batch in flight at once",
                                             .default_value = "1",
                                             .max = kMostRanks};

// Requests [begin, end) of the batch as the request range of a box.
[[nodiscard]] Range request_range(Interval requests);

// Query heads of rank `rank` of `tp`: contiguous, even to within one head.
[[nodiscard]] Interval q_heads_of_rank(const ModelSpec& model, std::int64_t rank, std::int64_t tp);

// Heads and FFN columns in even parts, K and V heads with the query heads that use them (replicated
// where ranks share one), the residual replicated. Needs group.size() <= num_q_heads.
[[nodiscard]] LayerLayouts tensor_parallel_layer(const ModelSpec& model,
                                                 std::span<const DeviceId> group,
                                                 Interval requests);

// Tokens of each request in even blocks. Balanced: of 2 n blocks rank i of n has blocks i and
// 2 n - 1 - i, so that under a causal mask an early and a late block make up for each other.
[[nodiscard]] Layout token_blocks(std::span<const DeviceId> group, Interval requests,
                                  bool balanced = false);

// FFN columns in even parts.
[[nodiscard]] Layout ffn_columns(const ModelSpec& model, std::span<const DeviceId> group,
                                 Interval requests);

// The embedding split by vocabulary: partial sums.
[[nodiscard]] Layout vocabulary_parallel_embedding(const ModelSpec& model,
                                                   std::span<const DeviceId> group,
                                                   Interval requests);

// Logits split by vocabulary.
[[nodiscard]] Layout vocabulary_parallel_logits(const ModelSpec& model,
                                                std::span<const DeviceId> group, Interval requests);

// Groups of devices, each with its own layers.
struct Stages {
  std::vector<std::vector<DeviceId>> groups;
  std::vector<std::uint32_t> of_layer;  // Index into `groups`, one per layer.

  // `count` groups of `size` consecutive devices, with even shares of the layers.
  static Stages even(std::int64_t num_layers, std::int64_t count, std::int64_t size);
  [[nodiscard]] std::int64_t num_devices() const;
};

// A microbatch whose layers are laid out by `layer(group)`; embedding and logits split by
// vocabulary over the groups of the first and the last layer.
[[nodiscard]] MicrobatchLayouts layouts_in_stages(
    const ModelSpec& model, const Stages& stages, Interval requests,
    const std::function<LayerLayouts(std::span<const DeviceId> group)>& layer);

// The batch in even parts, at most as many as there are requests, at least one.
[[nodiscard]] std::vector<Interval> even_microbatches(std::int64_t batch_size, std::int64_t count);

// A round over where K and V lie, computed in one op.
[[nodiscard]] AttentionRound plain_round(Layout k_cache, Layout v_cache, Layout attention);

// Sets where K and V lie, before and after alike.
void set_cache(LayerLayouts& layer, const Layout& cache);

}  // namespace weir
