#include "spec/cluster.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

using nlohmann::json;

// Two kinds of nodes, every key in use.
json mixed() {
  return json::parse(R"({
    "name": "mixed",
    "device_types": {
      "big": {"kind": "gpu", "memory_gib": 80, "memory_gb_per_s": 3350.1, "l1_kib": 256,
              "shared_memory_kib": 228, "l2_mib": 50, "l2_gb_per_s": 8986.3,
              "matrix_tflops": {"bf16": 989.4, "f16": 989.4}, "vector_tflops": {"f32": 66.9},
              "num_cores": 132, "clock_ghz": 1.83, "launch_latency_us": 2.3, "idle_watts": 70,
              "max_watts": 700, "usd_per_hour": 3.1, "sources": {"memory_gib": "a datasheet"}},
      "cores": {"kind": "cpu", "memory_gib": 16, "l3_mib": 32, "l3_gb_per_s": 200, "l3_devices": 2}
    },
    "node_types": [
      {"name": "gpus", "count": 2, "devices": [{"type": "big", "count": 4}],
       "fabrics": [{"kind": "nvlink", "gb_per_s": 300, "latency_us": 1.7, "group_size": 2},
                   {"kind": "pcie", "gb_per_s": 31.5, "shared_gb_per_s": 100}],
       "nics": {"per": "node", "count": 2, "gb_per_s": 25, "latency_us": 3.3},
       "host": {"memory_gib": 512, "memory_gb_per_s": 400, "num_cores": 64,
                "device_gb_per_s": 31.5, "device_latency_us": 9.1,
                "step_latency_us": 60, "short_step_latency_us": 2, "short_step_us": 1000}},
      {"name": "cpus", "devices": [{"type": "cores", "count": 2, "cpus": [[0, 1], [2, 3]],
                                    "numa_nodes": [0, 1]}],
       "fabrics": [{"kind": "shared_memory",
                    "transfers": {"messages": [{"bytes": 2048, "us": 1.3}]}}],
       "nics": {"per": "device",
                "transfers": {"exchanges": [{"members": 2,
                                             "times": [{"bytes": 2048, "us": 70}]}]}}}
    ],
    "network": {"oversubscription": 2.5, "nodes_per_leaf": 2, "core_latency_us": 0.6}
  })");
}

std::string error_of(const json& document) {
  const auto cluster = cluster_from_json(document);
  return cluster ? "no error" : cluster.error().message;
}

TEST(ClusterFromJson, ReadsEveryFigureInItsUnit) {
  const auto cluster = cluster_from_json(mixed());
  ASSERT_TRUE(cluster) << cluster.error().message;
  const DeviceType& big = cluster->device_types.at(0);
  EXPECT_EQ(big.name, "big");
  EXPECT_EQ(big.kind, DeviceKind::gpu);
  EXPECT_EQ(big.memory.value, 80LL << 30);
  EXPECT_DOUBLE_EQ(big.memory_bandwidth->value, 3350.1e9);
  EXPECT_EQ(big.l1->value, 256 << 10);
  EXPECT_EQ(big.shared_memory->value, 228 << 10);
  EXPECT_EQ(big.l2->value, 50 << 20);
  EXPECT_EQ(big.l3, std::nullopt);
  EXPECT_DOUBLE_EQ(big.matrix_flops.of(DType::bf16)->value, 989.4e12);
  EXPECT_EQ(big.matrix_flops.of(DType::f32), std::nullopt);
  EXPECT_DOUBLE_EQ(big.vector_flops.of(DType::f32)->value, 66.9e12);
  EXPECT_EQ(big.num_cores, 132);
  EXPECT_EQ(big.clock_ghz, 1.83);
  EXPECT_DOUBLE_EQ(big.launch_latency->value, 2.3e-6);
  EXPECT_EQ(big.idle_watts, 70);
  EXPECT_EQ(big.max_watts, 700);
  EXPECT_EQ(big.usd_per_hour, 3.1);
  EXPECT_EQ(big.sources, (Sources{{"memory_gib", "a datasheet"}}));
  EXPECT_EQ(big.l3_devices, std::nullopt);
  EXPECT_EQ(cluster->device_types.at(1).l3_devices, 2);

  const NodeType& gpus = cluster->node_types.at(0);
  EXPECT_DOUBLE_EQ(gpus.fabrics.at(1).shared_bandwidth->value, 100e9);
  EXPECT_EQ(gpus.nics->owner, NicOwner::node);
  EXPECT_EQ(gpus.nics->count, 2);
  EXPECT_DOUBLE_EQ(gpus.nics->latency->value, 3.3e-6);
  EXPECT_EQ(gpus.host.memory->value, 512LL << 30);
  EXPECT_DOUBLE_EQ(gpus.host.device_bandwidth->value, 31.5e9);
  EXPECT_EQ(cluster->network.oversubscription, 2.5);
  EXPECT_EQ(cluster->network.nodes_per_leaf, 2);
}

TEST(ClusterFromJson, ReadsWhatTransfersWereMeasuredToTake) {
  const auto cluster = cluster_from_json(mixed());
  ASSERT_TRUE(cluster) << cluster.error().message;
  const NodeType& cpus = cluster->node_types.at(1);
  EXPECT_EQ(cpus.fabrics.at(0).transfers,
            (MeasuredTransfers{.messages = {{.bytes = 2048, .us = 1.3}}, .exchanges = {}}));
  EXPECT_EQ(cpus.nics->transfers->exchanges.at(0).times.at(0).us, 70);
  EXPECT_EQ(cluster->node_types.at(0).nics->transfers, std::nullopt);
}

// They are times of an executor that GPUs do not run.
TEST(ClusterFromJson, RefusesMeasuredTransfersBetweenGpus) {
  json document = mixed();
  const json transfers = document["node_types"][1]["nics"]["transfers"];
  document["node_types"][0]["fabrics"][1]["transfers"] = transfers;
  document["node_types"][0]["nics"]["transfers"] = transfers;
  EXPECT_EQ(error_of(document),
            "cluster.node_types[0].fabrics[1].transfers: found beside GPUs, allowed between CPU "
            "devices only; "
            "cluster.node_types[0].nics.transfers: found beside GPUs, allowed between CPU devices "
            "only");
}

TEST(ClusterFromJson, ListsNodesAndDevicesInTheOrderWritten) {
  const auto cluster = cluster_from_json(mixed());
  ASSERT_TRUE(cluster) << cluster.error().message;
  ASSERT_EQ(cluster->devices.size(), 10U);
  ASSERT_EQ(cluster->nodes.size(), 3U);
  EXPECT_EQ(cluster->nodes[1], (ClusterNode{.name = "gpus1", .type = 0}));
  EXPECT_EQ(cluster->nodes[2], (ClusterNode{.name = "cpus", .type = 1}));
  EXPECT_EQ(cluster->devices[5],
            (Device{.id = DeviceId{5}, .node = 1, .place = 1, .type = 0, .name = "gpus1/gpu1"}));
  EXPECT_EQ(cluster->device(DeviceId{9}), (Device{.id = DeviceId{9},
                                                  .node = 2,
                                                  .place = 1,
                                                  .type = 1,
                                                  .name = "cpus/cpu1",
                                                  .cpus = {2, 3},
                                                  .numa_node = 1}));
  EXPECT_EQ(cluster->type_of(DeviceId{9}).name, "cores");
  EXPECT_EQ(cluster->node_type_of(DeviceId{9}).name, "cpus");
}

TEST(ClusterToJson, IsReadBackIntoAnEqualCluster) {
  const auto cluster = cluster_from_json(mixed());
  ASSERT_TRUE(cluster) << cluster.error().message;
  EXPECT_EQ(cluster_from_json(cluster_to_json(*cluster)), cluster);
  // What was written is what is written again, down to the last digit.
  json written = cluster_to_json(*cluster);
  json expected = mixed();
  expected["node_types"][1]["count"] = 1;
  expected["node_types"][1]["nics"]["count"] = 1;
  EXPECT_EQ(written, expected);
}

TEST(FabricBetween, IsTheFirstThatJoinsBoth) {
  const auto cluster = cluster_from_json(mixed());
  ASSERT_TRUE(cluster) << cluster.error().message;
  const auto kind_between = [&](std::uint32_t a, std::uint32_t b) {
    const Fabric* fabric = fabric_between(*cluster, DeviceId{a}, DeviceId{b});
    return fabric == nullptr ? "none" : to_string(fabric->kind);
  };
  EXPECT_EQ(kind_between(0, 1), "nvlink");
  EXPECT_EQ(kind_between(1, 2), "pcie");
  EXPECT_EQ(kind_between(2, 3), "nvlink");
  EXPECT_EQ(kind_between(3, 4), "none");  // Different nodes.
  EXPECT_EQ(kind_between(4, 5), "nvlink");
  EXPECT_EQ(kind_between(5, 5), "none");
  EXPECT_EQ(kind_between(8, 9), "shared_memory");
}

TEST(ClusterFromJson, ListsEveryProblemAtOnce) {
  json document = mixed();
  document.erase("name");
  document["device_types"]["big"]["memory_gib"] = -80;
  document["device_types"]["big"]["l2_mib"] = "50";
  document["device_types"]["big"]["matrix_tflops"]["fp8"] = 1979;
  document["device_types"]["big"]["idle_watts"] = 800;
  document["device_types"]["big"]["sources"]["price"] = "a friend";
  document["device_types"]["cores"]["kind"] = "tpu";
  document["node_types"][0]["devices"][0]["type"] = "small";
  document["node_types"][0]["fabrics"][0]["group_size"] = 1;
  document["node_types"][0]["nics"]["per"] = "rack";
  document["node_types"][1]["devices"][0]["cpus"] = json::parse("[[0, 1], [-1]]");
  document["node_types"][1]["name"] = "gpus";
  document["network"]["oversubscription"] = 0.5;
  document["colour"] = "green";
  EXPECT_EQ(
      error_of(document),
      "cluster.name: missing, allowed a string; "
      "cluster.device_types.big.memory_gib: found -80, allowed a number in 1e-06..1000000; "
      "cluster.device_types.big.l2_mib: found \"50\", allowed a number in 1e-06..1000000; "
      "cluster.device_types.big.matrix_tflops.fp8: unknown key; "
      "cluster.device_types.big.sources.price: found a source for a figure that is not given; "
      "cluster.device_types.big.idle_watts: found 800, allowed at most max_watts (700); "
      "cluster.device_types.cores.kind: found \"tpu\", allowed one of: gpu, cpu; "
      "cluster.node_types[0].devices[0].type: found \"small\", allowed one of: big, cores; "
      "cluster.node_types[0].fabrics[0].group_size: found 1, allowed an integer in 2..65536; "
      "cluster.node_types[0].nics.per: found \"rack\", allowed one of: device, node; "
      "cluster.node_types[1].devices[0].cpus[1]: found an array of 1, allowed a non-empty array of "
      "integers in 0..1048576; "
      "cluster.node_types[1].devices[0].cpus: found for a GPU, allowed for devices of kind cpu; "
      "cluster.node_types[1].fabrics[0].transfers: found beside GPUs, allowed between CPU "
      "devices only; "
      "cluster.node_types[1].nics.transfers: found beside GPUs, allowed between CPU devices "
      "only; "
      "cluster.network.oversubscription: found 0.5, allowed a number in 1..10000; "
      "cluster.node_types: found two of the name \"gpus\", allowed different names; "
      "cluster.colour: unknown key");
}

TEST(ClusterFromJson, RefusesAClusterOfNothing) {
  EXPECT_EQ(error_of(json::parse(R"({"name": "n", "device_types": {}, "node_types": []})")),
            "cluster.device_types: found an object, allowed an object of 1 to 256 device types by "
            "name; cluster.node_types: found 0 node types, allowed 1 to 256");
  json document = mixed();
  document["node_types"][0]["devices"] = json::array();
  EXPECT_EQ(error_of(document),
            "cluster.node_types[0].devices: found 0 groups of devices, allowed 1 to 256");
}

TEST(ClusterFromJson, RefusesMoreDevicesThanItCanCount) {
  json document = mixed();
  document["node_types"][0]["count"] = 65536;
  document["node_types"][0]["devices"][0]["count"] = 65536;
  EXPECT_EQ(error_of(document),
            "cluster.node_types: found 65537 nodes, allowed at most 65536; "
            "cluster.node_types: found 4294967298 devices, allowed at most 65536");
}

TEST(ClusterFromJson, WantsNetworkCardsWhereThereAreSeveralNodes) {
  json document = mixed();
  document["node_types"][1].erase("nics");
  EXPECT_EQ(error_of(document),
            "cluster.node_types[1].nics: missing, allowed an object where there are several nodes");
}

TEST(ClusterFromJson, WantsOneListOfCpusAndOneNumaNodePerDevice) {
  json document = mixed();
  document["node_types"][1]["devices"][0]["count"] = 3;
  EXPECT_EQ(error_of(document),
            "cluster.node_types[1].devices[0].cpus: found an array of 2, allowed an array of 3 "
            "arrays of CPU numbers, one per device; "
            "cluster.node_types[1].devices[0].numa_nodes: found 2 entries, allowed one per device "
            "(3)");
}

TEST(Catalogue, LoadsEveryClusterWithASourceForEveryFigure) {
  EXPECT_EQ(cluster_catalogue(), (std::vector<std::string_view>{"a100-pcie-80gb", "a100-sxm-80gb",
                                                                "h100-sxm", "h200-sxm"}));
  // What says how things are arranged rather than how fast they are needs no source.
  const Sources arrangement{{"kind", ""}, {"per", ""}, {"count", ""}, {"sources", ""}};
  const auto expect_sources = [&](const json& object) {
    for (const auto& [key, unused] : object.items()) {
      EXPECT_TRUE(arrangement.contains(key) || object["sources"].contains(key)) << key;
    }
  };
  for (const std::string_view name : cluster_catalogue()) {
    SCOPED_TRACE(name);
    const auto cluster = load_cluster(std::string(name));
    ASSERT_TRUE(cluster) << cluster.error().message;
    EXPECT_EQ(cluster->name, name);
    EXPECT_EQ(cluster->devices.size(), 8U);
    const json document = cluster_to_json(*cluster);
    const json& node = document["node_types"][0];
    for (const json& type : document["device_types"]) expect_sources(type);
    for (const json& fabric : node["fabrics"]) expect_sources(fabric);
    expect_sources(node["nics"]);
    expect_sources(node["host"]);
    expect_sources(document["network"]);
  }
}

TEST(Catalogue, KeepsTheDatasheetsRatioOfComputeToBandwidth) {
  const auto cluster = load_cluster("h100-sxm");
  ASSERT_TRUE(cluster) << cluster.error().message;
  const DeviceType& h100 = cluster->device_types.front();
  EXPECT_NEAR(h100.matrix_flops.bf16->value / h100.memory_bandwidth->value, 295.3, 0.1);
  // 132 SMs, 4096 dense bf16 operations per clock each.
  EXPECT_NEAR(132 * 4096 * *h100.clock_ghz * 1e9 / h100.matrix_flops.bf16->value, 1, 1e-3);
}

TEST(LoadCluster, TakesCountsBehindTheName) {
  const auto two = load_cluster("h100-sxm:2");
  ASSERT_TRUE(two) << two.error().message;
  EXPECT_EQ(two->name, "h100-sxm:2");
  EXPECT_EQ(two->nodes.size(), 2U);
  EXPECT_EQ(two->devices.size(), 16U);
  const auto four = load_cluster("a100-sxm-80gb:1x4");
  ASSERT_TRUE(four) << four.error().message;
  EXPECT_EQ(four->name, "a100-sxm-80gb:1x4");
  EXPECT_EQ(four->nodes.size(), 1U);
  EXPECT_EQ(four->devices.size(), 4U);
  EXPECT_EQ(cluster_from_json(cluster_to_json(*four)), four);
}

TEST(LoadCluster, RefusesCountsOutOfRange) {
  EXPECT_EQ(load_cluster("h100-sxm:0").error().message,
            "cluster h100-sxm: found 0 nodes of 8 devices, allowed 1 to 65536 devices in all");
  EXPECT_EQ(load_cluster("h100-sxm:65536x65536").error().message,
            "cluster h100-sxm: found 65536 nodes of 65536 devices, allowed 1 to 65536 devices in "
            "all");
}

TEST(LoadCluster, NamesWhatItCouldHaveLoaded) {
  const std::string allowed =
      ", allowed local, a path to a JSON file, or one of: a100-pcie-80gb, a100-sxm-80gb, h100-sxm, "
      "h200-sxm";
  EXPECT_EQ(load_cluster("h100").error().message, "cluster: found \"h100\"" + allowed);
  EXPECT_EQ(load_cluster("").error().message, "cluster: found \"\"" + allowed);
  for (const std::string what : {"h100-sxm:", "h100-sxm:x", "h100-sxm:2x", "h100-sxm:-2",
                                 "h100-sxm:2x4x", "h100-sxm:99999999999999999999"}) {
    EXPECT_EQ(load_cluster(what).error().message, "cluster: found \"" + what + "\"" + allowed);
  }
  EXPECT_EQ(load_cluster("/nonexistent.json").error().message,
            "/nonexistent.json: cannot be opened for reading");
}

TEST(LoadCluster, ReadsAPath) {
  const std::string path =
      (std::filesystem::path(testing::TempDir()) / "weir_cluster_read_from_a_path.json").string();
  std::ofstream(path) << mixed().dump();
  EXPECT_EQ(load_cluster(path), cluster_from_json(mixed()));
  EXPECT_EQ(load_cluster(path + ":2").error().message,
            "cluster " + path +
                ": found counts behind the name, allowed only for one node type with one device "
                "type");
  std::ofstream(path) << "{}";
  EXPECT_TRUE(load_cluster(path).error().message.starts_with(path + ": cluster.name: missing"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace weir
