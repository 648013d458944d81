#pragma once
// One `--sweep NAME=VALUES` of the command line: a name and the values that it takes in turn.
//
//   seq=512,1000,4096   these
//   seq=512..65536      from the first to the last, doubling; 0 is followed by 1, and the last is
//                       always there
//   pool=0..32          every value, for names that are counted one by one
//   pool=0..32:4        every fourth, and the last

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "strategy/strategy.h"

namespace weir {

// Of one axis, and of all points of a grid.
inline constexpr std::int64_t kMostSweepPoints = 4096;

// What can be swept, and within which limits.
struct SweepName {
  std::string_view name;  // As the flag, without its hyphens in front.
  std::int64_t min = 1;
  std::int64_t max = 1;
  bool one_by_one = false;  // A range without a step takes every value.

  bool operator==(const SweepName&) const = default;
};

// seq, prompt-len, output-len, batch, and the options of the strategy that are numbers.
[[nodiscard]] std::vector<SweepName> sweep_names(const StrategyEntry& strategy);

struct SweepAxis {
  std::string name;
  std::vector<std::int64_t> values;  // Ascending, each once, at least one.

  bool operator==(const SweepAxis&) const = default;
};

// Fails, naming the axis, what was found and what is allowed, on a name that is not among `names`,
// no values, what is no integer or lies outside the limits, a falling range, and on more than
// kMostSweepPoints values. Hyphens and underscores in names are the same.
[[nodiscard]] Result<SweepAxis> parse_sweep_axis(std::string_view text,
                                                 std::span<const SweepName> names);

}  // namespace weir
