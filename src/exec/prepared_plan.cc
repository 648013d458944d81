#include "exec/prepared_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace weir {
namespace {

bool counts_positions(const Plan& plan, ValueId value) {
  const TensorShape shape = shape_of(plan, plan.at(value));
  return shape.counts_positions || shape.dim_is_positions;
}

std::vector<TaskFacts> facts_of(const Plan& plan, std::span<const NodeId> queue) {
  const auto counts = [&](ValueId value) { return counts_positions(plan, value); };
  std::vector<TaskFacts> facts;
  for (const NodeId id : queue) {
    const Node& node = plan.at(id);
    const bool by_tokens =
        std::ranges::none_of(node.inputs, counts) && std::ranges::none_of(node.outputs, counts);
    facts.push_back({.by_tokens = by_tokens, .work = {}, .transfers = {}});
  }
  return facts;
}

// Nothing is known yet of tasks with these numbers of new tokens.
void forget_facts(const Plan& plan, std::vector<TaskFactsOfDevice>& facts) {
  facts.clear();
  for (const PlanDevice& device : plan.devices) {
    facts.push_back(
        {.compute = facts_of(plan, device.compute), .comm = facts_of(plan, device.comm)});
  }
}

// Binds the examples to a step's lengths, those only that differ from the last step's.
void bind_examples(const Plan& plan, const std::vector<ValueId>& examples,
                   const StepLengths& lengths, PreparedPlan::Binding& binding) {
  const bool first = binding.layouts.size() != examples.size();
  const bool same_tokens =
      !first && std::ranges::equal(lengths, binding.lengths, {}, &RequestLengths::q_len,
                                   &RequestLengths::q_len);
  binding.layouts.resize(examples.size());
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Value& value = plan.at(examples[i]);
    if (first) {
      binding.layouts[i] = bind(plan, value, lengths);
    } else if (!same_tokens || counts_positions(plan, examples[i])) {
      rebind(plan, value, lengths, binding.layouts[i]);
    }
  }
  if (!same_tokens) forget_facts(plan, binding.facts);
  binding.lengths = lengths;
}

void find_frequencies(const ModelSpec& model, const StepInput& input,
                      PreparedPlan::Binding& binding) {
  if (binding.rope_lengths == input.rope_lengths) return;
  binding.rope_lengths = input.rope_lengths;
  binding.frequencies.clear();
  for (const std::int64_t length : input.rope_lengths)
    binding.frequencies.push_back(rope_frequencies(model.rope, length));
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
    auto& made_here = prepared.devices[device].made_here;
    readers.assign(plan.values.size(), 0);
    made_here.assign(plan.values.size(), false);
    for (const auto* queue : {&plan.devices[device].compute, &plan.devices[device].comm}) {
      for (const NodeId node : *queue) {
        for (const ValueId input : plan.at(node).inputs) ++readers[index_of(input)];
        for (const ValueId output : plan.at(node).outputs) made_here[index_of(output)] = true;
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
            .frequencies = {},
            .facts = {}} {
  bind_examples(plan.plan(), prepared.examples, input.lengths, binding_);
  find_frequencies(model, input, binding_);
  view_.layouts = binding_.layouts;
  view_.frequencies = binding_.frequencies;
  view_.facts = binding_.facts;
}

Work task_work(const StepView& step, DeviceId device, NodeId node, TaskFacts& facts) {
  if (!facts.by_tokens || !facts.work)
    facts.work = work_of(step.plan.plan(), step.plan->at(node), device, step.input.lengths);
  return *facts.work;
}

std::span<const Transfer> task_transfers(const StepView& step, DeviceId device, NodeId node,
                                         TaskFacts& facts) {
  if (!facts.by_tokens || !facts.transfers) {
    facts.transfers = transfers_of(step.plan.plan(), node, step.input.lengths);
    std::erase_if(*facts.transfers, [&](const Transfer& transfer) {
      return transfer.from != device && transfer.to != device;
    });
  }
  return *facts.transfers;
}

}  // namespace weir
