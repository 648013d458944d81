#include "plan/plan_chakra.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"
#include "layout/redistribute.h"
#include "plan/protobuf_writer.h"
#include "plan/transfers.h"
#include "plan/work.h"

namespace weir {
namespace {

// Numbers of the schema's fields and enumerators.
namespace metadata_field {
enum : std::uint32_t { version = 1, attr = 2 };
}
namespace node_field {
enum : std::uint32_t { id = 1, name = 2, type = 3, ctrl_deps = 4, data_deps = 5, attr = 10 };
}
namespace attr_field {
enum : std::uint32_t {
  name = 1,
  int32_val = 7,
  int64_val = 9,
  uint64_val = 13,
  bool_val = 27,
  string_val = 29
};
}
enum class NodeType : std::uint8_t { comp = 4, comm_send = 5, comm_recv = 6, comm_coll = 7 };
enum class CommType : std::uint8_t {
  all_reduce = 0,
  all_gather = 2,
  all_to_all = 6,
  reduce_scatter = 7,
};

// What has a root is written as its messages, and so are copies: ASTRA-sim refuses a gather or a
// reduce node, and lets a broadcast node end after 1 ns, on its receivers before it was sent.
bool has_root(OpKind kind) {
  return kind == OpKind::broadcast || kind == OpKind::gather || kind == OpKind::reduce;
}

bool is_copy(OpKind kind) { return kind == OpKind::copy || kind == OpKind::kv_copy; }

CommType comm_type_of(OpKind kind) {
  switch (kind) {
    case OpKind::all_reduce:
      return CommType::all_reduce;
    case OpKind::reduce_scatter:
      return CommType::reduce_scatter;
    case OpKind::all_gather:
      return CommType::all_gather;
    case OpKind::all_to_all:
      return CommType::all_to_all;
    case OpKind::broadcast:
    case OpKind::gather:
    case OpKind::reduce:
    case OpKind::embed:
    case OpKind::attn_norm:
    case OpKind::qkv_proj:
    case OpKind::rope:
    case OpKind::kv_append:
    case OpKind::attention:
    case OpKind::score_slice:
    case OpKind::attend_scores:
    case OpKind::merge:
    case OpKind::o_proj:
    case OpKind::add:
    case OpKind::ffn_norm:
    case OpKind::ffn_up:
    case OpKind::activation:
    case OpKind::ffn_down:
    case OpKind::slice:
    case OpKind::final_norm:
    case OpKind::lm_head:
    case OpKind::copy:
    case OpKind::kv_copy:
      break;
  }
  CHECK(false, "only collectives without a root have a comm_type");
}

// Of the `bytes` that a group holds together, what one of its `members` puts in: a part where each
// has a part of its own.
std::int64_t put_in(OpKind kind, std::int64_t bytes, std::int64_t members) {
  const bool in_parts = kind == OpKind::all_gather || kind == OpKind::all_to_all;
  return in_parts ? (bytes + members - 1) / members : bytes;
}

ProtobufMessage text_attr(std::string_view name, std::string_view value) {
  ProtobufMessage attr;
  attr.text(attr_field::name, name).text(attr_field::string_val, value);
  return attr;
}

// A node under construction.
class ChakraNode {
 public:
  ChakraNode(std::uint64_t id, std::string_view name, NodeType type) {
    message_.varint(node_field::id, id)
        .text(node_field::name, name)
        .varint(node_field::type, static_cast<std::uint64_t>(type));
  }
  void depend(std::span<const std::uint64_t> queue, std::span<const std::uint64_t> inputs) {
    message_.packed(node_field::ctrl_deps, queue).packed(node_field::data_deps, inputs);
  }
  void number(std::string_view name, std::uint32_t value_field, std::int64_t value) {
    ProtobufMessage attr;
    attr.text(attr_field::name, name).varint(value_field, static_cast<std::uint64_t>(value));
    message_.message(node_field::attr, attr);
  }
  void text(std::string_view name, std::string_view value) {
    message_.message(node_field::attr, text_attr(name, value));
  }
  void append(std::string& stream) {
    number("is_cpu_op", attr_field::bool_val, 0);
    message_.append_delimited(stream);
  }

 private:
  ProtobufMessage message_;
};

}  // namespace

class ChakraTraces::Rank {
 public:
  Rank(const ChakraTraces& traces, DeviceId rank)
      : traces_(traces), plan_(traces.plan_.plan()), rank_(rank), tasks_of_(plan_.nodes.size()) {}

  std::string run() {
    ProtobufMessage metadata;
    metadata.text(metadata_field::version, "0.0.4")
        .message(metadata_field::attr, text_attr("model", plan_.model.name))
        .message(metadata_field::attr, text_attr("strategy", plan_.strategy))
        .message(metadata_field::attr, text_attr("device", plan_.devices[index_of(rank_)].name));
    metadata.append_delimited(stream_);
    const PlanDevice& device = plan_.devices[index_of(rank_)];
    std::vector<NodeId> nodes = device.compute;
    nodes.insert(nodes.end(), device.comm.begin(), device.comm.end());
    std::ranges::sort(nodes, {}, [&](NodeId id) { return traces_.position_[index_of(id)]; });
    for (const NodeId id : nodes) add(id);
    // ASTRA-sim aborts at a trace without nodes.
    if (last_id_ == 0) add_compute("idle", 0, 0, {}, 0);
    return std::move(stream_);
  }

 private:
  using Ids = std::vector<std::uint64_t>;

  void add(NodeId id) {
    const Node& node = plan_.at(id);
    const Ids inputs = inputs_of(node);
    const std::size_t queue = queue_of(node.kind) == Queue::compute ? 0 : 1;
    Ids& tasks = tasks_of_[index_of(id)];
    if (queue == 0) {
      const auto work = work_of(plan_, node, rank_, traces_.lengths_);
      // Nothing to do, as on a device without tokens: after a node of no bytes, ASTRA-sim does not
      // issue the next.
      if (work.bytes() > 0)
        tasks.push_back(add_compute(name_of(node), work.flops, work.bytes(), inputs, queue));
    } else {
      add_communication(id, inputs, tasks);
    }
    if (tasks.empty()) {
      tasks = inputs;  // No work, nothing moves: who reads the output waits for the input.
    } else {
      last_[queue] = tasks;
    }
  }

  // What stands for the inputs' producers on this rank, ascending.
  [[nodiscard]] Ids inputs_of(const Node& node) const {
    Ids inputs;
    for (const ValueId input : node.inputs) {
      const NodeId producer = traces_.plan_.producers()[index_of(input)];
      if (index_of(producer) == plan_.nodes.size()) continue;  // State from before the step.
      const Ids& tasks = tasks_of_[index_of(producer)];
      inputs.insert(inputs.end(), tasks.begin(), tasks.end());
    }
    std::ranges::sort(inputs);
    inputs.erase(std::unique(inputs.begin(), inputs.end()), inputs.end());
    return inputs;
  }

  [[nodiscard]] std::string name_of(const Node& node) const {
    return fmt::format("{} layer {} microbatch {}", to_string(node.kind), node.layer,
                       node.microbatch);
  }

  std::uint64_t add_compute(std::string_view name, std::int64_t flops, std::int64_t bytes,
                            const Ids& inputs, std::size_t queue) {
    ChakraNode task(++last_id_, name, NodeType::comp);
    task.depend(last_[queue], inputs);
    // Readers divide by it.
    task.number("num_ops", attr_field::int64_val, std::max<std::int64_t>(flops, 1));
    task.number("tensor_size", attr_field::uint64_val, bytes);
    task.append(stream_);
    return last_id_;
  }

  void add_communication(NodeId id, const Ids& inputs, Ids& tasks) {
    const Node& node = plan_.at(id);
    const Movement& movement = traces_.movements_[index_of(id)];
    for (const Collective& collective : movement.collectives) {
      if (!std::ranges::binary_search(collective.members, rank_)) continue;
      ChakraNode task(++last_id_, name_of(node), NodeType::comm_coll);
      task.depend(last_[1], inputs);
      task.number("comm_type", attr_field::int64_val,
                  static_cast<std::int64_t>(comm_type_of(node.kind)));
      task.number("comm_size", attr_field::int64_val, collective.bytes);
      task.number("comm_priority", attr_field::int32_val, 0);
      task.text("pg_name", fmt::format("{}", collective.group));
      task.append(stream_);
      tasks.push_back(last_id_);
    }
    for (const Message& message : movement.messages) {
      if (message.from != rank_ && message.to != rank_) continue;
      if (message.from == message.to) {
        // Read and written.
        tasks.push_back(add_compute(name_of(node), 0, 2 * message.bytes, inputs, 1));
        continue;
      }
      const bool sends = message.from == rank_;
      // A root has its own part only once its inputs are there; who reads waits for it by the
      // messages.
      const bool waits = sends || has_root(node.kind);
      ChakraNode task(++last_id_, name_of(node), sends ? NodeType::comm_send : NodeType::comm_recv);
      task.depend(last_[1], waits ? std::span(inputs) : std::span<const std::uint64_t>());
      task.number("comm_size", attr_field::int64_val, message.bytes);
      task.number("comm_src", attr_field::int32_val,
                  static_cast<std::int64_t>(index_of(message.from)));
      task.number("comm_dst", attr_field::int32_val,
                  static_cast<std::int64_t>(index_of(message.to)));
      task.number("comm_tag", attr_field::int32_val, static_cast<std::int64_t>(index_of(id)));
      task.append(stream_);
      tasks.push_back(last_id_);
    }
  }

  const ChakraTraces& traces_;
  const Plan& plan_;
  DeviceId rank_;
  std::string stream_;
  std::uint64_t last_id_ = 0;
  Ids last_[2];                // By queue: the last node's tasks.
  std::vector<Ids> tasks_of_;  // By node of the plan: what it comes to on this rank.
};

ChakraTraces::ChakraTraces(ValidPlan plan, StepLengths lengths)
    : plan_(std::move(plan)),
      lengths_(std::move(lengths)),
      movements_(plan_->nodes.size()),
      position_(plan_->nodes.size()) {
  const auto order = plan_.topological_order();
  for (std::size_t i = 0; i < order.size(); ++i)
    position_[index_of(order[i])] = static_cast<std::uint32_t>(i);
  for (std::size_t n = 0; n < plan_->nodes.size(); ++n) {
    const OpKind kind = plan_->nodes[n].kind;
    const auto id = static_cast<NodeId>(n);
    if (is_copy(kind) || has_root(kind)) {
      add_messages(id);
    } else if (queue_of(kind) == Queue::comm) {
      add_collectives(id);
    }
  }
}

void ChakraTraces::add_collectives(NodeId id) {
  const Node& node = plan_->at(id);
  const RedistributionPlan movement =
      classify(plan_->layout_of(node.inputs[0]), plan_->layout_of(node.outputs[0]));
  for (const CollectiveGroup& group : movement.groups) {
    const std::int64_t bytes = bytes_of_box(plan_.plan(), node.inputs[0], group.box, lengths_);
    if (bytes == 0) continue;
    const auto next = static_cast<std::uint32_t>(groups_.size() + 1);
    const std::uint32_t name = groups_.try_emplace(group.members, next).first->second;
    movements_[index_of(id)].collectives.push_back(
        {.members = group.members,
         .group = name,
         .bytes = put_in(node.kind, bytes, std::ssize(group.members))});
  }
}

void ChakraTraces::add_messages(NodeId id) {
  const OpKind kind = plan_->at(id).kind;
  std::map<std::pair<DeviceId, DeviceId>, std::int64_t> bytes;
  for (const Transfer& transfer : transfers_of(plan_.plan(), id, lengths_))
    bytes[{transfer.from, transfer.to}] += bytes_of(plan_.plan(), plan_->at(id), transfer);
  for (const auto& [pair, amount] : bytes) {
    if (amount == 0) continue;
    if (has_root(kind) && pair.first == pair.second) continue;  // Its own part stays where it is.
    movements_[index_of(id)].messages.push_back(
        {.from = pair.first, .to = pair.second, .bytes = amount});
  }
}

std::string ChakraTraces::of(DeviceId rank) const { return Rank(*this, rank).run(); }

std::string ChakraTraces::groups_json() const {
  std::map<std::uint32_t, const std::vector<DeviceId>*> by_name;
  for (const auto& [members, name] : groups_) by_name[name] = &members;
  std::vector<std::string> rows;
  for (const auto& [name, members] : by_name) {
    std::vector<std::size_t> ranks;
    for (const DeviceId device : *members) ranks.push_back(index_of(device));
    rows.push_back(fmt::format("  \"{}\": [{}]", name, fmt::join(ranks, ", ")));
  }
  return rows.empty() ? "{}\n" : fmt::format("{{\n{}\n}}\n", fmt::join(rows, ",\n"));
}

}  // namespace weir
