#pragma once
// Simulating a step without building and playing all of it: what a search over thousands of
// configurations asks for. Two things repeat in a plan, and neither is looked at more than once:
//
//   Layers. What the lowering writes for a layer depends on its layouts and on those of the layer
//   before it. So the plan is built of one layer of each such kind, and played by going over its
//   phases in the order of the whole step. The times that follow are those of the whole plan,
//   because the ops, their order and what they read are.
//
//   Ranks. Devices that do the same ops in the same time, together with the same others, have the
//   same times: one stands for all of its like. They are found by refining a partition until it no
//   longer changes.
//
// Results are equal to simulate()'s to the nanosecond, energy up to the rounding of sums; of
// moments at which memory is equally full, another one may be told of. Where they cannot be had
// that way (communications of different nodes that meet on a link need the event loop, messages one
// by one are of the whole plan), the whole step is simulated and `folded` says so.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "plan/lower.h"
#include "plan/memory.h"
#include "plan/validate.h"
#include "result/metrics.h"
#include "sim/machine.h"
#include "sim/simulate.h"

namespace weir {

// A plan of a step's distinct layers, and how the whole step goes over it. Made once for steps of
// one structure, whatever their lengths.
class FoldedPlan {
 public:
  // Fails as the whole plan does in validate(), with the same problems, and where an op reads more
  // than its own layer and the end of the one before.
  static Result<FoldedPlan> make(const PlanHeader& header, const StepLayouts& layouts);

  // Of the distinct layers. Its memory is that of the whole step.
  [[nodiscard]] const ValidPlan& plan() const { return plan_; }
  // How many layers of the model each layer of the plan stands for.
  [[nodiscard]] std::span<const std::int64_t> layer_repeats() const { return layer_repeats_; }
  // The whole step as phases of the plan: phase i is nodes [first_node()[i], first_node()[i + 1]).
  [[nodiscard]] std::span<const std::uint32_t> phases() const { return phases_; }
  [[nodiscard]] std::span<const std::uint32_t> first_node() const { return first_node_; }
  // Where each node's times are kept. Nodes with the same place in the same part of the same
  // microbatch share a slot, whatever their layer: those of the layer done last are in it.
  [[nodiscard]] std::span<const std::uint32_t> slots() const { return slots_; }

 private:
  explicit FoldedPlan(ValidPlan plan) : plan_(std::move(plan)) {}
  class Folder;  // Makes one.

  ValidPlan plan_;
  std::vector<std::int64_t> layer_repeats_;
  std::vector<std::uint32_t> phases_;
  std::vector<std::uint32_t> first_node_;
  std::vector<std::uint32_t> slots_;  // By node.
};

struct FoldedStep {
  SimulatedStep step;                  // Its timeline has no tasks.
  std::vector<DeviceMetrics> devices;  // compute_metrics' of the timeline with its tasks; only with
                                       // SimulateOptions::record_tasks.
  std::vector<DeviceMemory> memory;    // At the plan's limits, by device.
  bool folded = false;
};

// nullopt where only the event loop can tell the times. Fails as simulate() does.
[[nodiscard]] Result<std::optional<FoldedStep>> simulate_folded(
    const FoldedPlan& plan, const Machine& machine, const StepLengths& lengths,
    const SimulateOptions& options = {});

// Builds and simulates: folded where that gives the same, the whole step otherwise.
[[nodiscard]] Result<FoldedStep> simulate_folded(const PlanHeader& header,
                                                 const StepLayouts& layouts, const Machine& machine,
                                                 const StepLengths& lengths,
                                                 const SimulateOptions& options = {});

}  // namespace weir
