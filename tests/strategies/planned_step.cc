#include "tests/strategies/planned_step.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "plan/transfers.h"

namespace weir {
namespace {

// The layouts that k_cache and its like have in a layer decide only where bytes come from; what
// they are is said by the role of what is moved.
std::int64_t& place_of(StepBytes& bytes, const Plan& plan, const Node& node) {
  const Value& moved = plan.at(node.inputs.front());
  LayerBytes& layer = bytes.layers[static_cast<std::size_t>(node.layer)];
  switch (moved.role) {
    case Role::q:
      return layer.q;
    case Role::k:
    case Role::v:
      return layer.kv;
    case Role::k_cache:
    case Role::v_cache:
      return layer.kv_rounds;
    case Role::scores:
      return layer.scores;
    case Role::attention:
      return layer.attention;
    case Role::attn_branch:
    case Role::ffn_branch:
    case Role::normed:
    case Role::gate:
    case Role::up:
    case Role::ffn_hidden:
      return layer.branches;
    case Role::residual:
      if (moved.layer + 1 == plan.model.num_layers ||
          plan.at(node.outputs.front()).rows == Rows::last)
        return bytes.logits;
      return moved.layer < 0 ? bytes.embedding : bytes.stages;
    case Role::final_normed:
    case Role::logits:
      return bytes.logits;
  }
  return bytes.stages;
}

}  // namespace

std::optional<PlannedStep> planned(const StepSetup& setup) {
  const auto made = make_strategy(setup.strategy, setup.options, setup.model);
  if (!made) {
    ADD_FAILURE() << made.error().message;
    return std::nullopt;
  }
  PlanHeader header = {.model = setup.model,
                       .strategy = made->label,
                       .activation_dtype = setup.activation_dtype,
                       .kv_dtype = setup.kv_dtype,
                       .logits = setup.logits,
                       .limits = {},
                       .devices = {}};
  for (const RequestShape& request : setup.step) {
    header.limits.push_back({.q_len = request.q_len, .kv_len = request.past_len + request.q_len});
  }
  for (std::int64_t i = 0; i < made->strategy->num_devices(); ++i) {
    header.devices.push_back({.name = fmt::format("device {}", i), .memory_bytes = {}});
  }
  auto valid = validate(lower(header, made->strategy->layouts(setup.step)));
  if (!valid) {
    ADD_FAILURE() << made->label << ": " << fmt::format("{}", fmt::join(valid.error(), "\n"));
    return std::nullopt;
  }
  return PlannedStep{.plan = *std::move(valid), .lengths = header.limits};
}

void PrintTo(const StepBytes& bytes, std::ostream* out) {
  *out << fmt::format("embedding {} stages {} logits {}", bytes.embedding, bytes.stages,
                      bytes.logits);
  for (const LayerBytes& layer : bytes.layers) {
    *out << fmt::format("; q {} kv {} kv_rounds {} scores {} attention {} branches {}", layer.q,
                        layer.kv, layer.kv_rounds, layer.scores, layer.attention, layer.branches);
  }
}

StepBytes bytes_by_kind(const PlannedStep& step) {
  const Plan& plan = step.plan.plan();
  StepBytes bytes;
  bytes.layers.resize(static_cast<std::size_t>(plan.model.num_layers));
  for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
    const Node& node = plan.nodes[i];
    if (queue_of(node.kind) == Queue::compute) continue;
    place_of(bytes, plan, node) += bytes_sent(plan, static_cast<NodeId>(i), step.lengths);
  }
  return bytes;
}

}  // namespace weir
