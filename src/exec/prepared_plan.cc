#include "exec/prepared_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "exec/logits.h"

namespace weir {
namespace {

bool counts_positions(const Plan& plan, ValueId value) {
  const TensorShape shape = shape_of(plan, plan.at(value));
  return shape.counts_positions || shape.dim_is_positions;
}

bool follows_from_tokens(const Plan& plan, NodeId id) {
  const Node& node = plan.at(id);
  const auto counts = [&](ValueId value) { return counts_positions(plan, value); };
  return std::ranges::none_of(node.inputs, counts) && std::ranges::none_of(node.outputs, counts);
}

std::vector<TaskFacts> facts_of(const Plan& plan, std::span<const NodeId> queue) {
  std::vector<TaskFacts> facts;
  for (const NodeId node : queue)
    facts.push_back({.by_tokens = follows_from_tokens(plan, node), .work = {}, .transfers = {}});
  return facts;
}

// Whether the last step had as many new tokens of each request.
bool same_tokens(const StepLengths& lengths, const PreparedPlan& prepared) {
  return prepared.bound.size() == prepared.examples.size() &&
         std::ranges::equal(lengths, prepared.bound_for, {}, &RequestLengths::q_len,
                            &RequestLengths::q_len);
}

void forget_facts(PreparedPlan& prepared) {
  for (PreparedDevice& device : prepared.devices) {
    for (auto* queue : {&device.compute, &device.comm}) {
      for (TaskFacts& facts : *queue) {
        facts.work.reset();
        facts.transfers.reset();
      }
    }
  }
}

// Binds the examples to a step's lengths, those only that differ from the last step's.
void bind_examples(const Plan& plan, const StepLengths& lengths, bool all, PreparedPlan& prepared) {
  const bool first = prepared.bound.empty();
  prepared.bound.resize(prepared.examples.size());
  for (std::size_t i = 0; i < prepared.examples.size(); ++i) {
    const Value& value = plan.at(prepared.examples[i]);
    if (first) {
      prepared.bound[i] = bind(plan, value, lengths);
    } else if (all || counts_positions(plan, prepared.examples[i])) {
      rebind(plan, value, lengths, prepared.bound[i]);
    }
  }
  prepared.bound_for = lengths;
}

void find_frequencies(const ModelSpec& model, const StepInput& input, PreparedPlan& prepared) {
  if (prepared.rope_lengths == input.rope_lengths) return;
  prepared.rope_lengths = input.rope_lengths;
  prepared.frequencies.clear();
  for (const std::int64_t length : input.rope_lengths)
    prepared.frequencies.push_back(rope_frequencies(model.rope, length));
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
    prepared.devices[device].compute = facts_of(plan, plan.devices[device].compute);
    prepared.devices[device].comm = facts_of(plan, plan.devices[device].comm);
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
    : view{.plan = plan,
           .input = input,
           .layouts = {},
           .layout_of = prepared.layout_of,
           .frequencies = {},
           .logits = {}} {
  const bool new_tokens = !same_tokens(input.lengths, prepared);
  bind_examples(plan.plan(), input.lengths, new_tokens, prepared);
  find_frequencies(model, input, prepared);
  view.layouts = prepared.bound;
  view.frequencies = prepared.frequencies;
  if (new_tokens) {
    forget_facts(prepared);
    prepared.logits = logits_parts(view);
  }
  view.logits = prepared.logits;
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
