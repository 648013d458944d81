#include "sim/collectives.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "base/check.h"
#include "plan/transfers.h"
#include "sim/calibration.h"
#include "sim/measured_exchange.h"

namespace weir {
namespace {

constexpr std::array kAlgorithmNames = {
    std::pair{CollectiveAlgorithm::none, std::string_view("none")},
    std::pair{CollectiveAlgorithm::ring, std::string_view("ring")},
    std::pair{CollectiveAlgorithm::tree, std::string_view("tree")},
    std::pair{CollectiveAlgorithm::hierarchical, std::string_view("hierarchical")},
    std::pair{CollectiveAlgorithm::direct, std::string_view("direct")},
    std::pair{CollectiveAlgorithm::in_switch, std::string_view("switch")},
    std::pair{CollectiveAlgorithm::one_shot, std::string_view("one_shot")},
    std::pair{CollectiveAlgorithm::two_shot, std::string_view("two_shot")},
};

// What a set of messages puts on the links, and the longest latency among them.
class Load {
 public:
  explicit Load(const Topology& topology) : topology_(topology) {}

  Status add(DeviceId from, DeviceId to, double bytes) {
    if (from == to) return {};
    const auto route = topology_.route(from, to);
    if (!route) return tl::unexpected(route.error());
    for (const LinkId link : route->links) on_links_.push_back({.link = link, .bytes = bytes});
    latency_ = std::max(latency_, route->latency.value);
    return {};
  }

  // Until the link that carries most has carried it.
  [[nodiscard]] double seconds() const {
    double longest = 0;
    for (const auto& [link, bytes] : uses())
      longest = std::max(longest, bytes / topology_.capacity(link).value);
    return longest;
  }
  [[nodiscard]] double latency() const { return latency_; }
  // By link.
  [[nodiscard]] std::vector<LinkUse> uses() const {
    std::vector<LinkUse> uses = on_links_;
    std::ranges::stable_sort(uses, {}, &LinkUse::link);
    std::size_t distinct = 0;
    for (std::size_t i = 0; i < uses.size(); ++i) {
      if (distinct > 0 && uses[distinct - 1].link == uses[i].link) {
        uses[distinct - 1].bytes += uses[i].bytes;
      } else {
        uses[distinct++] = uses[i];
      }
    }
    uses.resize(distinct);
    return uses;
  }

 private:
  const Topology& topology_;
  std::vector<LinkUse> on_links_;  // Message by message.
  double latency_ = 0;
};

// A measured time as latency and transfer. Of its links it uses what they can carry meanwhile, so
// that alone it is not held up.
struct MeasuredCost {
  double latency = 0;
  double transfer = 0;
  double wire_bytes = 1;  // As CommSteps.
};
MeasuredCost split(Seconds measured, double latency, double seconds_of_links) {
  MeasuredCost cost{.latency = std::min(latency, measured.value)};
  cost.transfer = measured.value - cost.latency;
  cost.wire_bytes = std::min(1.0, cost.transfer / seconds_of_links);
  return cost;
}

double log2_steps(std::size_t count) {
  return count <= 1 ? 0 : static_cast<double>(std::bit_width(count - 1));
}

class Search {
 public:
  Search(const Topology& topology, const CollectiveShape& shape, const CollectiveOptions& options)
      : topology_(topology),
        shape_(shape),
        options_(options),
        by_node_(members_by_node(topology, shape.members)) {
    for (const auto& members : by_node_) rails_ = std::min(rails_, members.size());
  }

  Result<CommCost> run() {
    const auto domain = nvlink_domain();
    if (!domain) return tl::unexpected(domain.error());
    if (*domain) {
      consider_domain(**domain);
    } else {
      if (auto status = consider_network(); !status) return tl::unexpected(status.error());
    }
    CHECK(best_.has_value(), "some algorithm does every collective");
    return *std::move(best_);
  }

 private:
  struct Domain {
    const GpuCalibration* constants = nullptr;
    double port = 0;  // Bytes per second.
    bool switched = false;
  };

  [[nodiscard]] double n() const { return static_cast<double>(shape_.members.size()); }
  [[nodiscard]] double bytes() const { return static_cast<double>(shape_.bytes); }

  // Whether it is the fastest so far.
  bool consider(CollectiveAlgorithm algorithm, double latency, double transfer,
                std::vector<LinkUse> uses, const CommSteps& steps) {
    if (best_ && best_->total().value <= latency + transfer) return false;
    best_ = CommCost{.algorithm = algorithm,
                     .latency = {latency},
                     .transfer = {transfer},
                     .uses = std::move(uses),
                     .steps = steps};
    return true;
  }

  // GPUs of one node that are joined by one NVLink fabric.
  Result<std::optional<Domain>> nvlink_domain() {
    const ClusterSpec& cluster = topology_.cluster();
    const DeviceId first = shape_.members[0];
    if (by_node_.size() > 1 || cluster.type_of(first).kind != DeviceKind::gpu)
      return std::optional<Domain>{};
    const Fabric* shared = fabric_between(cluster, first, shape_.members[1]);
    for (std::size_t i = 0; i + 1 < shape_.members.size(); ++i) {
      const auto route = topology_.route(shape_.members[i], shape_.members[i + 1]);
      if (!route) return tl::unexpected(route.error());
      if (route->hop != HopKind::nvlink ||
          fabric_between(cluster, first, shape_.members[i + 1]) != shared)
        return std::optional<Domain>{};
    }
    return std::optional(Domain{.constants = &calibration_for(cluster.type_of(first)),
                                .port = shared->bandwidth->value,
                                .switched = shared->kind == FabricKind::nvswitch});
  }

  // What every member sends and receives when each sends `sent` bytes to the next.
  [[nodiscard]] std::vector<LinkUse> ring_uses(double sent) const {
    Load load(topology_);
    for (std::size_t i = 0; i < shape_.members.size(); ++i) {
      const DeviceId next = shape_.members[(i + 1) % shape_.members.size()];
      // Joined, as nvlink_domain has seen; a chain that is no ring is stopped there.
      if (!load.add(shape_.members[i], next, sent)) break;
    }
    return load.uses();
  }

  // Every member sends `sent` bytes to the next. What that puts on the links is only asked of the
  // fastest.
  void consider_ring(CollectiveAlgorithm algorithm, double latency, double transfer, double sent,
                     const CommSteps& steps) {
    if (consider(algorithm, latency, transfer, {}, steps)) sent_by_best_ = sent;
  }

  void consider_domain(const Domain& domain) {
    const CollectiveConstants& c = domain.constants->collective;
    const RingSteps steps = ring_steps(shape_.kind);
    const double size = shape_.kind == OpKind::all_to_all ? bytes() / n() : bytes();
    const double hops = steps.passes * (n() - 1);
    const double sent = steps.passes * size * (steps.divided ? (n() - 1) / n() : 1);
    const double wire = sent / domain.port;
    const double local = size / n() / domain.port * c.local_copy;
    const bool small_messages =
        shape_.members.size() >= 8 || sent <= static_cast<double>(c.packed_limit.value);
    if (options_.custom_all_reduce && shape_.kind == OpKind::all_reduce &&
        shape_.members.size() <= 8 && shape_.bytes <= kCustomAllReduceLimit.value)
      consider_custom(domain);
    if (options_.library || !best_) {
      if (small_messages) {
        consider_ring(CollectiveAlgorithm::ring, c.launch.value + hops * c.hop.value,
                      wire / c.inline_efficiency, sent / c.inline_efficiency,
                      {.launch = c.launch, .wire_bytes = 1 / c.inline_efficiency});
        consider_ring(
            CollectiveAlgorithm::ring, c.launch.value + c.packed_launch.value + hops * c.hop.value,
            wire / c.packed_efficiency + local, sent / c.packed_efficiency,
            {.launch = c.launch + c.packed_launch, .wire_bytes = 1 / c.packed_efficiency});
      }
      consider_ring(CollectiveAlgorithm::ring,
                    c.launch.value + c.bulk_launch.value + hops * c.bulk_hop.value,
                    wire / c.bulk_efficiency + local, sent / c.bulk_efficiency,
                    {.launch = c.launch + c.bulk_launch, .wire_bytes = 1 / c.bulk_efficiency});
      if (shape_.kind == OpKind::all_reduce && domain.switched && c.switch_efficiency > 0 &&
          shape_.members.size() >= 8) {
        consider_ring(CollectiveAlgorithm::in_switch, c.launch.value + c.switch_launch.value,
                      size / domain.port / c.switch_efficiency, size / c.switch_efficiency, {});
      }
    }
    best_->uses = ring_uses(sent_by_best_);
  }

  void consider_custom(const Domain& domain) {
    const CustomAllReduceConstants& c = domain.constants->custom_all_reduce;
    const double peers = (n() - 2) * c.peer.value;
    const double all = (n() - 1) * bytes();
    const double parts = 2 * (n() - 1) / n() * bytes();
    consider_ring(
        CollectiveAlgorithm::one_shot, c.one_shot_launch.value + peers,
        all / domain.port / c.one_shot_efficiency, all / c.one_shot_efficiency,
        {.launch = {c.one_shot_launch.value + peers}, .wire_bytes = 1 / c.one_shot_efficiency});
    consider_ring(
        CollectiveAlgorithm::two_shot, c.two_shot_launch.value + peers,
        parts / domain.port / c.two_shot_efficiency, parts / c.two_shot_efficiency,
        {.launch = {c.two_shot_launch.value + peers}, .wire_bytes = 1 / c.two_shot_efficiency});
  }

  // What launching costs beyond the hops: on GPUs a kernel of the library.
  [[nodiscard]] double launch() const {
    const DeviceType& type = topology_.cluster().type_of(shape_.members[0]);
    return type.kind == DeviceKind::gpu ? calibration_for(type).collective.launch.value : 0;
  }
  // One step between members of a node, next to `latency` of the slowest of them.
  [[nodiscard]] double step(double latency) const {
    const DeviceType& type = topology_.cluster().type_of(shape_.members[0]);
    const double least =
        type.kind == DeviceKind::gpu ? calibration_for(type).collective.hop.value : 0;
    return std::max(least, latency);
  }

  // CPU devices that Weir has measured run its own executor, in which every pair talks at once.
  Status consider_exchange() {
    if (shape_.kind != OpKind::all_reduce || !is_one_shot(shape_.members.size(), shape_.bytes))
      return consider_direct();
    Load load(topology_);
    for (const DeviceId from : shape_.members) {
      for (const DeviceId to : shape_.members) {
        if (auto status = load.add(from, to, bytes()); !status) return status;
      }
    }
    consider_passes(CollectiveAlgorithm::one_shot, 1, load, measured_pass(1, bytes()));
    return {};
  }

  static std::optional<std::vector<GroupCurve> MeasuredTransfers::*> curves_of(OpKind kind) {
    switch (kind) {
      case OpKind::all_reduce:
        return &MeasuredTransfers::all_reduces;
      case OpKind::reduce_scatter:
        return &MeasuredTransfers::reduce_scatters;
      case OpKind::all_gather:
        return &MeasuredTransfers::all_gathers;
      default:
        return {};
    }
  }

  // One of the exchanges that the collective consists of, in which every pair sends `each`.
  [[nodiscard]] std::optional<Seconds> measured_pass(double passes, double each) const {
    if (shape_.kind == OpKind::gather)
      return measured_gather(topology_, by_node_, shape_.root, each);
    if (const auto curves = curves_of(shape_.kind)) {
      if (const auto all = measured_collective(topology_, by_node_, *curves, bytes()))
        return Seconds{all->value / passes};
    }
    return measured_exchange(topology_, by_node_, each);
  }

  // Of `load` each: as long as measured, or else as the links say.
  void consider_passes(CollectiveAlgorithm algorithm, double passes, const Load& load,
                       std::optional<Seconds> measured) {
    MeasuredCost each{.latency = step(load.latency()), .transfer = load.seconds()};
    if (measured) each = split(*measured, load.latency(), load.seconds());
    std::vector<LinkUse> uses;
    if (each.transfer > 0) uses = load.uses();
    for (LinkUse& use : uses) use.bytes *= passes * each.wire_bytes;
    consider(algorithm, launch() + passes * each.latency, passes * each.transfer, std::move(uses),
             {.launch = {launch()}, .wire_bytes = each.wire_bytes});
  }

  Status consider_network() {
    using enum OpKind;
    const bool is_measured = topology_.cluster().type_of(shape_.members[0]).kernels.has_value();
    if (is_measured && shape_.kind != broadcast && shape_.kind != reduce)
      return consider_exchange();
    const bool reduces_to_all = shape_.kind == all_reduce;
    const bool rooted = shape_.kind == gather;
    if (!rooted && shape_.kind != all_to_all) {
      if (auto status = consider_rings(); !status) return status;
    }
    if (reduces_to_all || shape_.kind == broadcast || shape_.kind == reduce) {
      if (auto status = consider_tree(); !status) return status;
    }
    if (by_node_.size() > 1 && rails_ > 1 && shape_.kind != all_to_all && !rooted) {
      if (auto status = consider_hierarchical(); !status) return status;
    }
    if (shape_.kind != broadcast && shape_.kind != reduce) return consider_direct();
    return {};
  }

  // As many rings as every node has members; ring r enters and leaves each node at its member r.
  Status consider_rings() {
    const RingSteps steps = ring_steps(shape_.kind);
    const double each = steps.passes * bytes() * (steps.divided ? (n() - 1) / n() : 1) /
                        static_cast<double>(rails_);
    Load load(topology_);
    for (std::size_t rail = 0; rail < rails_; ++rail) {
      std::vector<DeviceId> ring;
      for (const auto& members : by_node_) {
        for (std::size_t i = 0; i < members.size(); ++i)
          ring.push_back(members[(rail + i) % members.size()]);
      }
      for (std::size_t i = 0; i < ring.size(); ++i) {
        if (auto status = load.add(ring[i], ring[(i + 1) % ring.size()], each); !status)
          return status;
      }
    }
    const double hops = steps.passes * (n() - 1);
    consider(CollectiveAlgorithm::ring, launch() + hops * step(load.latency()), load.seconds(),
             load.uses(), {.launch = {launch()}});
    return {};
  }

  // Chains within nodes, two mirrored binary trees between them, on every rail.
  Status consider_tree() {
    const double passes = shape_.kind == OpKind::all_reduce ? 2 : 1;
    const double each = bytes() / static_cast<double>(rails_);
    Load within(topology_);
    Load between(topology_);
    const auto edge = [&](Load& load, DeviceId a, DeviceId b, double amount) -> Status {
      if (auto status = load.add(a, b, amount); !status) return status;
      return passes == 2 ? load.add(b, a, amount) : Status{};
    };
    const std::size_t num_nodes = by_node_.size();
    std::size_t longest_chain = 0;
    for (std::size_t rail = 0; rail < rails_; ++rail) {
      for (const auto& members : by_node_) {
        longest_chain = std::max(longest_chain, members.size() - 1);
        for (std::size_t i = 0; i + 1 < members.size(); ++i) {
          const DeviceId upper = members[(rail + i) % members.size()];
          const DeviceId lower = members[(rail + i + 1) % members.size()];
          if (auto status = edge(within, upper, lower, each); !status) return status;
        }
      }
      for (std::size_t i = 1; i < num_nodes; ++i) {
        const std::size_t parent = (i - 1) / 2;
        const auto leader = [&](std::size_t node) { return by_node_[node][rail]; };
        if (auto status = edge(between, leader(parent), leader(i), each / 2); !status)
          return status;
        if (auto status =
                edge(between, leader(num_nodes - 1 - parent), leader(num_nodes - 1 - i), each / 2);
            !status)
          return status;
      }
    }
    const double above = passes * log2_steps(num_nodes) * step(between.latency());
    const double latency = passes * static_cast<double>(longest_chain) * step(within.latency());
    consider(CollectiveAlgorithm::tree, launch() + latency + above,
             std::max(within.seconds(), between.seconds()), uses_of_both(within, between),
             {.launch = {launch()}, .between_latency = {above}});
    return {};
  }

  Status consider_hierarchical() {
    const RingSteps steps = ring_steps(shape_.kind);
    const auto local = static_cast<double>(rails_);
    const auto nodes = static_cast<double>(by_node_.size());
    for (const auto& members : by_node_) {
      if (members.size() != rails_) return {};  // Uneven nodes have no rails.
    }
    Load within(topology_);
    Load between(topology_);
    for (const auto& members : by_node_) {
      for (std::size_t i = 0; i < rails_; ++i) {
        if (auto status = within.add(members[i], members[(i + 1) % rails_],
                                     steps.passes * bytes() * (local - 1) / local);
            !status)
          return status;
      }
    }
    const double share = steps.passes * bytes() / local * (steps.divided ? (nodes - 1) / nodes : 1);
    for (std::size_t node = 0; node < by_node_.size(); ++node) {
      const auto& next = by_node_[(node + 1) % by_node_.size()];
      for (std::size_t rail = 0; rail < rails_; ++rail) {
        if (auto status = between.add(by_node_[node][rail], next[rail], share); !status)
          return status;
      }
    }
    const double latency = steps.passes * (local - 1) * step(within.latency());
    const double above = steps.passes * (nodes - 1) * step(between.latency());
    consider(CollectiveAlgorithm::hierarchical, launch() + latency + above,
             within.seconds() + between.seconds(), uses_of_both(within, between),
             {.launch = {launch()},
              .between_latency = {above},
              .between_transfer = {between.seconds()}});
    return {};
  }

  static std::vector<LinkUse> uses_of_both(const Load& a, const Load& b) {
    std::map<LinkId, double> sum;
    for (const Load* load : {&a, &b}) {
      for (const LinkUse& use : load->uses()) sum[use.link] += use.bytes;
    }
    std::vector<LinkUse> uses;
    uses.reserve(sum.size());
    for (const auto& [link, carried] : sum) uses.push_back({.link = link, .bytes = carried});
    return uses;
  }

  Status consider_direct() {
    Load load(topology_);
    const double parts = shape_.kind == OpKind::all_to_all ? n() * n() : n();
    const double each = bytes() / parts;
    for (const DeviceId from : shape_.members) {
      for (const DeviceId to : shape_.members) {
        if (shape_.kind == OpKind::gather && to != shape_.root) continue;
        if (auto status = load.add(from, to, each); !status) return status;
      }
    }
    // All_reduce is a reduce_scatter and an all_gather.
    const double passes = shape_.kind == OpKind::all_reduce ? 2 : 1;
    consider_passes(CollectiveAlgorithm::direct, passes, load, measured_pass(passes, each));
    return {};
  }

  const Topology& topology_;
  const CollectiveShape& shape_;
  const CollectiveOptions& options_;
  std::vector<std::vector<DeviceId>> by_node_;
  std::size_t rails_ = std::numeric_limits<std::size_t>::max();  // Members of the smallest node.
  std::optional<CommCost> best_;
  double sent_by_best_ = 0;
};

}  // namespace

std::string_view to_string(CollectiveAlgorithm algorithm) {
  return std::ranges::find(kAlgorithmNames, algorithm,
                           &decltype(kAlgorithmNames)::value_type::first)
      ->second;
}

RingSteps ring_steps(OpKind kind) {
  switch (kind) {
    case OpKind::all_reduce:
      return {.passes = 2, .divided = true};
    case OpKind::broadcast:
    case OpKind::reduce:
      return {.passes = 1, .divided = false};
    case OpKind::reduce_scatter:
    case OpKind::all_gather:
    case OpKind::all_to_all:
    case OpKind::gather:
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
  return {.passes = 1, .divided = true};
}

std::vector<std::vector<DeviceId>> members_by_node(const Topology& topology,
                                                   std::span<const DeviceId> members) {
  std::vector<std::vector<DeviceId>> by_node;
  for (const DeviceId device : members) {
    const std::size_t node = topology.cluster().device(device).node;
    if (by_node.empty() || topology.cluster().device(by_node.back()[0]).node != node)
      by_node.emplace_back();
    by_node.back().push_back(device);
  }
  return by_node;
}

Result<CommCost> collective_cost(const Topology& topology, const CollectiveShape& shape,
                                 const CollectiveOptions& options) {
  if (shape.members.size() < 2 || shape.bytes == 0) return CommCost{};
  return Search(topology, shape, options).run();
}

Result<CommCost> message_cost(const Topology& topology, DeviceId from, DeviceId to,
                              std::int64_t bytes) {
  if (from == to || bytes == 0) return CommCost{};
  const auto route = topology.route(from, to);
  if (!route) return tl::unexpected(route.error());
  CommCost cost{.algorithm = CollectiveAlgorithm::direct,
                .latency = route->latency,
                .transfer = {},
                .uses = {},
                .steps = {}};
  double rate = std::numeric_limits<double>::infinity();
  for (const LinkId link : route->links) {
    rate = std::min(rate, topology.capacity(link).value);
    cost.uses.push_back({.link = link, .bytes = static_cast<double>(bytes)});
  }
  const double amount = static_cast<double>(bytes);
  cost.transfer = {amount / rate};
  if (const auto measured = measured_message(topology, from, to, amount)) {
    const MeasuredCost parts = split(*measured, route->latency.value, amount / rate);
    cost.latency = {parts.latency};
    cost.transfer = {parts.transfer};
    if (parts.transfer <= 0) cost.uses.clear();
    for (LinkUse& use : cost.uses) use.bytes *= parts.wire_bytes;
    return cost;
  }
  const DeviceType& type = topology.cluster().type_of(from);
  if (type.kind != DeviceKind::gpu) return cost;
  const CollectiveConstants& c = calibration_for(type).collective;
  cost.latency += c.launch;
  if (route->hop != HopKind::nvlink) return cost;
  const double packed = c.packed_launch.value + c.hop.value + amount / rate / c.packed_efficiency;
  const double bulk = c.bulk_launch.value + c.bulk_hop.value + amount / rate / c.bulk_efficiency;
  const bool in_bulk = bulk < packed;
  cost.latency += in_bulk ? c.bulk_launch + c.bulk_hop : c.packed_launch + c.hop;
  const double efficiency = in_bulk ? c.bulk_efficiency : c.packed_efficiency;
  cost.transfer = {amount / rate / efficiency};
  for (LinkUse& use : cost.uses) use.bytes /= efficiency;
  return cost;
}

}  // namespace weir
