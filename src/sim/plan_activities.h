#pragma once
// A plan as activities (sim/activities.h): what the event loop runs, and where in it each task is.
//
// A compute task is one activity. A communication begins, part by part (sim/step_costs.h), when the
// last of the part's members has come: one activity for each of its flows, or, expanded, for each
// message of its collectives (sim/expand.h). Its members are done with the last that concerns them.

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "plan/validate.h"
#include "sim/activities.h"
#include "sim/machine.h"
#include "sim/schedule.h"
#include "sim/step_costs.h"

namespace weir {

struct PlanActivities {
  ActivityGraph graph;
  std::vector<std::uint32_t> first_task;  // As Schedule's.
  std::vector<ActivityId> begins;         // By task: what begins its work,
  std::vector<ActivityId> ends;           // and what ends it.
  // Flows of one node hold each other up, on a port that several messages leave by, or a bus.
  bool flows_meet = false;
};

[[nodiscard]] PlanActivities to_activities(const ValidPlan& plan, const StepCosts& costs);

// The step again and again, nobody waiting for all of a step to end: a device goes on with the next
// one when its queue is through, and a microbatch when its own last tasks are over and the host has
// had `between_steps` for it. The tasks of repetition r are r * first_task.back() further on.
[[nodiscard]] PlanActivities to_repeated_activities(const ValidPlan& plan, const StepCosts& costs,
                                                    std::uint32_t repetitions,
                                                    SimTime between_steps);

// With every collective as its messages. `costs` were made for the same machine, lengths and
// options. Fails where there are more than kMostActivities.
[[nodiscard]] Result<PlanActivities> to_expanded_activities(const ValidPlan& plan,
                                                            const StepCosts& costs,
                                                            const Machine& machine,
                                                            const StepLengths& lengths,
                                                            const CollectiveOptions& options);

// The tasks' times, from those of the activities.
[[nodiscard]] Schedule schedule_of(const ValidPlan& plan, const PlanActivities& activities,
                                   const ActivityTimes& times);

}  // namespace weir
