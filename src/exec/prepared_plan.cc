#include "exec/prepared_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace weir {
namespace {

// Binds the examples to a step's lengths, those only that differ from the last step's.
void bind_examples(const Plan& plan, const std::vector<ValueId>& examples,
                   const StepLengths& lengths, PreparedPlan::Binding& binding) {
  const bool same_tokens = binding.layouts.size() == examples.size() &&
                           std::ranges::equal(lengths, binding.lengths, {}, &RequestLengths::q_len,
                                              &RequestLengths::q_len);
  binding.layouts.resize(examples.size());
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Value& value = plan.at(examples[i]);
    const TensorShape shape = shape_of(plan, value);
    if (same_tokens && !shape.counts_positions && !shape.dim_is_positions) continue;
    binding.layouts[i] = bind(plan, value, lengths);
  }
  binding.lengths = lengths;
}

PreparedPlan::Binding& free_binding(PreparedPlan& prepared) {
  const auto found = std::ranges::find(prepared.bindings, false, &PreparedPlan::Binding::taken);
  PreparedPlan::Binding& binding =
      found == prepared.bindings.end() ? prepared.bindings.emplace_back() : *found;
  binding.taken = true;
  return binding;
}

std::vector<ValueId> unread_logits(const Plan& plan) {
  std::vector<bool> read(plan.values.size(), false);
  for (const Node& node : plan.nodes) {
    for (const ValueId input : node.inputs) read[index_of(input)] = true;
  }
  std::vector<ValueId> logits;
  for (std::size_t i = 0; i < plan.values.size(); ++i) {
    if (plan.values[i].role == Role::logits && !read[i]) logits.push_back(static_cast<ValueId>(i));
  }
  return logits;
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
  prepared.logits = unread_logits(plan);
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
    : binding_(free_binding(prepared)),
      view_{.plan = plan,
            .input = input,
            .layouts = {},
            .layout_of = prepared.layout_of,
            .logits = prepared.logits,
            .frequencies = {}} {
  bind_examples(plan.plan(), prepared.examples, input.lengths, binding_);
  for (const std::int64_t length : input.rope_lengths)
    frequencies_.push_back(rope_frequencies(model.rope, length));
  view_.layouts = binding_.layouts;
  view_.frequencies = frequencies_;
}

}  // namespace weir
