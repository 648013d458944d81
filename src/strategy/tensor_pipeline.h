#pragma once
// `single` and `tp_pp`: the reference, and the static baseline that the source notes compare with.

#include <cstdint>
#include <memory>

#include "strategy/strategy.h"
#include "strategy/tensor_parallel.h"

namespace weir {

// Tensor parallelism within each stage, the batch in even microbatches from stage to stage. In
// steps of at least `sequence_parallel` new tokens per request, in the mean, the residual is split
// by tokens instead of replicated (0: in none), as in Korthikanti et al., "Reducing Activation
// Recomputation in Large Transformer Models", 2022.
[[nodiscard]] std::unique_ptr<Strategy> make_stages(const ModelSpec& model, Stages stages,
                                                    std::int64_t microbatches,
                                                    std::int64_t sequence_parallel = 0);

[[nodiscard]] StrategyEntry single_strategy();
[[nodiscard]] StrategyEntry tensor_pipeline_strategy();

}  // namespace weir
