#pragma once
// The strategy `two_level`; see its help text, and docs/strategies.md for what it holds and sends.

#include "strategy/strategy.h"

namespace weir {

[[nodiscard]] StrategyEntry two_level_strategy();

}  // namespace weir
