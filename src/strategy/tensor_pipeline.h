#pragma once
// `single` and `tp_pp`: the reference, and the static baseline that the source notes compare with.

#include <cstdint>
#include <memory>

#include "strategy/strategy.h"
#include "strategy/tensor_parallel.h"

namespace weir {

// Tensor parallelism within each stage, the batch in even microbatches from stage to stage.
[[nodiscard]] std::unique_ptr<Strategy> make_stages(const ModelSpec& model, Stages stages,
                                                    std::int64_t microbatches);

[[nodiscard]] StrategyEntry single_strategy();
[[nodiscard]] StrategyEntry tensor_pipeline_strategy();

}  // namespace weir
