#pragma once
// What follows from a plan alone, made when the plan is first seen: which values are laid out
// alike, who reads what, and each device's weights. And what follows from a step's lengths, of
// which most is the same in the next.

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "exec/device_state.h"
#include "plan/validate.h"
#include "spec/model.h"

namespace weir {

struct PreparedPlan {
  std::weak_ptr<const void> identity;  // Of the plan.
  std::vector<std::uint32_t>
      layout_of;                  // By value: which distinct (layout, shape) it is laid out by.
  std::vector<ValueId> examples;  // One value for each of those.
  std::vector<ValueId> logits;    // Those that no node reads.
  std::vector<PreparedDevice> devices;

  // The examples with lengths, for one step at a time; as many as steps are under way at once. They
  // stay where they are.
  struct Binding {
    std::vector<BoundLayout> layouts;
    StepLengths lengths;
    std::vector<RopeFrequencies> frequencies;  // By request,
    std::vector<std::int64_t> rope_lengths;    // for these lengths.
    std::vector<TaskFactsOfDevice> facts;      // By device.
    bool taken = false;
  };
  std::deque<Binding> bindings;
};

// All but the weights, which each device loads itself.
[[nodiscard]] PreparedPlan prepare_values(const ValidPlan& plan);

// What a StepView looks at: the plan's layouts with the lengths of a step, in a binding that others
// use again afterwards. All that is given must outlive it.
class BoundStep {
 public:
  BoundStep(const ValidPlan& plan, PreparedPlan& prepared, const ModelSpec& model,
            const StepInput& input);
  ~BoundStep() { binding_.taken = false; }
  BoundStep(const BoundStep&) = delete;
  BoundStep& operator=(const BoundStep&) = delete;

  [[nodiscard]] const StepView& view() const { return view_; }

 private:
  PreparedPlan::Binding& binding_;
  StepView view_;
};

// Of a task of the device: `facts` is its own.
[[nodiscard]] Work task_work(const StepView& step, DeviceId device, NodeId node, TaskFacts& facts);
[[nodiscard]] std::span<const Transfer> task_transfers(const StepView& step, DeviceId device,
                                                       NodeId node, TaskFacts& facts);

}  // namespace weir
