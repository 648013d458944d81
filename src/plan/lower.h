#pragma once
// From layout choices to a plan. A strategy fills in a StepLayouts: who holds what at a few named
// points, which device does which attention tile, and in which order the parts of the step are
// queued. `lower` emits every device's compute ops and, wherever a tensor is wanted in another
// layout than it is in, the redistribution. The one lowering for all strategies.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "plan/plan.h"
#include "plan/step_layouts.h"

namespace weir {

// What a plan needs beside its layouts.
struct PlanHeader {
  ModelSpec model;
  std::string strategy;
  DType activation_dtype = DType::f32;
  DType kv_dtype = DType::f32;
  LogitsWanted logits = LogitsWanted::last;
  StepLengths limits;
  struct Device {
    std::string name;
    std::optional<std::int64_t> memory_bytes;
  };
  std::vector<Device> devices;
};

// Whether the last layer does less than the others: the rows whose logits nobody wants end with its
// K and V. What is named of it then counts for the last row of each request: pieces that cut tokens
// are taken not to, and the first of those that then are the same does the work.
[[nodiscard]] bool cuts_last_layer(const PlanHeader& header);

// Layout mistakes become a plan that `validate` refuses by name; only an order that is no
// permutation is a bug here.
[[nodiscard]] Plan lower(const PlanHeader& header, const StepLayouts& layouts);

// A plan that remembers its phases: order[i] became nodes [first_node[i], first_node[i + 1]). What
// a phase becomes depends on its part, on the layouts of its layer and, for the first part of a
// layer and the logits, of the layer before.
struct PhasedPlan {
  Plan plan;
  std::vector<std::uint32_t> first_node;  // One more than phases.
};
// Of a model that has some of the layers only: the plan's layer i is layer layers[i] of `layouts`,
// and `order` stands for theirs. The header's model has as many.
[[nodiscard]] PhasedPlan lower_layers(const PlanHeader& header, const StepLayouts& layouts,
                                      std::span<const std::uint32_t> layers,
                                      std::span<const Phase> order);

}  // namespace weir
