#pragma once
// The gate of the waist: `validate` turns a Plan into a ValidPlan or says everything that is wrong
// with it. Readers accept only a ValidPlan and therefore have no input-error paths.
//
// A valid plan: every id is in its table; ops have the inputs and outputs that their kind asks for;
// every value is written once and read; layouts tile their tensors; every device finds what its
// tasks need (locality.h); each node stands once in the right queue of each of its devices; data
// edges and queue orders together have no cycle, so no order of arrival can deadlock it; every op
// of the model is there once, from the embedding to the logits, and reads what the op before it has
// written (dataflow.h); memory fits at the plan's limits.

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include "plan/memory.h"
#include "plan/plan.h"

namespace weir {

// Never changes, and copies share what they hold, so copying is cheap. Readers that prepare
// something for a plan and keep it know the plan again by its identity.
class ValidPlan {
 public:
  [[nodiscard]] const Plan& plan() const { return content_->plan; }
  const Plan* operator->() const { return &content_->plan; }
  // All nodes, inputs before readers and each queue in its order; ties by node id. Obeying it never
  // waits.
  [[nodiscard]] std::span<const NodeId> topological_order() const { return content_->order; }
  // At the plan's limits, by device.
  [[nodiscard]] const std::vector<DeviceMemory>& memory() const { return content_->memory; }
  // The node that writes each value, and nodes.size() for the cache before the step.
  [[nodiscard]] std::span<const NodeId> producers() const { return content_->producers; }
  // The same for copies, of no other plan as long as it has not expired, and expired when the last
  // copy is gone.
  [[nodiscard]] std::weak_ptr<const void> identity() const { return content_; }

 private:
  struct Content {
    Plan plan;
    std::vector<NodeId> order;
    std::vector<NodeId> producers;
    std::vector<DeviceMemory> memory;
  };
  friend tl::expected<ValidPlan, std::vector<std::string>> validate(
      Plan plan, std::span<const std::int64_t> layer_repeats);
  explicit ValidPlan(Content content)
      : content_(std::make_shared<const Content>(std::move(content))) {}

  std::shared_ptr<const Content> content_;
};

// Cost: linear in nodes, queue entries and pieces of distinct layouts. `layer_repeats`: of each of
// the plan's layers, how many layers of the model it stands for (sim/fold.h), of which memory then
// holds all; empty: itself.
[[nodiscard]] tl::expected<ValidPlan, std::vector<std::string>> validate(
    Plan plan, std::span<const std::int64_t> layer_repeats = {});

}  // namespace weir
