#include "strategy/pool_policy.h"

#include <algorithm>

#include "base/check.h"

namespace weir {
namespace {

struct Step {
  std::int64_t above;  // Sequences longer than this
  std::int64_t pool;   // get so many devices.
};

// Measured points of the first note; a length between two points has the lower one's size.
constexpr Step kResults[] = {{2047, 8}, {8191, 16}, {16383, 24}, {32767, 32}};
// The ranges of the second note.
constexpr Step kAssignment[] = {{4096, 8},   {6144, 10},  {8192, 14}, {12288, 18},
                                {16384, 22}, {24576, 24}, {32768, 32}};

constexpr std::int64_t kTokensPerDevice = 1024;  // Of the linear policy.

std::span<const Step> table_of(PoolPolicy policy) {
  switch (policy) {
    case PoolPolicy::results:
      return kResults;
    case PoolPolicy::assignment:
      return kAssignment;
    case PoolPolicy::linear:
    case PoolPolicy::fixed:
      return {};
  }
  CHECK(false, "unknown policy");
}

}  // namespace

std::int64_t crest(const PoolSizing& sizing) {
  const auto table = table_of(sizing.policy);
  return table.empty() ? sizing.threshold : table.front().above;
}

std::int64_t pool_size(const PoolSizing& sizing, std::int64_t length) {
  if (length <= crest(sizing)) return 0;
  std::int64_t size = sizing.p_max;
  if (sizing.policy == PoolPolicy::linear) {
    size = (length + kTokensPerDevice - 1) / kTokensPerDevice;
  }
  for (const Step& step : table_of(sizing.policy)) {
    if (length > step.above) size = step.pool;
  }
  return std::min(size, sizing.p_max);
}

}  // namespace weir
