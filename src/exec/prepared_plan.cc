#include "exec/prepared_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace weir {
namespace {

// Binds the examples to a step's lengths, those only that differ from the last step's.
void bind_examples(const Plan& plan, const StepLengths& lengths, PreparedPlan& prepared) {
  const bool same_tokens = prepared.bound.size() == prepared.examples.size() &&
                           std::ranges::equal(lengths, prepared.bound_for, {},
                                              &RequestLengths::q_len, &RequestLengths::q_len);
  prepared.bound.resize(prepared.examples.size());
  for (std::size_t i = 0; i < prepared.examples.size(); ++i) {
    const Value& value = plan.at(prepared.examples[i]);
    const TensorShape shape = shape_of(plan, value);
    if (same_tokens && !shape.counts_positions && !shape.dim_is_positions) continue;
    prepared.bound[i] = bind(plan, value, lengths);
  }
  prepared.bound_for = lengths;
}

}  // namespace

PreparedPlan prepare_values(const ValidPlan& valid) {
  const Plan& plan = valid.plan();
  PreparedPlan prepared;
  prepared.identity = valid.identity();
  std::map<std::tuple<LayoutId, Role, std::int32_t>, std::uint32_t> known;
  for (std::size_t i = 0; i < plan.values.size(); ++i) {
    const Value& value = plan.values[i];
    const auto next = static_cast<std::uint32_t>(prepared.examples.size());
    const auto [place, added] =
        known.try_emplace({value.layout, value.role, value.microbatch}, next);
    if (added) prepared.examples.push_back(static_cast<ValueId>(i));
    prepared.layout_of.push_back(place->second);
  }
  prepared.devices.resize(plan.devices.size());
  for (std::size_t device = 0; device < plan.devices.size(); ++device) {
    auto& readers = prepared.devices[device].readers;
    readers.assign(plan.values.size(), 0);
    for (const auto* queue : {&plan.devices[device].compute, &plan.devices[device].comm}) {
      for (const NodeId node : *queue) {
        for (const ValueId input : plan.at(node).inputs) ++readers[index_of(input)];
      }
    }
  }
  return prepared;
}

BoundStep::BoundStep(const ValidPlan& plan, PreparedPlan& prepared, const ModelSpec& model,
                     const StepInput& input)
    : view{.plan = plan, .input = input, .layouts = {}, .layout_of = {}, .frequencies = {}} {
  bind_examples(plan.plan(), input.lengths, prepared);
  for (const std::int64_t length : input.rope_lengths)
    frequencies.push_back(rope_frequencies(model.rope, length));
  view.layouts = prepared.bound;
  view.layout_of = prepared.layout_of;
  view.frequencies = frequencies;
}

}  // namespace weir
