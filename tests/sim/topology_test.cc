#include "sim/topology.h"

#include <gtest/gtest.h>

#include "clusters_for_tests.h"

namespace weir {
namespace {

TEST(Topology, ARouteWithinANodeTakesBothPorts) {
  const Topology topology(round_cluster(1, 4));
  const auto there = topology.route(DeviceId{0}, DeviceId{1});
  const auto back = topology.route(DeviceId{1}, DeviceId{0});
  ASSERT_TRUE(there.has_value());
  ASSERT_EQ(there->links.size(), 2U);
  EXPECT_EQ(there->hop, HopKind::shared_memory);
  EXPECT_EQ(there->latency.value, 1e-6);
  EXPECT_EQ(topology.capacity(there->links[0]).value, 10e9);
  EXPECT_NE(there->links[0], back->links[1]) << "ports are full-duplex";
  EXPECT_TRUE(topology.route(DeviceId{2}, DeviceId{2})->links.empty());
}

TEST(Topology, NodesTalkThroughTheirCards) {
  const Topology topology(round_cluster(2, 2));
  const auto route = topology.route(DeviceId{1}, DeviceId{2});
  ASSERT_TRUE(route.has_value());
  EXPECT_EQ(route->hop, HopKind::network);
  EXPECT_EQ(route->links.size(), 2U);
  EXPECT_LT(topology.capacity(route->links[0]).value, 1e9) << "headers take their part";
}

TEST(Topology, ALeafWithAnOversubscribedUplinkIsOnTheWay) {
  ClusterSpec cluster = round_cluster(4, 2);
  cluster.network.nodes_per_leaf = 2;
  cluster.network.oversubscription = 4;
  cluster.network.core_latency = Seconds{5e-6};
  const Topology topology(cluster);
  const auto near = topology.route(DeviceId{0}, DeviceId{2});
  const auto far = topology.route(DeviceId{0}, DeviceId{4});
  EXPECT_EQ(near->links.size(), 2U);
  ASSERT_EQ(far->links.size(), 4U);
  EXPECT_DOUBLE_EQ(far->latency.value, near->latency.value + 5e-6);
  // Two nodes of two cards over four.
  EXPECT_DOUBLE_EQ(topology.capacity(far->links[1]).value, topology.capacity(far->links[0]).value);
}

TEST(Topology, SharedBusesArePerGroup) {
  ClusterSpec cluster = round_cluster(1, 4);
  cluster.node_types[0].fabrics[0].shared_bandwidth = BytesPerSecond{12e9};
  cluster.node_types[0].fabrics[0].group_size = 2;
  const Topology topology(cluster);
  const auto first = topology.route(DeviceId{0}, DeviceId{1});
  const auto second = topology.route(DeviceId{2}, DeviceId{3});
  ASSERT_EQ(first->links.size(), 3U);
  EXPECT_NE(first->links[1], second->links[1]);
  EXPECT_EQ(topology.capacity(first->links[1]).value, 12e9);
}

TEST(Topology, NamesTheFigureThatAWayLacks) {
  ClusterSpec cluster = round_cluster(2, 2);
  cluster.node_types[0].fabrics[0].bandwidth = {};
  cluster.node_types[0].nics = {};
  const Topology topology(cluster);
  EXPECT_EQ(topology.route(DeviceId{0}, DeviceId{1}).error().message,
            "node type node: fabric shared_memory: found no gb_per_s, allowed a rate");
  EXPECT_NE(topology.route(DeviceId{0}, DeviceId{2}).error().message.find("nics"),
            std::string::npos);
  cluster.node_types[0].fabrics.clear();
  EXPECT_NE(Topology(cluster)
                .route(DeviceId{0}, DeviceId{1})
                .error()
                .message.find("host device_gb_per_s"),
            std::string::npos);
}

}  // namespace
}  // namespace weir
