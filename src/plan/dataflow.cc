#include "plan/dataflow.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"

namespace weir {
namespace {

// A place in the model: an op of a layer. Of the two additions of a layer, which one.
struct ModelOp {
  OpKind kind = OpKind::embed;
  Role branch = Role::residual;
  std::int32_t layer = -1;

  bool operator==(const ModelOp&) const = default;
};

// Moves a value without changing what it is.
bool only_moves(OpKind kind) {
  return kind == OpKind::slice || (queue_of(kind) == Queue::comm && kind != OpKind::kv_copy);
}

class DataflowCheck {
 public:
  DataflowCheck(const Plan& plan, std::span<const NodeId> producers, std::span<const NodeId> order)
      : plan_(plan), origins_(producers.begin(), producers.end()) {
    for (const NodeId id : order) {
      const Node& node = plan.at(id);
      if (only_moves(node.kind))
        origins_[index_of(node.outputs[0])] = origins_[index_of(node.inputs[0])];
    }
  }

  std::vector<std::string> run() {
    check_counts();
    check_ends();
    check_rows();
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      if (!only_moves(plan_.nodes[i].kind)) check_inputs(static_cast<NodeId>(i));
    }
    return std::move(problems_);
  }

 private:
  // Every layer of every microbatch has its ops once; the last one those that lead to K and V,
  // where no logits are wanted.
  void check_counts() {
    using enum OpKind;
    const auto layers = static_cast<std::size_t>(plan_.model.num_layers);
    constexpr std::size_t kUpToTheCache = 4;
    constexpr ModelOp kOnce[] = {{.kind = attn_norm},
                                 {.kind = qkv_proj},
                                 {.kind = rope},
                                 {.kind = kv_append},
                                 {.kind = o_proj},
                                 {.kind = add, .branch = Role::attn_branch},
                                 {.kind = ffn_norm},
                                 {.kind = ffn_up},
                                 {.kind = activation},
                                 {.kind = ffn_down},
                                 {.kind = add, .branch = Role::ffn_branch}};
    // By microbatch * layers + layer.
    std::map<std::pair<OpKind, Role>, std::vector<std::uint32_t>> counts;
    for (const ModelOp& op : kOnce)
      counts[{op.kind, op.branch}].assign(plan_.microbatches.size() * layers, 0);
    for (const Node& node : plan_.nodes) {
      const ModelOp op = model_op(node);
      const auto of_op = counts.find({op.kind, op.branch});
      if (of_op == counts.end() || node.layer < 0) continue;
      ++of_op->second[static_cast<std::size_t>(node.microbatch) * layers +
                      static_cast<std::size_t>(node.layer)];
    }
    // In one round or several; layouts and merges say whether these are all.
    std::vector<bool> attends(plan_.microbatches.size() * layers, false);
    for (const Node& node : plan_.nodes) {
      if (node.layer < 0 || (node.kind != attention && node.kind != attend_scores)) continue;
      attends[static_cast<std::size_t>(node.microbatch) * layers +
              static_cast<std::size_t>(node.layer)] = true;
    }
    const auto ends_in_cache = [&](std::size_t slot) {
      return plan_.logits == LogitsWanted::none && slot % layers + 1 == layers;
    };
    for (std::size_t slot = 0; slot < attends.size(); ++slot) {
      if (attends[slot] != ends_in_cache(slot)) continue;
      problems_.push_back(fmt::format("layer {} of microbatch {}: found {} attention op{}",
                                      slot % layers, slot / layers, attends[slot] ? "an" : "no",
                                      attends[slot] ? ", allowed none without logits" : ""));
    }
    for (std::size_t i = 0; i < std::size(kOnce); ++i) {
      const ModelOp& op = kOnce[i];
      const auto& found = counts[{op.kind, op.branch}];
      for (std::size_t slot = 0; slot < found.size(); ++slot) {
        const std::uint32_t allowed = i >= kUpToTheCache && ends_in_cache(slot) ? 0 : 1;
        if (found[slot] == allowed) continue;
        problems_.push_back(fmt::format("layer {} of microbatch {}: found {} {} ops, allowed {}",
                                        slot % layers, slot / layers, found[slot], name_of(op),
                                        allowed));
      }
    }
  }

  // Every microbatch begins with one embedding and ends in one set of logits, where any are wanted.
  void check_ends() {
    std::vector<std::uint32_t> embeds(plan_.microbatches.size(), 0);
    std::vector<std::uint32_t> heads(plan_.microbatches.size(), 0);
    for (const Node& node : plan_.nodes) {
      if (node.kind == OpKind::embed) ++embeds[static_cast<std::size_t>(node.microbatch)];
      if (node.kind == OpKind::lm_head) ++heads[static_cast<std::size_t>(node.microbatch)];
    }
    const std::uint32_t wanted = plan_.logits == LogitsWanted::none ? 0 : 1;
    const std::vector<std::uint32_t> unread = unread_logits();
    const auto expect = [&](std::size_t microbatch, std::uint32_t found, std::uint32_t allowed,
                            std::string_view what) {
      if (found == allowed) return;
      problems_.push_back(
          fmt::format("microbatch {}: found {} {}, allowed {}", microbatch, found, what, allowed));
    };
    for (std::size_t i = 0; i < plan_.microbatches.size(); ++i) {
      expect(i, embeds[i], 1, "embed ops");
      expect(i, heads[i], wanted, "lm_head ops");
      expect(i, unread[i], wanted, "logits that no op reads");
    }
  }

  // Rows are left out of the last layer only, where only the last logits are wanted; there is no
  // way back to all of them; and the logits are those that are wanted.
  void check_rows() {
    const bool may_leave_out = plan_.logits == LogitsWanted::last;
    const bool one_row = std::ranges::all_of(
        plan_.limits, [](const RequestLengths& lengths) { return lengths.q_len <= 1; });
    for (std::size_t i = 0; i < plan_.values.size(); ++i) {
      const Value& value = plan_.values[i];
      const bool of_the_cache =
          is_cache(value.role) || value.role == Role::k || value.role == Role::v;
      const bool may_be_last =
          may_leave_out && !of_the_cache && value.layer + 1 == plan_.model.num_layers;
      const bool too_many = value.role == Role::logits && may_leave_out && !one_row;
      if (value.rows == Rows::last ? may_be_last : !too_many) continue;
      problems_.push_back(fmt::format(
          "{}: found {} rows, allowed {}", weir::name_of(plan_, static_cast<ValueId>(i)),
          to_string(value.rows), to_string(too_many ? Rows::last : Rows::all)));
    }
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const Node& node = plan_.nodes[i];
      if (writes_state(node.kind)) continue;
      const bool all_out = std::ranges::all_of(
          node.outputs, [&](ValueId id) { return plan_.at(id).rows == Rows::all; });
      const bool all_in = std::ranges::all_of(
          node.inputs, [&](ValueId id) { return plan_.at(id).rows == Rows::all; });
      if (!all_out || all_in) continue;
      problems_.push_back(fmt::format("{}: makes all rows of the last ones",
                                      weir::name_of(plan_, static_cast<NodeId>(i))));
    }
  }

  // The sampler takes the logits that no op reads.
  [[nodiscard]] std::vector<std::uint32_t> unread_logits() const {
    std::vector<bool> read(plan_.values.size(), false);
    for (const Node& node : plan_.nodes) {
      for (const ValueId input : node.inputs) read[index_of(input)] = true;
    }
    std::vector<std::uint32_t> unread(plan_.microbatches.size(), 0);
    for (std::size_t i = 0; i < plan_.values.size(); ++i) {
      const Value& value = plan_.values[i];
      if (value.role == Role::logits && !read[i])
        ++unread[static_cast<std::size_t>(value.microbatch)];
    }
    return unread;
  }

  void check_inputs(NodeId id) {
    const Node& node = plan_.at(id);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Value& value = plan_.at(node.inputs[i]);
      const NodeId origin = origins_[index_of(node.inputs[i])];
      const bool written = index_of(origin) < plan_.nodes.size();
      const auto wanted = wanted_origin(node, i);
      if (!wanted) {
        if (!written && value.layer == node.layer) continue;
        problems_.push_back(fmt::format(
            "{}: reads {}, allowed the cache of layer {} before the step", weir::name_of(plan_, id),
            weir::name_of(plan_, node.inputs[i]), node.layer));
      } else if (!written || model_op(plan_.at(origin)) != *wanted) {
        problems_.push_back(fmt::format("{}: its {} is that of {}, allowed that of {}",
                                        weir::name_of(plan_, id), to_string(value.role),
                                        written ? weir::name_of(plan_, origin) : "no op",
                                        place_of(*wanted)));
      }
    }
  }

  // Which op of the model writes what this one reads; nullopt for the cache before the step.
  [[nodiscard]] std::optional<ModelOp> wanted_origin(const Node& node, std::size_t input) const {
    using enum OpKind;
    const auto in_layer = [&](OpKind kind) { return ModelOp{.kind = kind, .layer = node.layer}; };
    const ModelOp after_attention = {.kind = add, .branch = Role::attn_branch, .layer = node.layer};
    switch (node.kind) {
      case attn_norm:
        return before_layer(node.layer);
      case qkv_proj:
        return in_layer(attn_norm);
      case rope:
        return in_layer(qkv_proj);
      case kv_append:
      case kv_copy:
        if (input >= 2) return std::nullopt;
        return in_layer(input == 0 ? rope : qkv_proj);
      case attention:
      case score_slice:
        return in_layer(input == 0 ? rope : kv_append);
      case attend_scores:
        return in_layer(input == 0 ? score_slice : kv_append);
      case merge:
      case o_proj:
        return in_layer(attention);
      case add:
        if (plan_.at(node.inputs[1]).role == Role::attn_branch)
          return input == 0 ? before_layer(node.layer) : in_layer(o_proj);
        return input == 0 ? after_attention : in_layer(ffn_down);
      case ffn_norm:
        return after_attention;
      case ffn_up:
        return in_layer(ffn_norm);
      case activation:
        return in_layer(ffn_up);
      case ffn_down:
        return in_layer(activation);
      case final_norm:
        return before_layer(static_cast<std::int32_t>(plan_.model.num_layers));
      case lm_head:
        return in_layer(final_norm);
      case embed:
      case slice:
      case all_reduce:
      case reduce_scatter:
      case all_gather:
      case all_to_all:
      case broadcast:
      case gather:
      case reduce:
      case copy:
        break;
    }
    CHECK(false, "an op that reads nothing or only moves has no place in the chain");
  }

  static ModelOp before_layer(std::int32_t layer) {
    if (layer <= 0) return {.kind = OpKind::embed};
    return {.kind = OpKind::add, .branch = Role::ffn_branch, .layer = layer - 1};
  }

  [[nodiscard]] ModelOp model_op(const Node& node) const {
    ModelOp op = {.kind = node.kind, .layer = node.layer};
    if (node.kind == OpKind::kv_copy) op.kind = OpKind::kv_append;
    if (node.kind == OpKind::attend_scores || node.kind == OpKind::merge)
      op.kind = OpKind::attention;
    if (node.kind == OpKind::embed) op.layer = -1;
    if (node.kind == OpKind::add) op.branch = plan_.at(node.inputs[1]).role;
    return op;
  }

  static std::string name_of(const ModelOp& op) {
    if (op.kind == OpKind::kv_append) return "kv_append or kv_copy";
    if (op.kind == OpKind::add) return fmt::format("add ({})", to_string(op.branch));
    return std::string(to_string(op.kind));
  }

  static std::string place_of(const ModelOp& op) {
    return op.layer < 0 ? name_of(op) : fmt::format("{} of layer {}", name_of(op), op.layer);
  }

  const Plan& plan_;
  std::vector<NodeId> origins_;  // Of each value: the compute op or kv_copy that first wrote it.
  std::vector<std::string> problems_;
};

}  // namespace

std::vector<std::string> dataflow_problems(const Plan& plan, std::span<const NodeId> producers,
                                           std::span<const NodeId> order) {
  return DataflowCheck(plan, producers, order).run();
}

std::string name_of(const Plan& plan, NodeId id) {
  const Node& node = plan.at(id);
  return fmt::format("node {} ({}, layer {}, microbatch {})", index_of(id), to_string(node.kind),
                     node.layer, node.microbatch);
}

std::string name_of(const Plan& plan, ValueId id) {
  const Value& value = plan.at(id);
  return fmt::format("value {} ({}, layer {}, microbatch {})", index_of(id), to_string(value.role),
                     value.layer, value.microbatch);
}

}  // namespace weir
