#include "app/plan_tables.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "plan/plan_dot.h"
#include "plan/shape_text.h"
#include "plan/transfers.h"
#include "plan/work.h"
#include "report/format.h"

namespace weir {
namespace {

std::string bytes_text(std::int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

// Adds each member's part of what a communication node sends. Collectives in which every member
// does the same share it evenly; of the others each sender sends what its transfers carry.
void add_sent(const Plan& plan, NodeId id, const StepLengths& lengths,
              std::vector<DeviceShare>& shares) {
  const Node& node = plan.at(id);
  const std::vector<DeviceId>& members = plan.at(node.devices);
  using enum OpKind;
  if (node.kind == all_reduce || node.kind == reduce_scatter || node.kind == all_gather) {
    const std::int64_t bytes = bytes_sent(plan, id, lengths);
    const auto count = static_cast<std::int64_t>(members.size());
    for (std::int64_t i = 0; i < count; ++i) {
      shares[index_of(members[static_cast<std::size_t>(i)])].bytes_sent +=
          even_part(bytes, i, count).size();
    }
    return;
  }
  for (const Transfer& transfer : transfers_of(plan, id, lengths)) {
    if (transfer.from == transfer.to) continue;
    shares[index_of(transfer.from)].bytes_sent += bytes_of(plan, node, transfer);
  }
}

// 0..3 6 9..11
std::string runs_of(const std::vector<std::int64_t>& ascending) {
  std::string text;
  for (std::size_t i = 0; i < ascending.size();) {
    std::size_t end = i + 1;
    while (end < ascending.size() && ascending[end] == ascending[end - 1] + 1) ++end;
    if (!text.empty()) text += ' ';
    text += end == i + 1 ? fmt::format("{}", ascending[i])
                         : fmt::format("{}..{}", ascending[i], ascending[end - 1]);
    i = end;
  }
  return text.empty() ? std::string(kUndefined) : text;
}

// One row of a layer's table. Microbatches of equal rows are counted, not repeated.
struct OpRow {
  std::string op;
  std::string devices;
  std::string shape;
  std::int64_t flops = 0;
  std::int64_t bytes = 0;

  bool operator==(const OpRow&) const = default;
};

OpRow row_of(const Plan& plan, NodeId id, const StepLengths& lengths) {
  const Node& node = plan.at(id);
  OpRow row{.op = std::string(to_string(node.kind)),
            .devices = to_string(plan.at(node.devices)),
            .shape = {},
            .flops = 0,
            .bytes = 0};
  for (const ValueId output : node.outputs) {
    if (!row.shape.empty()) row.shape += "; ";
    const Value& value = plan.at(output);
    row.shape += fmt::format("{} {}", to_string(value.role), shape_text(plan, value));
  }
  if (queue_of(node.kind) == Queue::comm) {
    row.bytes = bytes_sent(plan, id, lengths);
  } else {
    for (const DeviceId device : plan.at(node.devices))
      row.flops += work_of(plan, node, device, lengths).flops;
  }
  return row;
}

Table table_of(const std::vector<OpRow>& rows) {
  Table table{.columns = {{.title = "op", .align = Align::left},
                          {.title = "devices", .align = Align::left},
                          {.title = "FLOP"},
                          {.title = "sent"},
                          {.title = "each device gets", .align = Align::left}},
              .rows = {}};
  for (const OpRow& row : rows) {
    table.rows.push_back(
        {.cells = {row.op, row.devices,
                   row.flops == 0 ? "" : format_quantity(static_cast<double>(row.flops), ""),
                   row.bytes == 0 ? "" : bytes_text(row.bytes), row.shape}});
  }
  return table;
}

}  // namespace

std::vector<DeviceShare> shares_of(const Plan& plan, const StepLengths& lengths) {
  std::vector<DeviceShare> shares(plan.devices.size());
  std::vector<std::set<std::int64_t>> layers(plan.devices.size());
  std::vector<std::set<std::int64_t>> heads(plan.devices.size());
  for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
    const Node& node = plan.nodes[i];
    if (queue_of(node.kind) == Queue::comm) {
      add_sent(plan, static_cast<NodeId>(i), lengths, shares);
      continue;
    }
    for (const DeviceId device : plan.at(node.devices)) {
      shares[index_of(device)].flops += work_of(plan, node, device, lengths).flops;
      if (node.layer >= 0) layers[index_of(device)].insert(node.layer);
    }
    if (node.kind != OpKind::attention) continue;
    const TensorShape shape = shape_of(plan, plan.at(node.outputs[0]));
    for (const Piece& piece : plan.layout_of(node.outputs[0]).pieces) {
      const Interval range = resolve(piece.box.head, shape.heads);
      for (std::int64_t head = range.begin; head < range.end; ++head)
        heads[index_of(piece.device)].insert(head);
    }
  }
  for (std::size_t i = 0; i < shares.size(); ++i) {
    shares[i].layers.assign(layers[i].begin(), layers[i].end());
    shares[i].q_heads.assign(heads[i].begin(), heads[i].end());
  }
  return shares;
}

Table device_table(const ValidPlan& plan, const StepLengths& lengths) {
  Table table{.columns = {{.title = "device", .align = Align::left},
                          {.title = "name", .align = Align::left},
                          {.title = "layers", .align = Align::left},
                          {.title = "q heads", .align = Align::left},
                          {.title = "weights"},
                          {.title = "KV cache"},
                          {.title = "activations"},
                          {.title = "buffers"},
                          {.title = "memory"},
                          {.title = "of"},
                          {.title = "FLOP"},
                          {.title = "sent"}},
              .rows = {}};
  const std::vector<DeviceShare> shares = shares_of(plan.plan(), lengths);
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const PlanDevice& device = plan->devices[i];
    const DeviceMemory& memory = plan.memory()[i];
    table.rows.push_back(
        {.cells = {fmt::format("{}", i), device.name, runs_of(shares[i].layers),
                   runs_of(shares[i].q_heads), bytes_text(memory.weights),
                   bytes_text(memory.kv_cache), bytes_text(memory.activations + memory.attention),
                   bytes_text(memory.comm_buffers), bytes_text(memory.total()),
                   format_or_undefined(device.memory_bytes, bytes_text),
                   format_quantity(static_cast<double>(shares[i].flops), ""),
                   bytes_text(shares[i].bytes_sent)}});
  }
  return table;
}

std::string layer_tables(const ValidPlan& plan, const StepLengths& lengths) {
  // Layer -1 holds what comes before the first layer and, from the final norm on, after the last.
  const std::int64_t num_layers = plan->model.num_layers;
  std::map<std::int64_t, std::vector<OpRow>> sections;
  std::set<std::int32_t> past_last_layer;  // Microbatches.
  for (const NodeId id : plan.topological_order()) {
    const Node& node = plan->at(id);
    std::int64_t section = node.layer;
    if (node.layer == num_layers - 1) past_last_layer.insert(node.microbatch);
    if (node.layer < 0 && past_last_layer.contains(node.microbatch)) section = num_layers;
    sections[section].push_back(row_of(plan.plan(), id, lengths));
  }
  std::string text;
  for (auto it = sections.begin(); it != sections.end();) {
    auto last = it;
    for (auto next = std::next(it); next != sections.end() && next->second == it->second; ++next)
      last = next;
    const std::string title =
        it->first < 0 ? std::string("before the layers")
        : it->first == num_layers
            ? std::string("after the layers")
            : (last == it ? fmt::format("layer {}", it->first)
                          : fmt::format("layers {}..{}, each", it->first, last->first));
    text += fmt::format("\n{}\n{}", title, render(table_of(it->second), 2));
    it = std::next(last);
  }
  return text;
}

}  // namespace weir
