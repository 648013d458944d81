#pragma once
// What every timeline must satisfy, whoever wrote it. The metrics, traces and reports trust it
// inside.

#include <string>
#include <vector>

#include "result/timeline.h"

namespace weir {

// Every way in which the record contradicts itself: instants out of order, devices or steps that do
// not exist, tasks outside their step, two tasks of one device queue at the same time, a node
// recorded twice. Empty: sound. Whether it is a run of a certain plan is asked in result/paths.h.
// Cost: n log n in tasks.
[[nodiscard]] std::vector<std::string> problems_of(const Timeline& timeline);

}  // namespace weir
