#pragma once
// --strategy and the options of all strategies as flags. Which of them the chosen strategy has is
// decided when it is made.

#include <string>

#include "strategy/strategy.h"

namespace CLI {
class App;
}

namespace weir {

struct StrategyChoice {
  std::string name = "single";
  OptionValues values;  // Those given.
};

void add_strategy_flags(CLI::App& app, StrategyChoice& choice);

// "name", its three lines of help, and its options with defaults and limits, for all strategies.
[[nodiscard]] std::string strategy_help();

}  // namespace weir
