#pragma once
// The two ways to find when every task of a step runs: in one pass over the plan, or event by event
// where links are shared. simulate.h chooses.

#include <cstdint>
#include <span>
#include <vector>

#include "base/units.h"
#include "plan/validate.h"
#include "sim/step_costs.h"
#include "sim/topology.h"

namespace weir {

struct TaskTimes {
  SimTime start;  // As TaskRecord's.
  SimTime ready;
  SimTime end;

  bool operator==(const TaskTimes&) const = default;
};

// When the tasks of all nodes run: tasks of node n begin at first_task[n], by place in its group.
struct Schedule {
  std::vector<std::uint32_t> first_task;  // One more than nodes.
  std::vector<TaskTimes> tasks;
  SimTime end;

  [[nodiscard]] std::span<const TaskTimes> of(NodeId node) const {
    const std::size_t n = index_of(node);
    return std::span(tasks).subspan(first_task[n], first_task[n + 1] - first_task[n]);
  }
};

// Each communication takes as long as it does alone.
[[nodiscard]] Schedule schedule_statically(const ValidPlan& plan, const StepCosts& costs);

// Whether in this schedule communications of different nodes are at work on one link at one time.
[[nodiscard]] bool shares_links(const Plan& plan, const StepCosts& costs, const Topology& topology,
                                const Schedule& schedule);

// Communications that are under way together share links.
[[nodiscard]] Schedule schedule_by_events(const ValidPlan& plan, const StepCosts& costs,
                                          const Topology& topology);

}  // namespace weir
