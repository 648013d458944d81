#include "sim/step_costs.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <span>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "layout/redistribute.h"
#include "plan/equal_lengths.h"
#include "plan/locality.h"
#include "plan/memory.h"
#include "plan/placement.h"
#include "plan/transfers.h"
#include "plan/work.h"
#include "sim/activities.h"
#include "sim/layer_twins.h"
#include "sim/task_pieces.h"

namespace weir {
namespace {

// plan/transfers.h counts what really crosses.
bool is_counted_by_transfer(OpKind kind) {
  return kind == OpKind::all_to_all || kind == OpKind::gather;
}

// Messages are their own kind of flow; everything else is a library's collective.
bool is_point_to_point(OpKind kind) { return kind == OpKind::copy || kind == OpKind::kv_copy; }

StreamKind stream_kind_of(OpKind kind, Activation function) {
  using enum OpKind;
  if (kind == attn_norm || kind == ffn_norm || kind == final_norm) return StreamKind::norm;
  if (kind == rope) return StreamKind::rotate;
  if (kind == activation) {
    switch (function) {
      case Activation::silu:
        return StreamKind::silu;
      case Activation::gelu_erf:
        return StreamKind::gelu_erf;
      case Activation::gelu_tanh:
        return StreamKind::gelu_tanh;
    }
  }
  if (kind == kv_append) return StreamKind::append;
  return kind == add ? StreamKind::add : StreamKind::copy;
}

class CostBuilder {
 public:
  CostBuilder(const ValidPlan& plan, const Machine& machine, const StepLengths& lengths,
              const CollectiveOptions& options, std::span<const std::int64_t> layer_repeats)
      : plan_(plan.plan()),
        machine_(machine),
        lengths_(lengths),
        options_(options),
        pieces_(plan_) {
    for (const DeviceMemory& memory : plan.memory()) streamed_.push_back(memory.weights);
    layers_.resize(streamed_.size(), 0);
    for (const Node& node : plan_.nodes) {
      if (!writes_state(node.kind)) continue;
      const std::int64_t count =
          layer_repeats.empty() ? 1 : layer_repeats[static_cast<std::size_t>(node.layer)];
      for (const DeviceId device : plan_.at(node.devices)) layers_[index_of(device)] += count;
      for (const ValueId output : node.outputs) {
        const std::vector<std::int64_t>& cache = value_bytes(output);
        for (std::size_t d = 0; d < streamed_.size(); ++d) streamed_[d] += count * cache[d];
      }
    }
    std::map<std::size_t, std::int64_t> devices;  // By node of the cluster.
    for (std::size_t d = 0; d < streamed_.size(); ++d)
      ++devices[machine_node_of(static_cast<DeviceId>(d))];
    std::map<std::pair<std::size_t, std::size_t>, std::int64_t> through_l3;  // By L3 of a node.
    for (std::size_t d = 0; d < streamed_.size(); ++d)
      through_l3[l3_of(static_cast<DeviceId>(d))] += streamed_[d];
    for (std::size_t d = 0; d < streamed_.size(); ++d) {
      const auto id = static_cast<DeviceId>(d);
      residence_.push_back(machine_.model_of(id).residence_of(
          streamed_[d], devices[machine_node_of(id)], through_l3.at(l3_of(id)) / sharing_l3(id)));
    }
  }

  Result<NodeClass> build(NodeId id) {
    const Node& node = plan_.at(id);
    NodeClass result;
    result.example = id;
    if (queue_of(node.kind) == Queue::compute) {
      count_together(node);
      add_tasks(node, result);
      return result;
    }
    result.tasks.resize(plan_.at(node.devices).size());
    result.local.resize(result.tasks.size());
    auto status =
        is_point_to_point(node.kind) ? add_messages(id, result) : add_collectives(id, result);
    if (!status) return tl::unexpected(status.error());
    divide(result);
    finish_alone(result);
    return result;
  }

 private:
  const std::vector<std::int64_t>& value_bytes(ValueId id) {
    const Value& value = plan_.at(id);
    const auto [place, added] =
        value_bytes_.try_emplace({value.layout, value.role, value.microbatch});
    if (added) place->second = value_bytes_by_device(plan_, id, lengths_);
    return place->second;
  }

  [[nodiscard]] std::size_t machine_node_of(DeviceId device) const {
    return machine_.topology().cluster().device(device).node;
  }
  // Devices that share this one's L3.
  [[nodiscard]] std::int64_t sharing_l3(DeviceId device) const {
    return machine_.cluster().type_of(device).l3_devices.value_or(1);
  }
  [[nodiscard]] std::pair<std::size_t, std::size_t> l3_of(DeviceId device) const {
    const Device& on = machine_.cluster().device(device);
    return {on.node, on.place / static_cast<std::size_t>(sharing_l3(device))};
  }
  // Devices on this one's machine that do the node at hand.
  [[nodiscard]] std::int64_t together(DeviceId device) const {
    const auto found = together_.find(machine_node_of(device));
    return found == together_.end() ? 1 : found->second;
  }

  [[nodiscard]] const Residence& residence_of(DeviceId device) const {
    return residence_[index_of(device)];
  }

  // Only CPUs whose kernels have been measured tell whether memory is shared.
  void count_together(const Node& node) {
    together_.clear();
    for (const DeviceId device : plan_.at(node.devices)) {
      if (!machine_.cluster().type_of(device).kernels) continue;
      // Who has no tokens does not disturb.
      const Work work = work_of(plan_, node, device, lengths_);
      if (work.flops + work.written_bytes + work.kv_bytes > 0) ++together_[machine_node_of(device)];
    }
  }

  void add_tasks(const Node& node, NodeClass& result) {
    const std::vector<DeviceId>& members = plan_.at(node.devices);
    result.tasks.reserve(members.size());
    pieces_.begin(node);
    for (std::size_t i = 0; i < members.size(); ++i) {
      const bool as_before =
          pieces_.next_is_alike(members[i]) && i > 0 && alike(members[i - 1], members[i]);
      result.tasks.push_back(as_before ? result.tasks.back() : compute_cost(node, members[i]));
    }
  }

  // Whether equal work takes two devices as long.
  [[nodiscard]] bool alike(DeviceId a, DeviceId b) const {
    return &machine_.model_of(a) == &machine_.model_of(b) && residence_of(a) == residence_of(b) &&
           together(a) == together(b);
  }

  TaskCost compute_cost(const Node& node, DeviceId device) {
    const Work work = work_of(plan_, node, device, lengths_);
    const DeviceModel& model = machine_.model_of(device);
    KernelCost cost;
    switch (class_of(node.kind)) {
      case OpClass::linear:
        cost = linear_cost(node, device, model);
        break;
      case OpClass::attention:
        cost = node.kind == OpKind::attention ? attention_cost(node, device, model)
                                              : unfused_cost(node.kind, work, device, model);
        break;
      case OpClass::elementwise:
        cost = stream_cost(node.kind, work, device, model);
        break;
      case OpClass::communication:
        break;
    }
    return {.time = to_sim_time(cost.time),
            .joules = cost.joules,
            .flops = work.flops,
            .bytes = work.bytes()};
  }

  // Devices mostly do the same products, and the model tries many ways to do one.
  [[nodiscard]] KernelCost gemm_cost(const GemmShape& shape, DeviceId device,
                                     const DeviceModel& model) {
    const Residence& weights = residence_of(device);
    for (const KnownGemm& known : known_gemms_) {
      if (known.shape == shape && known.model == &model && known.weights == weights)
        return known.cost;
    }
    if (known_gemms_.size() == kMostKnown) known_gemms_.clear();
    const KernelCost cost = model.gemm(shape, weights);
    known_gemms_.push_back({.shape = shape, .model = &model, .weights = weights, .cost = cost});
    return cost;
  }

  [[nodiscard]] KernelCost stream_cost(OpKind kind, const Work& work, DeviceId device,
                                       const DeviceModel& model) const {
    if (work.bytes() == 0) return {};
    return model.stream({.bytes = work.bytes(),
                         .flops = work.flops,
                         .dtype = plan_.activation_dtype,
                         .kind = stream_kind_of(kind, plan_.model.activation),
                         .together = together(device)},
                        residence_of(device));
  }

  // Half a tile of attention, whose scores pass through memory, or the merging of two tiles.
  [[nodiscard]] KernelCost unfused_cost(OpKind kind, const Work& work, DeviceId device,
                                        const DeviceModel& model) {
    if (work.bytes() == 0) return {};
    // As a product with the same arithmetic and operands: rows of the width of a tile.
    constexpr std::int64_t kTile = 128;
    const std::int64_t weight_size = size_in_bytes(plan_.kv_dtype);
    const std::int64_t keys = std::max<std::int64_t>(1, work.kv_bytes / weight_size / kTile);
    KernelCost cost = stream_cost(kind, work, device, model);
    if (work.kv_bytes == 0) return cost;
    const std::int64_t rows = std::max<std::int64_t>(1, work.flops / 2 / keys / kTile);
    const KernelCost product = gemm_cost({.rows = rows,
                                          .cols = keys,
                                          .depth = kTile,
                                          .weight = plan_.kv_dtype,
                                          .activation = plan_.activation_dtype,
                                          .together = together(device)},
                                         device, model);
    return product.time > cost.time ? product : cost;
  }

  // Matrices that take the same rows of the same input are one product (q, k and v; gate and up).
  KernelCost linear_cost(const Node& node, DeviceId device, const DeviceModel& model) {
    std::map<std::tuple<std::int64_t, std::int64_t>, std::int64_t> cols;  // By rows and depth.
    for (std::size_t output = 0; output < node.outputs.size(); ++output) {
      const Value& value = plan_.at(node.outputs[output]);
      const TensorShape shape = shape_of(plan_, value);
      for (const Piece& piece : plan_.layout_of(node.outputs[output]).pieces) {
        if (piece.device != device) continue;
        std::int64_t rows = 0;
        each_of_equal_lengths(
            requests_of(piece.box, plan_.batch_size()), lengths_,
            [&](std::int64_t request, std::int64_t count, const RequestLengths& lengths) {
              rows += count * resolve(piece.box, shape, request, lengths).token.size();
            });
        for (const WeightSlice& slice : weight_slices(plan_, node, output, piece)) {
          if (slice.rows() > 1) cols[{rows, slice.cols()}] += slice.rows();
        }
      }
    }
    KernelCost sum;
    for (const auto& [key, width] : cols) {
      const auto& [rows, depth] = key;
      const KernelCost part = gemm_cost({.rows = rows,
                                         .cols = width,
                                         .depth = depth,
                                         .weight = plan_.model.weight_dtype,
                                         .activation = plan_.activation_dtype,
                                         .together = together(device)},
                                        device, model);
      sum.time += part.time;
      sum.joules += part.joules;
    }
    return sum;
  }

  KernelCost attention_cost(const Node& node, DeviceId device, const DeviceModel& model) const {
    const Value& value = plan_.at(node.outputs[0]);
    const Layout& layout = plan_.layout_of(node.outputs[0]);
    const TensorShape shape = shape_of(plan_, value);
    AttentionShape launch{.tiles = {},
                          .head_dim = plan_.model.head_dim,
                          .value_dim = plan_.model.head_dim,
                          .window = plan_.model.sliding_window.value_or(0),
                          .kv = plan_.kv_dtype,
                          .activation = plan_.activation_dtype,
                          .together = together(device)};
    // A CPU does the key ranges of one box one after the other and merges them; a GPU's kernel
    // keeps what it has so far in registers.
    const bool one_by_one = machine_.cluster().type_of(device).kernels.has_value();
    std::vector<const Box*> seen;
    std::int64_t merged = 0;  // Elements.
    for (const Piece& piece : layout.pieces) {
      if (piece.device != device) continue;
      const bool merges = one_by_one && std::ranges::any_of(seen, [&](const Box* box) {
                            return *box == piece.box;
                          });
      if (one_by_one && !merges) seen.push_back(&piece.box);
      const Interval requests = requests_of(piece.box, plan_.batch_size());
      for (std::int64_t r = requests.begin; r < requests.end; ++r) {
        const RequestLengths lengths = lengths_[static_cast<std::size_t>(r)];
        const ResolvedBox box = resolve(piece.box, shape, r, lengths);
        if (box.elements() == 0) continue;
        const Interval keys = layout.kind == LayoutKind::softmax
                                  ? resolve(piece.over.token, lengths.kv_len)
                                  : Interval{.begin = 0, .end = lengths.kv_len};
        launch.value_dim = box.dim.size();
        launch.tiles.push_back({.q_len = box.token.size(),
                                .past_len = lengths.kv_len - lengths.q_len + box.token.begin,
                                .key_begin = keys.begin,
                                .key_end = keys.end,
                                .q_heads = box.head.size(),
                                .kv_heads = kv_heads_of(plan_.model, box.head).size()});
        merged += merges ? box.elements() : 0;
      }
    }
    KernelCost cost = model.attention(launch, residence_of(device));
    if (merged == 0) return cost;
    // Two are read and one is written.
    const KernelCost merging =
        model.stream({.bytes = 3 * merged * size_in_bytes(plan_.activation_dtype),
                      .kind = StreamKind::add,
                      .together = together(device)},
                     residence_of(device));
    cost.time += merging.time;
    cost.joules += merging.joules;
    return cost;
  }

  Status add_collectives(NodeId id, NodeClass& result) {
    const Node& node = plan_.at(id);
    for (CollectiveShape& shape : collectives_of(plan_, id, lengths_)) {
      const auto cost = cost_of(shape);
      if (!cost) return tl::unexpected(cost.error());
      Flow flow{.latency = to_sim_time(cost->latency),
                .transfer = to_sim_time(cost->transfer),
                .uses = cost->uses,
                .members = {}};
      for (const DeviceId member : shape.members) flow.members.push_back(place_of(node, member));
      if (!is_counted_by_transfer(node.kind)) deliver(shape, flow.members, result);
      if (flow.latency.ns + flow.transfer.ns > 0) result.flows.push_back(std::move(flow));
    }
    if (!is_counted_by_transfer(node.kind)) return {};
    for (const Transfer& transfer : transfers_of(plan_, id, lengths_)) {
      if (transfer.from == transfer.to) continue;
      result.tasks[place_of(node, transfer.to)].bytes += bytes_of(plan_, node, transfer);
    }
    return {};
  }

  Result<CommCost> cost_of(const CollectiveShape& shape) {
    for (const auto& [known, cost] : known_collectives_) {
      if (known == shape) return cost;
    }
    auto cost = collective_cost(machine_.topology(), shape, options_);
    if (!cost) return cost;
    if (known_collectives_.size() == kMostKnown) known_collectives_.clear();
    known_collectives_.emplace_back(shape, *cost);
    return cost;
  }

  // Shares out what plan/transfers.h counts for a group among those who receive it.
  void deliver(const CollectiveShape& shape, const std::vector<std::uint32_t>& places,
               NodeClass& result) const {
    const auto n = static_cast<std::int64_t>(shape.members.size());
    const std::int64_t total = (shape.kind == OpKind::all_reduce ? 2 : 1) * (n - 1) * shape.bytes;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto member = static_cast<std::size_t>(i);
      const bool is_root = shape.members[member] == shape.root;
      std::int64_t received = total / n + (i < total % n ? 1 : 0);
      if (shape.kind == OpKind::broadcast) received = is_root ? 0 : shape.bytes;
      if (shape.kind == OpKind::reduce) received = is_root ? total : 0;
      result.tasks[places[member]].bytes += received;
    }
  }

  // All that one device sends another is one message; what stays on a device is copied there.
  Status add_messages(NodeId id, NodeClass& result) const {
    const Node& node = plan_.at(id);
    std::map<std::pair<DeviceId, DeviceId>, std::int64_t> bytes;
    for (const Transfer& transfer : transfers_of(plan_, id, lengths_))
      bytes[{transfer.from, transfer.to}] += bytes_of(plan_, node, transfer);
    for (const auto& [pair, amount] : bytes) {
      const auto [from, to] = pair;
      const std::uint32_t receiver = place_of(node, to);
      if (from == to) {
        const KernelCost cost =
            machine_.model_of(to).stream({.bytes = 2 * amount}, residence_of(to));
        result.local[receiver] = std::max(result.local[receiver], to_sim_time(cost.time));
        result.tasks[receiver].joules += cost.joules;
        continue;
      }
      auto cost = message_cost(machine_.topology(), from, to, amount);
      if (!cost) return tl::unexpected(cost.error());
      result.tasks[receiver].bytes += amount;
      if (moves_cache(node) && machine_.cluster().type_of(from).kernels)
        carry_cache(from, to, amount, *cost);
      result.flows.push_back({.latency = to_sim_time(cost->latency),
                              .transfer = to_sim_time(cost->transfer),
                              .uses = cost->uses,
                              .members = {place_of(node, from), receiver}});
    }
    return {};
  }

  [[nodiscard]] bool moves_cache(const Node& node) const {
    return node.kind == OpKind::kv_copy || is_cache(plan_.at(node.inputs.front()).role);
  }

  // A CPU's receiver reads the sender's memory, but keys and values first come out of the blocks of
  // the sender's cache into a buffer. Every layer uses the same buffers: they are where a layer's
  // weights and cache have left them. Known where the kernels have been measured; of the messages
  // that were measured within a node, those larger than L2 land in memory that no cache holds.
  void carry_cache(DeviceId from, DeviceId to, std::int64_t amount, CommCost& cost) const {
    const auto passing = [&](DeviceId device, std::int64_t bytes, const Residence& through) {
      return machine_.model_of(device).stream({.bytes = bytes, .cold = true}, through).time;
    };
    cost.latency += passing(from, amount, residence_of(from)) +
                    passing(from, amount, level_of_buffers(from, amount));
    const MemoryLevel& landing = level_of_buffers(to, amount);
    const std::vector<MemoryLevel>& levels = machine_.model_of(to).levels();
    if (&landing == &levels.back()) {
      cost.latency += std::max(Seconds{}, passing(to, 2 * amount, landing) - cost.transfer);
      return;
    }
    const std::int64_t near = levels.front().capacity / 2;
    if (amount <= near || machine_node_of(from) != machine_node_of(to)) return;
    const auto known = message_cost(machine_.topology(), from, to, near);
    const double times = static_cast<double>(amount) / static_cast<double>(near);
    const double share = std::min(1.0, times * known->transfer.value / cost.transfer.value);
    cost.transfer = share * cost.transfer;
    for (LinkUse& use : cost.uses) use.bytes *= share;
  }

  // Where a message's buffers are after a layer of the step.
  [[nodiscard]] const MemoryLevel& level_of_buffers(DeviceId device, std::int64_t amount) const {
    const std::size_t d = index_of(device);
    const std::int64_t passed = streamed_[d] / std::max<std::int64_t>(1, layers_[d]) + 2 * amount;
    const std::vector<MemoryLevel>& levels = machine_.model_of(device).levels();
    const auto holds = [&](const MemoryLevel& level) { return passed <= level.capacity; };
    const auto found = std::ranges::find_if(levels, holds);
    return found == levels.end() ? levels.back() : *found;
  }

  [[nodiscard]] std::uint32_t place_of(const Node& node, DeviceId device) const {
    const std::vector<DeviceId>& group = plan_.at(node.devices);
    return static_cast<std::uint32_t>(std::ranges::lower_bound(group, device) - group.begin());
  }

  // Members that flows join are one part.
  static void divide(NodeClass& result) {
    std::vector<std::uint32_t>& part = result.part;
    part.resize(result.tasks.size());
    std::iota(part.begin(), part.end(), 0U);
    const auto root_of = [&](std::uint32_t place) {
      while (part[place] != place) place = part[place] = part[part[place]];
      return place;
    };
    for (const Flow& flow : result.flows) {
      for (const std::uint32_t member : flow.members) {
        const std::uint32_t a = root_of(flow.members[0]);
        const std::uint32_t b = root_of(member);
        part[std::max(a, b)] = std::min(a, b);
      }
    }
    // A part's root is its first member, so parts can be numbered in one pass.
    std::vector<std::uint32_t> number(part.size());
    for (std::uint32_t place = 0; place < part.size(); ++place) {
      const std::uint32_t root = root_of(place);
      if (root == place) {
        number[place] = static_cast<std::uint32_t>(result.part_sizes.size());
        result.part_sizes.push_back(0);
      }
      ++result.part_sizes[number[root]];
    }
    for (std::uint32_t place = 0; place < part.size(); ++place) part[place] = root_of(place);
    for (std::uint32_t& root : part) root = number[root];
  }

  // The node's own flows may meet on its members' ports: played through once, alone.
  void finish_alone(NodeClass& result) const {
    for (std::size_t place = 0; place < result.tasks.size(); ++place)
      result.tasks[place].time = result.local[place];
    const Topology& topology = machine_.topology();
    ActivityGraph flows;
    for (const Flow& flow : result.flows) {
      flows.add(flows.add_work(flow.latency, flow.transfer, flow.uses), {});
      result.uses_shared_links =
          result.uses_shared_links || std::ranges::any_of(flow.uses, [&](const LinkUse& use) {
            return topology.is_shared(use.link);
          });
    }
    const ActivityTimes times = result.flows.size() == 1
                                    ? run_in_order(flows)
                                    : run_by_events(flows, topology.capacities());
    for (std::size_t f = 0; f < result.flows.size(); ++f) {
      for (const std::uint32_t place : result.flows[f].members)
        result.tasks[place].time = std::max(result.tasks[place].time, times.ends[f]);
    }
  }

  const Plan& plan_;
  const Machine& machine_;
  const StepLengths& lengths_;
  const CollectiveOptions& options_;
  std::vector<std::int64_t> streamed_;            // Bytes of a step, by device,
  std::vector<std::int64_t> layers_;              // in so many layers,
  std::vector<Residence> residence_;              // from there.
  TaskPieces pieces_;                             // Of the node at hand.
  std::map<std::size_t, std::int64_t> together_;  // By node of the cluster, of the node at hand.
  struct KnownGemm {
    GemmShape shape;
    const DeviceModel* model = nullptr;
    Residence weights;
    KernelCost cost;
  };
  static constexpr std::size_t kMostKnown = 64;  // Looked through in turn.
  std::vector<KnownGemm> known_gemms_;
  std::vector<std::pair<CollectiveShape, CommCost>> known_collectives_;
  std::map<std::tuple<LayoutId, Role, std::int32_t>, std::vector<std::int64_t>> value_bytes_;
};

}  // namespace

SimTime to_sim_time(Seconds cost) {
  // A millionth of a nanosecond over is the rounding of the sum, not time.
  const double ns = std::ceil(cost.value * 1e9 - 1e-6);
  if (ns >= static_cast<double>(kLongestStep.ns)) return kLongestStep;
  return {ns > 0 ? static_cast<std::int64_t>(ns) : 0};
}

std::vector<CollectiveShape> collectives_of(const Plan& plan, NodeId id,
                                            const StepLengths& lengths) {
  const Node& node = plan.at(id);
  std::vector<CollectiveShape> shapes;
  const RedistributionPlan movement =
      classify(plan.layout_of(node.inputs[0]), plan.layout_of(node.outputs[0]));
  for (const CollectiveGroup& group : movement.groups) {
    shapes.push_back({.kind = node.kind,
                      .members = group.members,
                      .root = group.root,
                      .bytes = bytes_of_box(plan, node.inputs[0], group.box, lengths)});
  }
  return shapes;
}

Result<StepCosts> StepCosts::make(const ValidPlan& plan, const Machine& machine,
                                  const StepLengths& lengths, const CollectiveOptions& options,
                                  std::span<const std::int64_t> layer_repeats) {
  StepCosts costs;
  CostBuilder builder(plan, machine, lengths, options, layer_repeats);
  std::unordered_multimap<std::size_t, std::uint32_t> known;
  constexpr std::size_t kOfOneLayer = 32;  // Distinct ops that most plans have.
  known.reserve(kOfOneLayer);
  costs.classes_.reserve(kOfOneLayer);
  costs.class_of_.reserve(plan->nodes.size());
  for (std::size_t n = 0; n < plan->nodes.size(); ++n) {
    const auto id = static_cast<NodeId>(n);
    const std::size_t hash = hash_without_layer(plan.plan(), plan->nodes[n]);
    const auto [first, last] = known.equal_range(hash);
    const auto found = std::find_if(first, last, [&](const auto& entry) {
      return differ_in_layer_only(plan.plan(), plan->nodes[n],
                                  plan->at(costs.classes_[entry.second].example));
    });
    if (found != last) {
      costs.class_of_.push_back(found->second);
      continue;
    }
    auto built = builder.build(id);
    if (!built) return tl::unexpected(built.error());
    for (const TaskCost& task : built->tasks) built->longest = std::max(built->longest, task.time);
    const auto next = static_cast<std::uint32_t>(costs.classes_.size());
    costs.classes_.push_back(*std::move(built));
    costs.class_of_.push_back(next);
    known.emplace(hash, next);
  }
  if (auto status = costs.check_length(plan.plan(), machine, layer_repeats); !status)
    return tl::unexpected(status.error());
  return costs;
}

// By all nodes one after the other, longer than which no step takes.
Status StepCosts::check_length(const Plan& plan, const Machine& machine,
                               std::span<const std::int64_t> layer_repeats) const {
  double total = 0;  // Nanoseconds.
  for (std::size_t n = 0; n < class_of_.size(); ++n) {
    const Node& node = plan.nodes[n];
    const Role role = plan.at(node.outputs.front()).role;
    const bool of_logits = role == Role::final_normed || role == Role::logits;
    const bool repeats = node.layer >= 0 && !of_logits && !layer_repeats.empty();
    total += static_cast<double>(classes_[class_of_[n]].longest.ns) *
             static_cast<double>(repeats ? layer_repeats[static_cast<std::size_t>(node.layer)] : 1);
  }
  if (total < static_cast<double>(kLongestStep.ns)) return {};
  return invalid_input("cluster " + machine.cluster().name +
                       ": found rates at which a step may take 13 days, allowed higher ones");
}

}  // namespace weir
