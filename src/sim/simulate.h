#pragma once
// Plays a plan through on a cluster under a virtual clock: the reader of plans that needs none of
// the devices. It obeys the rules at the head of plan/plan.h, as the executor does, and returns the
// same Timeline.
//
//   A task starts at the moment when its predecessor in its queue is done and its inputs are on its
//   device. A communication begins its work when the last of those who work together has arrived
//   (step_costs.h, parts); a member leaves it when what concerns it is over. Nothing else takes
//   time.
//
// Where communications of different nodes never meet on a link, one pass over the plan in
// topological order gives all times (and a test says that it gives the same). Where they do, an
// event loop shares links max-min fairly (link_sharing.h). Instants are integer nanoseconds; the
// same input gives the same bytes.

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "plan/validate.h"
#include "result/timeline.h"
#include "sim/collectives.h"
#include "sim/machine.h"

namespace weir {

enum class SimulationMethod : std::uint8_t {
  automatic,    // The static pass, and the event loop where links turn out to be shared.
  static_pass,  // Right only where they are not.
  event_loop,
};

struct SimulateOptions {
  SimulationMethod method = SimulationMethod::automatic;
  CollectiveOptions collectives = {};
  // Collectives as the messages of their algorithm (sim/expand.h): alone they take the same time
  // but for rounding, where links are shared each message has its own share.
  bool expand_collectives = false;
  bool record_tasks = true;
};

struct SimulatedStep {
  Timeline timeline;           // One step that starts at 0; tasks by node, then device.
  std::vector<double> joules;  // By device: resting power over the step, and its tasks'.
  double usd = 0;              // Of all devices for the step, where types have a price.
  bool links_shared = false;   // Communications of different nodes met on a link.
};

// `lengths` must be the plan's requests within its limits. Device i of the plan is device i of the
// cluster. Fails where the cluster has too few devices, or does not join those that talk, or where
// expanded messages are more than kMostActivities (sim/activities.h).
[[nodiscard]] Result<SimulatedStep> simulate(const ValidPlan& plan, const Machine& machine,
                                             const StepLengths& lengths,
                                             const SimulateOptions& options = {});
// The same for a cluster that is used once.
[[nodiscard]] Result<SimulatedStep> simulate(const ValidPlan& plan, const ClusterSpec& cluster,
                                             const StepLengths& lengths,
                                             const SimulateOptions& options = {});

// Fails unless `lengths` has one entry per request of the plan, each within its limits.
[[nodiscard]] Status check_step_lengths(const Plan& plan, const StepLengths& lengths);

// What all ways to play a plan have in common (fold.h is another). The lengths are the plan's, and
// the cluster has its devices:
[[nodiscard]] Status check_simulation(const Plan& plan, const Machine& machine,
                                      const StepLengths& lengths);
// A step that takes until `end`: its record and its devices, nothing else.
[[nodiscard]] SimulatedStep step_without_tasks(const Plan& plan, const StepLengths& lengths,
                                               SimTime end);
// Of all devices, in USD, where types have a price.
[[nodiscard]] double price_of(const Plan& plan, const Machine& machine, SimTime makespan);

}  // namespace weir
