#pragma once
// The strategy `cache_fit`; see its help text, and docs/strategies.md for what it holds and sends.

#include "strategy/strategy.h"

namespace weir {

[[nodiscard]] StrategyEntry cache_fit_strategy();

}  // namespace weir
