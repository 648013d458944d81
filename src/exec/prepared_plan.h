#pragma once
// What follows from a plan alone, made when the plan is first seen: which values are laid out
// alike, who reads what, and each device's weights. And what follows from the last step's lengths,
// of which most is the same in the next.

#include <cstdint>
#include <memory>
#include <vector>

#include "exec/device_state.h"
#include "plan/validate.h"
#include "spec/model.h"

namespace weir {

struct PreparedPlan {
  std::weak_ptr<const void> identity;  // Of the plan.
  std::vector<std::uint32_t>
      layout_of;                   // By value: which distinct (layout, shape) it is laid out by.
  std::vector<ValueId> examples;   // One value for each of those.
  std::vector<BoundLayout> bound;  // Of the examples, for these lengths.
  StepLengths bound_for;
  std::vector<RopeFrequencies> frequencies;  // By request,
  std::vector<std::int64_t> rope_lengths;    // for these lengths.
  std::vector<LogitsPart> logits;
  std::vector<PreparedDevice> devices;
};

// All but the weights, which each device loads itself.
[[nodiscard]] PreparedPlan prepare_values(const ValidPlan& plan);

// What a StepView looks at: the plan's layouts with the lengths of a step. They are kept in
// `prepared`, which serves one step at a time.
struct BoundStep {
  BoundStep(const ValidPlan& plan, PreparedPlan& prepared, const ModelSpec& model,
            const StepInput& input);
  BoundStep(const BoundStep&) = delete;
  BoundStep& operator=(const BoundStep&) = delete;

  StepView view;
};

// Of a task of the device: `facts` is its own.
[[nodiscard]] Work task_work(const StepView& step, DeviceId device, NodeId node, TaskFacts& facts);
[[nodiscard]] std::span<const Transfer> task_transfers(const StepView& step, DeviceId device,
                                                       NodeId node, TaskFacts& facts);

}  // namespace weir
