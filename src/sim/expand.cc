#include "sim/expand.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <span>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "sim/step_costs.h"

namespace weir {
namespace {

// Places among the members.
using Ring = std::vector<std::uint32_t>;
struct Edge {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::uint32_t lane = 0;  // Lanes do not wait for each other.
};
struct MessageCost {
  double bytes = 0;  // Of data.
  double latency = 0;
  double transfer = 0;
};

class Expansion {
 public:
  Expansion(const Topology& topology, const CollectiveShape& shape, const CommCost& cost,
            ActivityGraph& graph)
      : topology_(topology),
        shape_(shape),
        cost_(cost),
        graph_(graph),
        moment_(graph.add_work(SimTime{})) {
    std::uint32_t place = 0;
    for (const auto& members : members_by_node(topology, shape.members)) {
      by_node_.emplace_back();
      for (std::size_t i = 0; i < members.size(); ++i) by_node_.back().push_back(place++);
      rails_ = std::min(rails_, members.size());
    }
    const auto root = std::ranges::find(shape.members, shape.root);
    if (root != shape.members.end())
      root_ = static_cast<std::uint32_t>(root - shape.members.begin());
  }

  Result<ExpandedCollective> run() {
    if (const std::int64_t most = most_messages(); most > kMostActivities) {
      return invalid_input(fmt::format(
          "expand_collectives: found up to {} messages of one {} of {} members, allowed {}", most,
          to_string(shape_.kind), n(), kMostActivities));
    }
    begin(cost_.algorithm == CollectiveAlgorithm::ring && !in_domain() ? rails_ : 1);
    if (auto status = add_messages(); !status) return tl::unexpected(status.error());
    for (std::uint32_t member = 0; member < n(); ++member) {
      std::vector<ActivityId> last;
      for (std::uint32_t lane = 0; lane < lanes_; ++lane) {
        const auto& here = last_[member * lanes_ + lane];
        last.insert(last.end(), here.begin(), here.end());
      }
      result_.ends.push_back(last.size() == 1 ? last[0] : result_.pattern.add(moment_, last));
    }
    return std::move(result_);
  }

 private:
  [[nodiscard]] std::uint32_t n() const {
    return static_cast<std::uint32_t>(shape_.members.size());
  }
  [[nodiscard]] double bytes() const { return static_cast<double>(shape_.bytes); }
  // No algorithm sends more than twice from every member to every other, on every rail.
  [[nodiscard]] std::int64_t most_messages() const {
    const std::int64_t pairs = std::int64_t{n()} * (n() - 1);
    switch (cost_.algorithm) {
      case CollectiveAlgorithm::none:
      case CollectiveAlgorithm::in_switch:
        return 1;
      case CollectiveAlgorithm::ring:
        return 2 * pairs * static_cast<std::int64_t>(in_domain() ? 1 : rails_);
      case CollectiveAlgorithm::tree:
        return 4 * std::int64_t{n()} * static_cast<std::int64_t>(rails_);
      case CollectiveAlgorithm::hierarchical:
      case CollectiveAlgorithm::direct:
      case CollectiveAlgorithm::one_shot:
      case CollectiveAlgorithm::two_shot:
        break;
    }
    return 2 * pairs;
  }
  // Of one node: rings do not run over rails.
  [[nodiscard]] bool in_domain() const { return by_node_.size() == 1; }

  void begin(std::size_t lanes) {
    const bool whole = cost_.algorithm == CollectiveAlgorithm::none ||
                       cost_.algorithm == CollectiveAlgorithm::in_switch;
    lanes_ = static_cast<std::uint32_t>(lanes);
    result_.pattern.add(
        whole ? graph_.add_work(to_sim_time(cost_.latency), to_sim_time(cost_.transfer), cost_.uses)
              : graph_.add_work(to_sim_time(cost_.steps.launch)),
        {});
    last_.assign(static_cast<std::size_t>(n()) * lanes_, {0});
  }

  Status add_messages() {
    switch (cost_.algorithm) {
      case CollectiveAlgorithm::none:
      case CollectiveAlgorithm::in_switch:
        return {};
      case CollectiveAlgorithm::ring:
        return add_ring();
      case CollectiveAlgorithm::tree:
        return add_tree();
      case CollectiveAlgorithm::hierarchical:
        return add_hierarchical();
      case CollectiveAlgorithm::direct:
        return add_pairs(shape_.kind == OpKind::all_reduce ? 2 : 1,
                         shape_.kind == OpKind::all_to_all ? bytes() / n() / n() : bytes() / n());
      case CollectiveAlgorithm::one_shot:
        return add_pairs(1, bytes());
      case CollectiveAlgorithm::two_shot:
        return add_pairs(2, bytes() / n());
    }
    return {};
  }

  // What all steps have together, beyond the launch and what passes between nodes.
  [[nodiscard]] double latency_within() const {
    return cost_.latency.value - cost_.steps.launch.value - cost_.steps.between_latency.value;
  }
  [[nodiscard]] double transfer_within() const {
    return cost_.transfer.value - cost_.steps.between_transfer.value;
  }

  Status add_pairs(std::uint32_t passes, double each) {
    std::vector<Edge> edges;
    for (std::uint32_t from = 0; from < n(); ++from) {
      for (std::uint32_t to = 0; to < n(); ++to) {
        if (from == to || (shape_.kind == OpKind::gather && to != root_)) continue;
        edges.push_back({.from = from, .to = to});
      }
    }
    return add_steps(edges, passes,
                     {.bytes = each,
                      .latency = latency_within() / passes,
                      .transfer = cost_.transfer.value / passes});
  }

  Status add_ring() {
    const std::uint32_t hops = n() - 1;
    const RingSteps around = ring_steps(shape_.kind);
    if (!around.divided) return add_streamed_ring();
    const auto passes = static_cast<std::uint32_t>(around.passes);
    const std::uint32_t steps = passes * hops;
    MessageCost step{.bytes = bytes() / n() / lanes_,
                     .latency = latency_within() / steps,
                     .transfer = cost_.transfer.value / steps};
    if (shape_.kind == OpKind::gather) return add_one_by_one(step);
    if (shape_.kind == OpKind::all_to_all) {
      step.bytes /= n();
      for (std::uint32_t distance = 1; distance < n(); ++distance) {
        std::vector<Edge> edges;
        for (std::uint32_t i = 0; i < n(); ++i)
          edges.push_back({.from = i, .to = (i + distance) % n()});
        if (auto status = add_steps(edges, 1, step); !status) return status;
      }
      return {};
    }
    std::vector<Edge> edges;
    for (std::uint32_t lane = 0; lane < lanes_; ++lane) append_edges(edges, ring_of(lane), lane);
    return add_steps(edges, steps, step);
  }

  // Ring `rail` enters and leaves each node at its member `rail`.
  [[nodiscard]] Ring ring_of(std::size_t rail) const {
    Ring ring;
    for (const Ring& members : by_node_) {
      for (std::size_t i = 0; i < members.size(); ++i)
        ring.push_back(members[(rail + i) % members.size()]);
    }
    return ring;
  }

  static void append_edges(std::vector<Edge>& edges, const Ring& ring, std::uint32_t lane) {
    for (std::size_t i = 0; i < ring.size(); ++i)
      edges.push_back({.from = ring[i], .to = ring[(i + 1) % ring.size()], .lane = lane});
  }

  Status add_one_by_one(const MessageCost& step) {
    ActivityId before = 0;
    for (std::uint32_t distance = 1; distance < n(); ++distance) {
      const std::uint32_t from = (root_ + distance) % n();
      const auto id = add_message({.from = from, .to = root_}, step, {&before, 1});
      if (!id) return tl::unexpected(id.error());
      before = *id;
      last_[from] = {before};
      last_[root_] = {before};
    }
    result_.num_steps += n() - 1;
    return {};
  }

  // From the root round the ring, or round the ring to it.
  Status add_streamed_ring() {
    const double hop = latency_within() / (n() - 1);
    for (std::uint32_t lane = 0; lane < lanes_; ++lane) {
      const Ring ring = ring_of(lane);
      const auto at = static_cast<std::size_t>(std::ranges::find(ring, root_) - ring.begin());
      for (std::uint32_t i = 0; i + 1 < n(); ++i) {
        // The edge that ends i + 1 hops after the root, or begins as many before it.
        const std::size_t near = at + i;
        const bool from_root = shape_.kind == OpKind::broadcast;
        const std::uint32_t a = ring[(from_root ? near : at + n() - i - 1) % n()];
        const std::uint32_t b = ring[(from_root ? near + 1 : at + n() - i) % n()];
        const std::uint32_t behind = from_root ? i + 1 : n() - 1 - i;
        if (auto status =
                add_stream({.from = a, .to = b, .lane = lane}, {.bytes = bytes() / lanes_,
                                                                .latency = behind * hop,
                                                                .transfer = cost_.transfer.value});
            !status)
          return status;
      }
    }
    result_.num_steps = 1;
    return {};
  }

  // Along the longest chain within a node, and between nodes; and the latency of each step.
  struct TreeSteps {
    double chain = 0;
    double levels = 0;
    double within = 0;
    double between = 0;
    [[nodiscard]] double pass() const { return chain * within + levels * between; }
  };
  struct TreePass {
    std::size_t rail = 0;
    bool up = false;
    double before = 0;  // Latency of an earlier pass.
  };

  // Up the trees, down them, or both.
  Status add_tree() {
    const bool both = shape_.kind == OpKind::all_reduce;
    const double passes = both ? 2 : 1;
    TreeSteps steps;
    for (const Ring& members : by_node_)
      steps.chain = std::max(steps.chain, static_cast<double>(members.size() - 1));
    steps.levels = static_cast<double>(std::bit_width(by_node_.size() - 1));
    if (steps.chain > 0) steps.within = latency_within() / passes / steps.chain;
    if (steps.levels > 0) steps.between = cost_.steps.between_latency.value / passes / steps.levels;
    std::vector<TreePass> all;
    for (std::size_t rail = 0; rail < rails_; ++rail) {
      if (both || shape_.kind == OpKind::reduce) all.push_back({.rail = rail, .up = true});
      if (both || shape_.kind == OpKind::broadcast)
        all.push_back({.rail = rail, .up = false, .before = both ? steps.pass() : 0});
    }
    for (const TreePass& pass : all) {
      if (auto status = add_chains(steps, pass); !status) return status;
      if (auto status = add_levels(steps, pass); !status) return status;
    }
    result_.num_steps = 1;
    return {};
  }

  Status add_tree_edge(std::uint32_t upper, std::uint32_t lower, bool up, double latency,
                       double amount) {
    return add_stream(up ? Edge{.from = lower, .to = upper} : Edge{.from = upper, .to = lower},
                      {.bytes = amount, .latency = latency, .transfer = cost_.transfer.value});
  }

  // From the rail's member of each node down a chain of the others.
  Status add_chains(const TreeSteps& steps, const TreePass& pass) {
    for (const Ring& members : by_node_) {
      const std::size_t size = members.size();
      for (std::size_t i = 1; i < size; ++i) {
        const auto depth = static_cast<double>(i);
        const double latency = pass.up ? (steps.chain - depth + 1) * steps.within
                                       : steps.levels * steps.between + depth * steps.within;
        if (auto status = add_tree_edge(
                members[(pass.rail + i - 1) % size], members[(pass.rail + i) % size], pass.up,
                pass.before + latency, bytes() / static_cast<double>(rails_));
            !status)
          return status;
      }
    }
    return {};
  }

  // Two binary trees over the nodes, each the mirror of the other.
  Status add_levels(const TreeSteps& steps, const TreePass& pass) {
    const std::size_t nodes = by_node_.size();
    for (std::size_t i = 1; i < nodes; ++i) {
      // log2(n) steps may be one more than this tree has levels: the root is a step further away.
      const auto depth = static_cast<double>(std::bit_width(i + 1) - 1);
      const auto height = static_cast<double>(std::bit_width(nodes) - std::bit_width(i + 1));
      const double latency =
          pass.up ? steps.chain * steps.within + (steps.levels - depth + 1) * steps.between
                  : (steps.levels - height) * steps.between;
      for (const bool mirrored : {false, true}) {
        const auto leader = [&](std::size_t k) {
          return by_node_[mirrored ? nodes - 1 - k : k][pass.rail];
        };
        if (auto status =
                add_tree_edge(leader((i - 1) / 2), leader(i), pass.up, pass.before + latency,
                              bytes() / static_cast<double>(rails_) / 2);
            !status)
          return status;
      }
    }
    return {};
  }

  Status add_hierarchical() {
    const OpKind kind = shape_.kind;
    const RingSteps around = ring_steps(kind);
    const bool both = kind == OpKind::all_reduce;
    const bool first = both || kind == OpKind::reduce_scatter || kind == OpKind::reduce;
    if (first) {
      if (auto status = add_within(around.passes); !status) return status;
    }
    if (auto status = add_between(around); !status) return status;
    return both || !first ? add_within(around.passes) : Status{};
  }

  // One of `passes` passes round the members of each node.
  Status add_within(double passes) {
    std::vector<Edge> edges;
    for (const Ring& members : by_node_) append_edges(edges, members, 0);
    const auto steps = static_cast<std::uint32_t>(rails_ - 1);
    return add_steps(edges, steps,
                     {.bytes = bytes() / static_cast<double>(rails_),
                      .latency = latency_within() / passes / steps,
                      .transfer = transfer_within() / passes / steps});
  }

  Status add_between(const RingSteps& around) {
    const std::size_t nodes = by_node_.size();
    const double hops = around.passes * static_cast<double>(nodes - 1);
    const double latency = cost_.steps.between_latency.value / hops;
    const double each = bytes() / static_cast<double>(rails_);
    std::vector<Ring> rings(rails_);
    for (std::size_t rail = 0; rail < rails_; ++rail) {
      for (const Ring& members : by_node_) rings[rail].push_back(members[rail]);
    }
    if (around.divided) {
      std::vector<Edge> edges;
      for (const Ring& ring : rings) append_edges(edges, ring, 0);
      return add_steps(edges, static_cast<std::uint32_t>(hops),
                       {.bytes = each / static_cast<double>(nodes),
                        .latency = latency,
                        .transfer = cost_.steps.between_transfer.value / hops});
    }
    // Streamed from the root's node, or to it. All edges are one step.
    const auto root_node = static_cast<std::size_t>(
        std::ranges::find_if(by_node_,
                             [&](const Ring& members) {
                               return std::ranges::find(members, root_) != members.end();
                             }) -
        by_node_.begin());
    const bool from_root = shape_.kind == OpKind::broadcast;
    std::vector<std::pair<Edge, MessageCost>> streams;
    for (const Ring& ring : rings) {
      for (std::size_t i = 0; i + 1 < nodes; ++i) {
        const std::size_t behind = from_root ? i + 1 : nodes - 1 - i;
        const std::uint32_t near = ring[(root_node + (from_root ? i : nodes - i)) % nodes];
        const std::uint32_t far = ring[(root_node + (from_root ? i + 1 : nodes - i - 1)) % nodes];
        streams.emplace_back(
            from_root ? Edge{.from = near, .to = far} : Edge{.from = far, .to = near},
            MessageCost{.bytes = each,
                        .latency = static_cast<double>(behind) * latency,
                        .transfer = cost_.steps.between_transfer.value});
      }
    }
    return add_step_of(streams);
  }

  // The same edges `count` times, each time after what the sender has done before.
  Status add_steps(const std::vector<Edge>& edges, std::uint32_t count, const MessageCost& cost) {
    std::vector<std::pair<Edge, MessageCost>> messages;
    messages.reserve(edges.size());
    for (const Edge& edge : edges) messages.emplace_back(edge, cost);
    for (std::uint32_t step = 0; step < count; ++step) {
      if (auto status = add_step_of(messages); !status) return status;
    }
    return {};
  }

  Status add_step_of(std::span<const std::pair<Edge, MessageCost>> messages) {
    std::vector<std::vector<ActivityId>> done(last_.size());
    for (const auto& [edge, cost] : messages) {
      const auto id = add_message(edge, cost, waits_of(edge.from * lanes_ + edge.lane));
      if (!id) return tl::unexpected(id.error());
      done[edge.from * lanes_ + edge.lane].push_back(*id);
      done[edge.to * lanes_ + edge.lane].push_back(*id);
    }
    for (std::size_t i = 0; i < last_.size(); ++i) {
      if (!done[i].empty()) last_[i] = std::move(done[i]);
    }
    ++result_.num_steps;
    return {};
  }

  // A message that waits for the launch alone, its latency being how far it is behind.
  Status add_stream(const Edge& edge, const MessageCost& cost) {
    const ActivityId launch = 0;
    const auto id = add_message(edge, cost, {&launch, 1});
    if (!id) return tl::unexpected(id.error());
    for (const std::uint32_t member : {edge.from, edge.to})
      last_[member * lanes_ + edge.lane].push_back(*id);
    return {};
  }

  // What a member was at last; many are brought together, so that each reader waits for one.
  std::span<const ActivityId> waits_of(std::size_t member_lane) {
    constexpr std::size_t kFew = 2;
    std::vector<ActivityId>& last = last_[member_lane];
    if (last.size() > kFew) last = {result_.pattern.add(moment_, last)};
    return last;
  }

  Result<ActivityId> add_message(const Edge& edge, const MessageCost& cost,
                                 std::span<const ActivityId> waits) {
    const auto [place, added] =
        known_.try_emplace({edge.from, edge.to, cost.bytes, cost.latency, cost.transfer}, WorkId{});
    if (added) {
      const auto route = topology_.route(shape_.members[edge.from], shape_.members[edge.to]);
      if (!route) return tl::unexpected(route.error());
      std::vector<LinkUse> uses;
      for (const LinkId link : route->links)
        uses.push_back({.link = link, .bytes = cost.bytes * cost_.steps.wire_bytes});
      place->second =
          graph_.add_work(to_sim_time({cost.latency}), to_sim_time({cost.transfer}), uses);
    }
    return result_.pattern.add(place->second, waits);
  }

  const Topology& topology_;
  const CollectiveShape& shape_;
  const CommCost& cost_;
  ActivityGraph& graph_;
  WorkId moment_;  // No time.
  std::vector<Ring> by_node_;
  std::size_t rails_ = std::numeric_limits<std::size_t>::max();  // Members of the smallest node.
  std::uint32_t root_ = 0;
  std::uint32_t lanes_ = 1;
  std::vector<std::vector<ActivityId>> last_;  // By member, then lane: with what it was done last.
  std::map<std::tuple<std::uint32_t, std::uint32_t, double, double, double>, WorkId> known_;
  ExpandedCollective result_;
};

}  // namespace

Result<ExpandedCollective> expand_collective(const Topology& topology, const CollectiveShape& shape,
                                             const CommCost& cost, ActivityGraph& graph) {
  return Expansion(topology, shape, cost, graph).run();
}

SimTime expansion_rounding(const ExpandedCollective& expanded) {
  return {2 * expanded.num_steps + 2};
}

}  // namespace weir
