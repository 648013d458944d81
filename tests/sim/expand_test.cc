#include "sim/expand.h"

#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "clusters_for_tests.h"
#include "sim/step_costs.h"

namespace weir {
namespace {

std::vector<DeviceId> devices(std::uint32_t count) {
  std::vector<DeviceId> ids;
  for (std::uint32_t i = 0; i < count; ++i) ids.push_back(DeviceId{i});
  return ids;
}

struct Expanded {
  CommCost cost;
  ActivityGraph graph;
  ExpandedCollective messages;
};

Expanded expanded(const Topology& topology, const CollectiveShape& shape,
                  const CollectiveOptions& options = {}) {
  auto cost = collective_cost(topology, shape, options);
  EXPECT_TRUE(cost.has_value()) << cost.error().message;
  Expanded made{.cost = *std::move(cost), .graph = {}, .messages = {}};
  auto messages = expand_collective(topology, shape, made.cost, made.graph);
  EXPECT_TRUE(messages.has_value()) << messages.error().message;
  made.messages = *std::move(messages);
  made.graph.append(made.messages.pattern, {});
  return made;
}

std::int64_t messages_of(const Expanded& made) {
  std::int64_t count = 0;
  for (ActivityId id = 0; id < made.graph.size(); ++id)
    count += made.graph.work_of(id).num_uses > 0 ? 1 : 0;
  return count;
}

std::map<LinkId, double> bytes_by_link(const ActivityGraph& graph) {
  std::map<LinkId, double> bytes;
  for (ActivityId id = 0; id < graph.size(); ++id) {
    for (const LinkUse& use : graph.uses_of(graph.work_of(id))) bytes[use.link] += use.bytes;
  }
  return bytes;
}

struct Case {
  std::string name;
  Topology topology;
  CollectiveShape shape;
};

// Collectives of every kind on machines of one node and of several, with even nodes and uneven
// ones.
std::vector<Case> cases() {
  const std::pair<std::string, ClusterSpec> clusters[] = {
      {"one CPU node", round_cluster(1, 5)},
      {"single devices", round_cluster(5, 1)},
      {"even nodes", round_cluster(4, 4)},
      {"H100", load_cluster("h100-sxm").value()},
      {"H100 nodes", load_cluster("h100-sxm:3").value()},
      {"A100 nodes", load_cluster("a100-sxm-80gb:4").value()},
  };
  using enum OpKind;
  std::vector<Case> made;
  Random random(20);
  for (const auto& [name, cluster] : clusters) {
    const auto size = static_cast<std::int64_t>(cluster.devices.size());
    for (const OpKind kind :
         {all_reduce, reduce_scatter, all_gather, all_to_all, broadcast, gather, reduce}) {
      for (const double exponent : {3.0, 13.0, 19.0, 25.0, 29.0}) {
        const std::int64_t members = random.uniform() < 0.5 ? size : random.integer(2, size);
        CollectiveShape shape{
            .kind = kind,
            .members = devices(static_cast<std::uint32_t>(members)),
            .root = DeviceId{static_cast<std::uint32_t>(random.integer(0, members - 1))},
            .bytes = static_cast<std::int64_t>(std::exp2(exponent + random.uniform()))};
        std::string text =
            fmt::format("{}: {} of {} bytes by {}", name, to_string(kind), shape.bytes, members);
        made.push_back(
            {.name = std::move(text), .topology = Topology(cluster), .shape = std::move(shape)});
      }
    }
  }
  return made;
}

TEST(Expand, MessagesAloneTakeAsLongAsTheWholeButForRounding) {
  std::set<CollectiveAlgorithm> seen;
  for (const Case& made : cases()) {
    for (const bool custom : {true, false}) {
      const Expanded all = expanded(made.topology, made.shape, {.custom_all_reduce = custom});
      seen.insert(all.cost.algorithm);
      const SimTime whole = to_sim_time(all.cost.latency) + to_sim_time(all.cost.transfer);
      const SimTime found = run_in_order(all.graph).end;
      EXPECT_LE(std::abs((found - whole).ns), expansion_rounding(all.messages).ns)
          << made.name << " " << to_string(all.cost.algorithm) << " " << whole.ns;
    }
  }
  using enum CollectiveAlgorithm;
  for (const auto algorithm : {ring, tree, hierarchical, direct, in_switch, one_shot, two_shot})
    EXPECT_TRUE(seen.contains(algorithm)) << to_string(algorithm) << " is not among the cases";
}

TEST(Expand, ACollectiveDoesNotHoldItselfUp) {
  for (const Case& made : cases()) {
    const Expanded all = expanded(made.topology, made.shape);
    const ActivityTimes shared = run_by_events(all.graph, made.topology.capacities());
    EXPECT_FALSE(shared.has_slowed) << made.name << " " << to_string(all.cost.algorithm);
    EXPECT_EQ(shared.ends, run_in_order(all.graph).ends) << made.name;
  }
}

// The whole states what every link carries. Rooted collectives go one way where it counts a ring.
TEST(Expand, LinksCarryWhatTheWholeCounts) {
  for (const Case& made : cases()) {
    const Expanded all = expanded(made.topology, made.shape);
    std::map<LinkId, double> carried = bytes_by_link(all.graph);
    using enum OpKind;
    const OpKind kind = made.shape.kind;
    if (kind == broadcast || kind == gather || kind == reduce) continue;
    EXPECT_EQ(carried.size(), all.cost.uses.size()) << made.name;
    for (const LinkUse& use : all.cost.uses) {
      EXPECT_NEAR(carried[use.link] / use.bytes, 1, 1e-9)
          << made.name << " " << to_string(all.cost.algorithm);
    }
  }
}

// Everybody's part gets to everybody: whoever is done has heard, through messages, from all others.
TEST(Expand, ReducingToAllLetsEveryMemberHearFromEveryOther) {
  for (const Case& made : cases()) {
    if (made.shape.kind != OpKind::all_reduce) continue;
    const Expanded all = expanded(made.topology, made.shape);
    using enum CollectiveAlgorithm;
    // Streams pass on what still arrives, so who waits for whom is in their latencies.
    if (all.cost.algorithm == tree || all.cost.algorithm == in_switch) continue;
    const std::size_t links = made.topology.num_links();
    // By activity, the out-links from which something has come.
    std::vector<std::vector<bool>> heard(all.graph.size(), std::vector<bool>(links));
    std::set<LinkId> first_links;
    for (ActivityId id = 0; id < all.graph.size(); ++id) {
      for (const ActivityId before : all.graph.waits_of(id)) {
        for (std::size_t i = 0; i < links; ++i) {
          if (heard[before][i]) heard[id][i] = true;
        }
      }
      const auto uses = all.graph.uses_of(all.graph.work_of(id));
      if (uses.empty()) continue;
      heard[id][index_of(uses[0].link)] = true;
      first_links.insert(uses[0].link);
    }
    for (const ActivityId end : all.messages.ends) {
      for (const LinkId link : first_links)
        EXPECT_TRUE(heard[end][index_of(link)])
            << made.name << " " << to_string(all.cost.algorithm);
    }
  }
}

TEST(Expand, ARingSendsFromEveryMemberInEveryStep) {
  const Topology topology(load_cluster("h100-sxm").value());
  CollectiveShape shape{.members = devices(8), .bytes = 1 << 24};
  const Expanded all_reduce = expanded(topology, shape, {.custom_all_reduce = false});
  ASSERT_EQ(all_reduce.cost.algorithm, CollectiveAlgorithm::ring);
  EXPECT_EQ(messages_of(all_reduce), 2 * 7 * 8);
  shape.kind = OpKind::all_gather;
  EXPECT_EQ(messages_of(expanded(topology, shape)), 7 * 8);
  shape.kind = OpKind::all_to_all;
  EXPECT_EQ(messages_of(expanded(topology, shape)), 7 * 8);
  shape.kind = OpKind::broadcast;
  EXPECT_EQ(messages_of(expanded(topology, shape)), 7);
  shape.kind = OpKind::gather;
  EXPECT_EQ(messages_of(expanded(topology, shape)), 7);
}

TEST(Expand, AShortAllReduceOfGpusReadsAllPeersAtOnce) {
  const Topology topology(load_cluster("h100-sxm").value());
  const Expanded made = expanded(topology, {.members = devices(8), .bytes = 1 << 13});
  ASSERT_EQ(made.cost.algorithm, CollectiveAlgorithm::one_shot);
  EXPECT_EQ(messages_of(made), 8 * 7);
  EXPECT_EQ(made.messages.num_steps, 1);
}

TEST(Expand, WhatTheSwitchAddsStaysOneActivity) {
  const Topology topology(load_cluster("h100-sxm").value());
  const Expanded made = expanded(topology, {.members = devices(8), .bytes = 1 << 29});
  ASSERT_EQ(made.cost.algorithm, CollectiveAlgorithm::in_switch);
  EXPECT_EQ(made.graph.size(), 1U);
  EXPECT_EQ(made.messages.ends, std::vector<ActivityId>(8, 0));
}

TEST(Expand, MoreMessagesThanCanBeHeldAreRefused) {
  const Topology topology(round_cluster(9000, 1));
  const CollectiveShape shape{
      .kind = OpKind::all_to_all, .members = devices(9000), .bytes = 1 << 30};
  ActivityGraph graph;
  const auto refused = expand_collective(
      topology, shape, {.algorithm = CollectiveAlgorithm::direct, .transfer = {1}, .uses = {}},
      graph);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().message,
            "expand_collectives: found up to 161982000 messages of one all_to_all of 9000 members, "
            "allowed 134217728");
}

TEST(Expand, AMemberThatNobodyReachesIsNamed) {
  ClusterSpec cluster = round_cluster(2, 1);
  const Topology joined(cluster);
  const CollectiveShape shape{.members = devices(2), .bytes = 1000};
  const CommCost cost = collective_cost(joined, shape).value();
  cluster.node_types[0].nics.reset();
  ActivityGraph graph;
  const auto failed = expand_collective(Topology(cluster), shape, cost, graph);
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().message,
            "node type node: nics: found no gb_per_s, allowed a rate, as node0/cpu0 talks to "
            "another node");
}

}  // namespace
}  // namespace weir
