// Communication that has been measured: times are read off curves whose figures are round.

#include "sim/measured_exchange.h"

#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "sim/activities.h"
#include "sim/collectives.h"
#include "sim/expand.h"
#include "sim/step_costs.h"
#include "tests/sim/clusters_for_tests.h"

namespace weir {
namespace {

// A message takes `us` for 1000 bytes and as much more for each further 1000, a member's whole part
// in an exchange twice as much.
MeasuredTransfers curves(double us) {
  const auto line = [](double per_kilobyte) {
    return std::vector<TransferTime>{{.bytes = 1000, .us = per_kilobyte}};
  };
  return {.messages = line(us), .exchanges = {{.members = 2, .times = line(2 * us)}}};
}

// Within a node 100 us, between nodes 1000 us; links would take a hundredth of either.
ClusterSpec cluster_with_exchanges(std::int64_t nodes, std::int64_t per_node,
                                   NicOwner owner = NicOwner::node) {
  ClusterSpec cluster = round_cluster(nodes, per_node);
  cluster.device_types[0].kernels = MeasuredKernels{};
  cluster.node_types[0].fabrics[0].transfers = curves(100);
  cluster.node_types[0].nics->transfers = curves(1000);
  cluster.node_types[0].nics->owner = owner;
  list_devices(cluster);
  return cluster;
}

CollectiveShape exchange_shape(OpKind kind, std::uint32_t members, std::int64_t bytes) {
  CollectiveShape shape;
  shape.kind = kind;
  shape.bytes = bytes;
  for (std::uint32_t i = 0; i < members; ++i) shape.members.push_back(static_cast<DeviceId>(i));
  return shape;
}

double us_of(const ClusterSpec& cluster, const CollectiveShape& shape) {
  return collective_cost(Topology(cluster), shape).value().total().value * 1e6;
}

double message_us(const ClusterSpec& cluster, std::uint32_t to, std::int64_t bytes) {
  const Topology topology(cluster);
  return message_cost(topology, DeviceId{}, static_cast<DeviceId>(to), bytes)
             .value()
             .total()
             .value *
         1e6;
}

TEST(MeasuredExchange, OfANodeIsItsFabrics) {
  const ClusterSpec cluster = cluster_with_exchanges(1, 4);
  EXPECT_NEAR(message_us(cluster, 3, 2000), 200, 1e-6);
  // In one round everything goes to everybody, in two a part: three messages each time.
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::all_reduce, 4, 4000)), 3 * 4 * 200, 1e-6);
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::all_reduce, 4, 400'000)), 2 * 3 * 100 * 200,
              1e-6);
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::all_gather, 4, 400'000)), 3 * 100 * 200, 1e-6);
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::all_to_all, 4, 1'600'000)), 3 * 100 * 200,
              1e-6);
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::gather, 4, 4000)), 3 * 200, 1e-6);
}

// Those of groups that were measured as they are; of any other, as its exchanges.
TEST(MeasuredExchange, OfAllReducesIsTheirOwn) {
  const std::vector<GroupCurve> all_reduces{{.members = 4, .times = {{.bytes = 1000, .us = 7000}}}};
  ClusterSpec one_node = cluster_with_exchanges(1, 6);
  one_node.node_types[0].fabrics[0].transfers->all_reduces = all_reduces;
  EXPECT_NEAR(us_of(one_node, exchange_shape(OpKind::all_reduce, 4, 4000)), 28'000, 1e-6);
  EXPECT_NEAR(us_of(one_node, exchange_shape(OpKind::all_reduce, 4, 400'000)), 2'800'000, 1e-6);
  EXPECT_NEAR(us_of(one_node, exchange_shape(OpKind::all_reduce, 6, 4000)), 5 * 4 * 200, 1e-6);
  EXPECT_NEAR(us_of(one_node, exchange_shape(OpKind::all_gather, 4, 4000)), 3 * 200, 1e-6);
  for (const std::int64_t nodes : {4, 2}) {
    ClusterSpec several = cluster_with_exchanges(nodes, 4 / nodes);
    several.node_types[0].nics->transfers->all_reduces = all_reduces;
    EXPECT_NEAR(us_of(several, exchange_shape(OpKind::all_reduce, 4, 400'000)),
                nodes == 4 ? 2'800'000 : 2 * 4 * 100 * 2000, 1e-3);
  }
}

// With what members do beside the exchange.
TEST(MeasuredExchange, OfReduceScattersAndAllGathersIsTheirOwn) {
  ClusterSpec cluster = cluster_with_exchanges(1, 6);
  MeasuredTransfers& transfers = *cluster.node_types[0].fabrics[0].transfers;
  transfers.reduce_scatters = {{.members = 4, .times = {{.bytes = 1000, .us = 5000}}}};
  transfers.all_gathers = {{.members = 4, .times = {{.bytes = 1000, .us = 3000}}}};
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::reduce_scatter, 4, 4000)), 20'000, 1e-6);
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::all_gather, 4, 4000)), 12'000, 1e-6);
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::all_reduce, 4, 400'000)), 2 * 3 * 100 * 200,
              1e-6);
  EXPECT_NEAR(us_of(cluster, exchange_shape(OpKind::all_gather, 2, 4000)), 2 * 200, 1e-6);
}

TEST(MeasuredExchange, BetweenNodesIsWhatPassesTheirCards) {
  const CollectiveShape shape =
      exchange_shape(OpKind::all_gather, 4, 400'000);  // 100 kB to each other.
  // Two on each node: four messages leave it on its card, two on each device's own.
  EXPECT_NEAR(us_of(cluster_with_exchanges(2, 2), shape), 4 * 100 * 2000, 1e-6);
  EXPECT_NEAR(us_of(cluster_with_exchanges(2, 2, NicOwner::device), shape), 2 * 100 * 2000, 1e-6);
  // One on each: a member has three to send.
  EXPECT_NEAR(us_of(cluster_with_exchanges(4, 1), shape), 3 * 100 * 2000, 1e-6);
  EXPECT_NEAR(message_us(cluster_with_exchanges(2, 2), 2, 5000), 5000, 1e-6);
  // The root gets two from the other node and one from its neighbour.
  EXPECT_NEAR(us_of(cluster_with_exchanges(2, 2), exchange_shape(OpKind::gather, 4, 4000)),
              2 * 2000, 1e-6);
}

TEST(MeasuredExchange, IsThatOfTheLinksWhereNothingWasMeasured) {
  const CollectiveShape shape = exchange_shape(OpKind::all_gather, 4, 400'000);
  ClusterSpec plain = cluster_with_exchanges(2, 2);
  plain.node_types[0].fabrics[0].transfers.reset();
  plain.node_types[0].nics->transfers.reset();
  ClusterSpec within_only = cluster_with_exchanges(2, 2);
  within_only.node_types[0].nics->transfers.reset();
  EXPECT_EQ(us_of(within_only, shape), us_of(plain, shape));
  // Cards were measured on one switch, which is not what a core of several makes of them.
  ClusterSpec leaves = cluster_with_exchanges(2, 2);
  leaves.network.nodes_per_leaf = 1;
  EXPECT_LT(us_of(leaves, shape), 0.1 * us_of(cluster_with_exchanges(2, 2), shape));
}

// A flow that takes longer than its links would leaves room on them; one that is faster than what
// the file says of them does not hold itself up.
TEST(MeasuredExchange, TakesAsLongInMessagesAndAmongOthers) {
  for (const double us : {0.001, 0.5, 100.0}) {
    ClusterSpec cluster = cluster_with_exchanges(2, 2);
    cluster.node_types[0].fabrics[0].transfers = curves(us / 10);
    cluster.node_types[0].nics->transfers = curves(us);
    const Topology topology(cluster);
    for (const OpKind kind : {OpKind::all_reduce, OpKind::all_gather, OpKind::gather}) {
      const CollectiveShape shape = exchange_shape(kind, 4, 400'000);
      const CommCost cost = collective_cost(topology, shape).value();
      ActivityGraph whole;
      whole.add(whole.add_work(to_sim_time(cost.latency), to_sim_time(cost.transfer), cost.uses),
                {});
      const ActivityTimes alone = run_by_events(whole, topology.capacities());
      EXPECT_FALSE(alone.has_slowed);
      ActivityGraph messages;
      const ExpandedCollective expanded =
          expand_collective(topology, shape, cost, messages).value();
      messages.append(expanded.pattern, {});
      EXPECT_NEAR(static_cast<double>(run_by_events(messages, topology.capacities()).end.ns),
                  static_cast<double>(alone.end.ns),
                  static_cast<double>(expansion_rounding(expanded).ns));
    }
  }
}

}  // namespace
}  // namespace weir
