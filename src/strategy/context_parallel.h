#pragma once
// The strategy `context_parallel`; see its help text, and docs/strategies.md for what it holds and
// sends.

#include "strategy/strategy.h"

namespace weir {

[[nodiscard]] StrategyEntry context_parallel_strategy();

}  // namespace weir
