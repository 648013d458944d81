#pragma once
// A recorded step held against the plan that it is a run of: did it obey the plan, and how near did
// it come to what the plan allows?

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "plan/plan.h"
#include "result/timeline.h"

namespace weir {

// Every way in which the tasks recorded for `step` are not a run of `plan`, which must be valid:
// tasks missing or invented, queue orders broken, a task that starts before its inputs are there, a
// communication that begins its work before its partners (partners_of, plan/transfers.h) have
// arrived. `lengths` are those of the step. Empty: the plan was obeyed.
[[nodiscard]] std::vector<std::string> problems_of(const Timeline& timeline, std::int32_t step,
                                                   const Plan& plan, const StepLengths& lengths);

// Three times of one step, from the time that each task worked (waiting for other members left
// out). Whoever starts tasks as soon as the plan allows and counts all delays as tasks' time has
//   data_path <= critical_path <= makespan <= serial_sum.
// The first two inequalities hold for every run that obeys the plan; the last one fails where time
// goes by with no task at work, as it may on a real machine.
struct PathSummary {
  SimTime data_path;  // Longest chain of tasks that hand data on: no more devices could beat it.
  SimTime critical_path;  // Longest chain when each queue also keeps its order.
  SimTime makespan;       // First start to last end.
  SimTime serial_sum;     // All compute tasks and communications one after another.

  bool operator==(const PathSummary&) const = default;
};

// Fails when the tasks are not a run of the plan.
[[nodiscard]] Result<PathSummary> summarize_paths(const Timeline& timeline, std::int32_t step,
                                                  const Plan& plan, const StepLengths& lengths);

}  // namespace weir
