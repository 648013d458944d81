#include "sim/steady_state.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "sim/activities.h"
#include "sim/plan_activities.h"
#include "sim/step_costs.h"

namespace weir {
namespace {

constexpr std::uint32_t kFewestSteps = 16;
constexpr std::uint32_t kMostSteps = 256;
constexpr double kTolerance = 1e-3;

// When the last task of each repetition is over.
std::vector<double> ends_of_steps(const PlanActivities& activities, const ActivityTimes& times) {
  const std::size_t tasks = activities.first_task.back();
  std::vector<double> ends;
  for (std::size_t first = 0; first < activities.ends.size(); first += tasks) {
    SimTime end;
    for (std::size_t task = first; task < first + tasks; ++task)
      end = std::max(end, times.ends[activities.ends[task]]);
    ends.push_back(static_cast<double>(end.ns));
  }
  return ends;
}

// Nanoseconds a step, over steps (first, last].
double mean_period(const std::vector<double>& ends, std::size_t first, std::size_t last) {
  return (ends[last] - ends[first]) / static_cast<double>(last - first);
}

double mean_busy_seconds(const Plan& plan, const StepCosts& costs) {
  double ns = 0;
  for (std::size_t n = 0; n < plan.nodes.size(); ++n) {
    if (queue_of(plan.nodes[n].kind) == Queue::comm) continue;
    for (const TaskCost& task : costs.of(static_cast<NodeId>(n)).tasks)
      ns += static_cast<double>(task.time.ns);
  }
  return ns * 1e-9 / static_cast<double>(plan.devices.size());
}

}  // namespace

Result<SteadyState> simulate_steady_state(const ValidPlan& plan, const Machine& machine,
                                          const StepLengths& lengths, SimTime between_steps,
                                          const SimulateOptions& options) {
  if (auto status = check_simulation(plan.plan(), machine, lengths); !status)
    return tl::unexpected(status.error());
  const auto costs = StepCosts::make(plan, machine, lengths, options.collectives);
  if (!costs) return tl::unexpected(costs.error());
  SteadyState state;
  for (std::uint32_t steps = kFewestSteps; steps <= kMostSteps && !state.settled; steps *= 2) {
    const PlanActivities activities = to_repeated_activities(plan, *costs, steps, between_steps);
    const ActivityTimes times =
        options.method == SimulationMethod::static_pass
            ? run_in_order(activities.graph)
            : run_by_events(activities.graph, machine.topology().capacities());
    const std::vector<double> ends = ends_of_steps(activities, times);
    // The first half is for the pipeline to fill; the two quarters after it must agree.
    const std::size_t last = ends.size() - 1;
    const double before = mean_period(ends, last / 2, last * 3 / 4);
    const double after = mean_period(ends, last * 3 / 4, last);
    const double period = mean_period(ends, last / 2, last);
    state.settled = std::abs(before - after) <= kTolerance * period;
    state.period = {period * 1e-9};
    state.simulated_steps = steps;
  }
  if (state.period.value > 0)
    state.utilisation = mean_busy_seconds(plan.plan(), *costs) / state.period.value;
  return state;
}

}  // namespace weir
