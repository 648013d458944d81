#pragma once
// The strategy `attention_pool`; see its help text, and docs/strategies.md for what it holds and
// sends.

#include "strategy/strategy.h"

namespace weir {

[[nodiscard]] StrategyEntry attention_pool_strategy();

}  // namespace weir
