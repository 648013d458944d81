#include "plan/validate.h"

#include <algorithm>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <tuple>
#include <unordered_map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "plan/dataflow.h"
#include "plan/locality.h"

namespace weir {
namespace {

// So that a wholly wrong plan is reported in bounded space.
constexpr std::size_t kMostProblems = 1000;
constexpr std::size_t kMostNamedInCycle = 12;

// The checks, each assuming that the earlier ones found nothing.
class Validator {
 public:
  Validator(const Plan& plan, std::span<const std::int64_t> layer_repeats)
      : plan_(plan), layer_repeats_(layer_repeats) {}

  std::vector<std::string> problems;
  std::vector<NodeId> producers;
  std::vector<NodeId> order;
  std::vector<DeviceMemory> memory;

  bool run() {
    using Check = void (Validator::*)();
    constexpr Check kChecks[] = {&Validator::check_tables,       &Validator::check_signatures,
                                 &Validator::check_edges,        &Validator::check_layouts,
                                 &Validator::check_completeness, &Validator::check_locality,
                                 &Validator::check_queues,       &Validator::check_order,
                                 &Validator::check_dataflow,     &Validator::check_memory};
    for (const Check check : kChecks) {
      (this->*check)();
      if (!problems.empty()) return false;
    }
    return true;
  }

 private:
  void problem(std::string text) {
    if (problems.size() < kMostProblems) problems.push_back(std::move(text));
  }

  template <class Id, class Table>
  bool in_table(Id id, const Table& table) const {
    return index_of(id) < table.size();
  }

  // Every id is in its table, the batch is partitioned, devices exist.
  void check_tables() {
    if (plan_.devices.empty()) problem("devices: found none, allowed at least 1");
    std::int64_t next_request = 0;
    for (std::size_t i = 0; i < plan_.microbatches.size(); ++i) {
      const Interval requests = plan_.microbatches[i];
      if (requests.begin != next_request || requests.end < requests.begin) {
        problem(fmt::format("microbatch {}: found requests [{}, {}), allowed to begin at {}", i,
                            requests.begin, requests.end, next_request));
      }
      next_request = requests.end;
    }
    if (plan_.microbatches.empty()) {
      problem("microbatches: found none, allowed at least 1");
    } else if (next_request != plan_.batch_size()) {
      problem(fmt::format("microbatches: cover {} requests, allowed {}", next_request,
                          plan_.batch_size()));
    }
    for (std::size_t i = 0; i < plan_.limits.size(); ++i) {
      const RequestLengths lengths = plan_.limits[i];
      if (lengths.q_len < 0 || lengths.kv_len < lengths.q_len) {
        problem(fmt::format(
            "limits of request {}: found q_len {} and kv_len {}, allowed 0 <= q_len <= kv_len", i,
            lengths.q_len, lengths.kv_len));
      }
    }
    for (std::size_t i = 0; i < plan_.layouts.size(); ++i) {
      const Piece* last = nullptr;
      for (const Piece& piece : plan_.layouts[i].pieces) {
        if (!in_table(piece.device, plan_.devices))
          missing_device(fmt::format("layout {}", i), piece.device);
        const bool replica = last != nullptr && piece.box == last->box && piece.over == last->over;
        if (!replica) check_bounds(i, piece);
        last = &piece;
      }
      if (plan_.layouts[i].pieces.empty()) problem(fmt::format("layout {}: found no pieces", i));
      check_repetition(i);
    }
    for (std::size_t i = 0; i < plan_.groups.size(); ++i) {
      const auto& group = plan_.groups[i];
      for (const DeviceId device : group) {
        if (!in_table(device, plan_.devices)) missing_device(fmt::format("group {}", i), device);
      }
      const bool ascending =
          std::ranges::adjacent_find(group, std::greater_equal<>{}) == group.end();
      if (group.empty() || !ascending)
        problem(fmt::format("group {}: devices must ascend, at least 1", i));
    }
    const auto num_microbatches = static_cast<std::int32_t>(plan_.microbatches.size());
    const auto in_step = [&](std::int32_t layer, std::int32_t microbatch) {
      return layer >= -1 && layer < plan_.model.num_layers && microbatch >= 0 &&
             microbatch < num_microbatches;
    };
    for (std::size_t i = 0; i < plan_.values.size(); ++i) {
      const Value& value = plan_.values[i];
      if (!in_table(value.layout, plan_.layouts))
        problem(fmt::format("value {}: layout {} is missing", i, index_of(value.layout)));
      if (!in_step(value.layer, value.microbatch))
        problem(fmt::format("value {}: no such layer or microbatch", i));
    }
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const Node& node = plan_.nodes[i];
      if (!in_table(node.devices, plan_.groups))
        problem(fmt::format("node {}: group {} is missing", i, index_of(node.devices)));
      if (!in_step(node.layer, node.microbatch))
        problem(fmt::format("node {}: no such layer or microbatch", i));
      for (const auto* ids : {&node.inputs, &node.outputs}) {
        for (const ValueId id : *ids) {
          if (!in_table(id, plan_.values))
            problem(fmt::format("node {}: value {} is missing", i, index_of(id)));
        }
      }
    }
  }

  void missing_device(const std::string& where, DeviceId device) {
    problem(fmt::format("{}: device {} is missing, allowed 0..{}", where, index_of(device),
                        static_cast<std::int64_t>(plan_.devices.size()) - 1));
  }

  // A piece that is there twice would be computed twice.
  void check_repetition(std::size_t layout) {
    const std::vector<Piece>& pieces = plan_.layouts[layout].pieces;
    const bool one_each =
        std::ranges::adjacent_find(pieces, std::greater_equal<>{}, &Piece::device) == pieces.end();
    if (one_each) return;
    std::unordered_multimap<std::size_t, std::size_t> earlier;  // Hash -> piece.
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const std::size_t hash = hash_of({.kind = LayoutKind::whole, .pieces = {pieces[i]}});
      const auto [begin, end] = earlier.equal_range(hash);
      const auto same =
          std::find_if(begin, end, [&](const auto& e) { return pieces[e.second] == pieces[i]; });
      if (same != end) {
        problem(fmt::format("layout {}: piece {} repeats piece {}", layout, i, same->second));
      } else {
        earlier.emplace(hash, i);
      }
    }
  }

  void check_bounds(std::size_t layout, const Piece& piece) {
    for (const Box* box : {&piece.box, &piece.over}) {
      const auto is_right = [](const Bound& bound) {
        return bound.parts >= 1 && bound.index >= 0 && bound.index <= bound.parts;
      };
      const auto are_right = [&](const Range& range) {
        return is_right(range.begin) && is_right(range.end);
      };
      if (are_right(box->request) && are_right(box->token) && are_right(box->head) &&
          are_right(box->dim))
        continue;
      for (const Axis axis : kAllAxes) {
        for (const Bound bound : {(*box)[axis].begin, (*box)[axis].end}) {
          if (is_right(bound)) continue;
          problem(fmt::format("layout {}: found a {} bound at part {} of {}, allowed 0..parts",
                              layout, to_string(axis), bound.index, bound.parts));
        }
      }
    }
  }

  // Ops have the inputs and outputs of their kind, in their own microbatch, and write in their own
  // layer.
  void check_signatures() {
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const Node& node = plan_.nodes[i];
      if (!fits_a_signature(node)) {
        problem(fmt::format("{}: its inputs or outputs are not those of the op",
                            name_of(plan_, static_cast<NodeId>(i))));
      }
      for (const auto* ids : {&node.inputs, &node.outputs}) {
        for (const ValueId id : *ids) {
          if (plan_.at(id).microbatch != node.microbatch) {
            problem(fmt::format("{}: {} belongs to another microbatch",
                                name_of(plan_, static_cast<NodeId>(i)), name_of(plan_, id)));
          }
        }
      }
      for (const ValueId id : node.outputs) {
        if (plan_.at(id).layer != node.layer) {
          problem(fmt::format("{}: {} belongs to another layer",
                              name_of(plan_, static_cast<NodeId>(i)), name_of(plan_, id)));
        }
      }
    }
    for (std::size_t i = 0; i < plan_.values.size(); ++i) {
      const Value& value = plan_.values[i];
      const DType allowed = is_cache(value.role) ? plan_.kv_dtype : plan_.activation_dtype;
      if (value.dtype != allowed) {
        problem(fmt::format("{}: found dtype {}, allowed {}",
                            name_of(plan_, static_cast<ValueId>(i)), to_string(value.dtype),
                            to_string(allowed)));
      }
    }
  }

  [[nodiscard]] bool fits_a_signature(const Node& node) {
    const auto set_roles = [&](const std::vector<ValueId>& ids, std::vector<Role>& roles) {
      roles.clear();
      for (const ValueId id : ids) roles.push_back(plan_.at(id).role);
    };
    set_roles(node.inputs, input_roles_);
    set_roles(node.outputs, output_roles_);
    return has_signature(node.kind, plan_.model, input_roles_, output_roles_);
  }

  // Every value is written once and read; the cache before the step has no writer, the logits and
  // the cache after it need no reader.
  void check_edges() {
    const auto none = static_cast<NodeId>(plan_.nodes.size());
    producers.assign(plan_.values.size(), none);
    std::vector<bool> read(plan_.values.size(), false);
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const auto id = static_cast<NodeId>(i);
      for (const ValueId output : plan_.nodes[i].outputs) {
        NodeId& producer = producers[index_of(output)];
        if (producer != none) {
          problem(fmt::format("{}: written by {} and again by {}", name_of(plan_, output),
                              name_of(plan_, producer), name_of(plan_, id)));
        }
        producer = id;
      }
      for (const ValueId input : plan_.nodes[i].inputs) read[index_of(input)] = true;
    }
    for (std::size_t i = 0; i < plan_.values.size(); ++i) {
      const auto id = static_cast<ValueId>(i);
      const Role role = plan_.values[i].role;
      if (producers[i] == none && !is_cache(role))
        problem(fmt::format("{}: nothing writes it", name_of(plan_, id)));
      const bool may_be_last = role == Role::logits || (is_cache(role) && producers[i] != none);
      if (!read[i] && !may_be_last)
        problem(fmt::format("{}: dangling, nothing reads it", name_of(plan_, id)));
    }
  }

  void check_layouts() {
    std::set<std::tuple<LayoutId, Role, std::int32_t>> checked;
    for (std::size_t i = 0; i < plan_.values.size(); ++i) {
      const Value& value = plan_.values[i];
      if (!checked.emplace(value.layout, value.role, value.microbatch).second) continue;
      const Layout& layout = plan_.layouts[index_of(value.layout)];
      for (const std::string& text : problems_of(layout, domain_of(value, layout))) {
        problem(fmt::format("{}, layout {} ({}): {}", name_of(plan_, static_cast<ValueId>(i)),
                            index_of(value.layout), to_string(layout.kind), text));
      }
      const bool may_be_sum = value.role == Role::attn_branch || value.role == Role::ffn_branch ||
                              value.role == Role::residual || value.role == Role::scores;
      if ((layout.kind == LayoutKind::sum && !may_be_sum) ||
          (layout.kind == LayoutKind::softmax && value.role != Role::attention)) {
        problem(fmt::format("{}: a {} cannot be held as {} partials",
                            name_of(plan_, static_cast<ValueId>(i)), to_string(value.role),
                            to_string(layout.kind)));
      }
    }
  }

  // What the layout must cover. Rounds of attention cover a part of the keys each: scores one range
  // of them, partial attention any ranges; that nothing is missing is checked where they are
  // gathered up (check_completeness) or merged (locality.h).
  [[nodiscard]] LayoutDomain domain_of(const Value& value, const Layout& layout) const {
    LayoutDomain domain = shape_of(plan_, value).domain;
    if (value.role == Role::scores) domain.box.dim = layout.pieces.front().box.dim;
    domain.gaps_allowed = value.role == Role::attention && layout.kind == LayoutKind::softmax;
    return domain;
  }

  // Partial attention that becomes whole has attended to all keys.
  void check_completeness() {
    std::set<std::pair<LayoutId, std::int32_t>> checked;
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const Node& node = plan_.nodes[i];
      if (queue_of(node.kind) != Queue::comm || writes_state(node.kind)) continue;
      const Value& value = plan_.at(node.inputs[0]);
      const Layout& layout = plan_.layout_of(node.inputs[0]);
      const bool gathers_up = layout.kind == LayoutKind::softmax &&
                              plan_.layout_of(node.outputs[0]).kind == LayoutKind::whole;
      if (!gathers_up || !checked.emplace(value.layout, value.microbatch).second) continue;
      for (const std::string& text : problems_of(layout, shape_of(plan_, value).domain)) {
        problem(fmt::format("{}: {}", name_of(plan_, static_cast<NodeId>(i)), text));
      }
    }
  }

  // Compute nodes are where their outputs are, communication nodes where their inputs and outputs
  // are, and all find there what they need. Nodes of equal kind and layouts are alike.
  void check_locality() {
    struct Findings {
      std::size_t example = 0;  // Node.
      std::vector<std::string> problems;
      bool stands_right = true;
    };
    std::unordered_multimap<std::size_t, Findings> known;  // By hash.
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const auto id = static_cast<NodeId>(i);
      const Node& node = plan_.nodes[i];
      const std::size_t hash = hash_of_layouts(node);
      const auto [first, last] = known.equal_range(hash);
      auto place = std::find_if(first, last, [&](const auto& entry) {
        return same_layouts(plan_.nodes[entry.second.example], node);
      });
      if (place == last) {
        place = known.emplace(hash, Findings{.example = i,
                                             .problems = locality_problems(plan_, node),
                                             .stands_right = stands_right(node)});
      }
      const Findings& findings = place->second;
      const bool on_the_same = node.devices == plan_.nodes[findings.example].devices;
      if (on_the_same ? !findings.stands_right : !stands_right(node)) {
        problem(
            fmt::format("{}: stands on other devices than its layouts say", name_of(plan_, id)));
      }
      for (const std::string& text : findings.problems)
        problem(fmt::format("{}: {}", name_of(plan_, id), text));
    }
  }

  [[nodiscard]] bool same_layouts(const Node& a, const Node& b) const {
    const auto same = [&](ValueId x, ValueId y) {
      return plan_.at(x).layout == plan_.at(y).layout && plan_.at(x).role == plan_.at(y).role;
    };
    return a.kind == b.kind && std::ranges::equal(a.inputs, b.inputs, same) &&
           std::ranges::equal(a.outputs, b.outputs, same);
  }

  [[nodiscard]] std::size_t hash_of_layouts(const Node& node) const {
    std::size_t seed = static_cast<std::size_t>(node.kind);
    for (const auto* ids : {&node.inputs, &node.outputs}) {
      for (const ValueId id : *ids)
        seed ^= index_of(plan_.at(id).layout) + 0x9E3779B97F4A7C15ULL + (seed << 6) + (seed >> 2);
    }
    return seed;
  }

  // On the devices of its outputs and, where it communicates, of its inputs.
  [[nodiscard]] bool stands_right(const Node& node) {
    members_.clear();
    const auto add_devices = [&](const std::vector<ValueId>& values) {
      for (const ValueId value : values) {
        for (const Piece& piece : plan_.layout_of(value).pieces) members_.push_back(piece.device);
      }
    };
    add_devices(node.outputs);
    if (queue_of(node.kind) == Queue::comm) add_devices(node.inputs);
    std::ranges::sort(members_);
    members_.erase(std::unique(members_.begin(), members_.end()), members_.end());
    return members_ == plan_.at(node.devices);
  }

  // Each node once in the right queue of each of its devices, and nowhere else.
  void check_queues() {
    constexpr std::uint32_t kNever = 0xFFFFFFFFU;
    std::vector<std::uint32_t> listed(plan_.nodes.size(), 0);
    std::vector<std::uint32_t> last_device(plan_.nodes.size(), kNever);
    for (std::size_t device = 0; device < plan_.devices.size(); ++device) {
      for (const Queue queue : {Queue::compute, Queue::comm}) {
        const auto& nodes =
            queue == Queue::compute ? plan_.devices[device].compute : plan_.devices[device].comm;
        for (const NodeId id : nodes) {
          if (!in_table(id, plan_.nodes)) {
            problem(fmt::format("{} queue of device {}: node {} is missing", to_string(queue),
                                device, index_of(id)));
            continue;
          }
          const Node& node = plan_.at(id);
          if (queue_of(node.kind) != queue) {
            problem(fmt::format("{}: found in the {} queue of device {}", name_of(plan_, id),
                                to_string(queue), device));
          }
          if (!std::ranges::binary_search(plan_.at(node.devices), static_cast<DeviceId>(device))) {
            problem(fmt::format("{}: queued on device {}, which is no member", name_of(plan_, id),
                                device));
          } else if (last_device[index_of(id)] == device) {
            problem(fmt::format("{}: queued twice on device {}", name_of(plan_, id), device));
          } else {
            ++listed[index_of(id)];
          }
          last_device[index_of(id)] = static_cast<std::uint32_t>(device);
        }
      }
    }
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const std::size_t members = plan_.at(plan_.nodes[i].devices).size();
      if (listed[i] < members) {
        problem(fmt::format("{}: unmatched, queued on {} of its {} devices",
                            name_of(plan_, static_cast<NodeId>(i)), listed[i], members));
      }
    }
  }

  // Kahn's algorithm over data edges and the successions in all queues; the smallest ready node
  // goes first.
  void check_order() {
    const std::size_t n = plan_.nodes.size();
    std::vector<std::uint32_t> first(n + 1, 0);
    const auto each_edge = [&](auto&& visit) {
      for (std::size_t i = 0; i < n; ++i) {
        for (const ValueId input : plan_.nodes[i].inputs) {
          const NodeId producer = producers[index_of(input)];
          if (index_of(producer) < n) visit(index_of(producer), i);
        }
      }
      for (const PlanDevice& device : plan_.devices) {
        for (const auto* queue : {&device.compute, &device.comm}) {
          for (std::size_t i = 0; i + 1 < queue->size(); ++i)
            visit(index_of((*queue)[i]), index_of((*queue)[i + 1]));
        }
      }
    };
    std::vector<std::uint32_t> waiting(n, 0);
    each_edge([&](std::size_t from, std::size_t to) {
      ++first[from + 1];
      ++waiting[to];
    });
    for (std::size_t i = 0; i < n; ++i) first[i + 1] += first[i];
    std::vector<std::uint32_t> targets(first[n]);
    std::vector<std::uint32_t> filled(first.begin(), first.end() - 1);
    each_edge([&](std::size_t from, std::size_t to) {
      targets[filled[from]++] = static_cast<std::uint32_t>(to);
    });

    std::priority_queue<std::uint32_t, std::vector<std::uint32_t>, std::greater<>> ready;
    for (std::size_t i = 0; i < n; ++i) {
      if (waiting[i] == 0) ready.push(static_cast<std::uint32_t>(i));
    }
    order.reserve(n);
    while (!ready.empty()) {
      const std::uint32_t node = ready.top();
      ready.pop();
      order.push_back(static_cast<NodeId>(node));
      for (std::uint32_t edge = first[node]; edge < first[node + 1]; ++edge) {
        if (--waiting[targets[edge]] == 0) ready.push(targets[edge]);
      }
    }
    if (order.size() < n) report_cycle(waiting, first, targets);
  }

  // Every node that is left waits for one that is left too, so going back from any of them leads
  // into a circle.
  void report_cycle(const std::vector<std::uint32_t>& waiting,
                    const std::vector<std::uint32_t>& first,
                    const std::vector<std::uint32_t>& targets) {
    const std::size_t n = plan_.nodes.size();
    std::vector<std::uint32_t> predecessor(n, 0);
    std::size_t start = n;
    for (std::size_t from = 0; from < n; ++from) {
      if (waiting[from] == 0) continue;
      for (std::uint32_t edge = first[from]; edge < first[from + 1]; ++edge) {
        if (waiting[targets[edge]] != 0)
          predecessor[targets[edge]] = static_cast<std::uint32_t>(from);
      }
      start = from;
    }
    for (std::size_t step = 0; step < n; ++step)
      start = predecessor[start];  // Surely on a cycle by now.
    std::vector<std::size_t> circle;
    bool joint = false;
    std::size_t node = start;
    do {
      circle.push_back(node);
      joint = joint || queue_of(plan_.nodes[node].kind) == Queue::comm;
      node = predecessor[node];
    } while (node != start);
    std::ranges::reverse(circle);
    std::rotate(circle.begin(), std::ranges::min_element(circle), circle.end());
    std::vector<std::string> names;
    for (std::size_t i = 0; i < std::min(circle.size(), kMostNamedInCycle); ++i)
      names.push_back(name_of(plan_, static_cast<NodeId>(circle[i])));
    if (circle.size() > names.size())
      names.push_back(fmt::format("{} more", circle.size() - names.size()));
    problem(fmt::format("{}: {} wait for each other in a circle", joint ? "deadlock" : "cycle",
                        fmt::join(names, ", ")));
  }

  void check_dataflow() {
    for (std::string& text : dataflow_problems(plan_, producers, order)) problem(std::move(text));
  }

  void check_memory() {
    memory = memory_by_device(plan_, plan_.limits, layer_repeats_);
    for (std::size_t i = 0; i < plan_.devices.size(); ++i) {
      const auto capacity = plan_.devices[i].memory_bytes;
      if (!capacity || memory[i].total() <= *capacity) continue;
      problem(fmt::format(
          "memory of device {} ({}): needs {} bytes (weights {}, kv_cache {}, activations {}, "
          "attention {}, "
          "comm_buffers {}), allowed {}",
          i, plan_.devices[i].name, memory[i].total(), memory[i].weights, memory[i].kv_cache,
          memory[i].activations, memory[i].attention, memory[i].comm_buffers, *capacity));
    }
  }

  const Plan& plan_;
  std::span<const std::int64_t> layer_repeats_;
  std::vector<Role> input_roles_;  // Of the node at hand.
  std::vector<Role> output_roles_;
  std::vector<DeviceId> members_;
};

}  // namespace

tl::expected<ValidPlan, std::vector<std::string>> validate(
    Plan plan, std::span<const std::int64_t> layer_repeats) {
  Validator validator(plan, layer_repeats);
  if (!validator.run()) return tl::unexpected(std::move(validator.problems));
  return ValidPlan({.plan = std::move(plan),
                    .order = std::move(validator.order),
                    .producers = std::move(validator.producers),
                    .memory = std::move(validator.memory)});
}

}  // namespace weir
