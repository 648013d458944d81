#pragma once
// `single` and `tp_pp`: the reference, and the static baseline that the source notes compare with.

#include "strategy/strategy.h"

namespace weir {

[[nodiscard]] StrategyEntry single_strategy();
[[nodiscard]] StrategyEntry tensor_pipeline_strategy();

}  // namespace weir
