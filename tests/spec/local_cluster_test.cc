#include "spec/local_cluster.h"

#include <sched.h>

#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

std::set<std::int64_t> cpus_of(const ClusterSpec& cluster) {
  std::set<std::int64_t> cpus;
  for (const Device& device : cluster.devices) cpus.insert(device.cpus.begin(), device.cpus.end());
  return cpus;
}

std::int64_t num_local_cores() {
  return local_cluster()->node_types.front().host.num_cores.value();
}

TEST(LocalCluster, IsOneDevicePerCoreOnCpusThatTheProcessMayUse) {
  const auto cluster = local_cluster();
  ASSERT_TRUE(cluster) << cluster.error().message;
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  ASSERT_GE(cluster->devices.size(), 1U);
  EXPECT_LE(cluster->devices.size(), static_cast<std::size_t>(CPU_COUNT(&allowed)));
  EXPECT_EQ(cpus_of(*cluster).size(), cluster->devices.size());
  for (const std::int64_t cpu : cpus_of(*cluster)) {
    EXPECT_TRUE(CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) << cpu;
  }
  const DeviceType& type = cluster->device_types.front();
  EXPECT_EQ(type.kind, DeviceKind::cpu);
  EXPECT_GT(type.memory.value, 0);
  EXPECT_EQ(type.matrix_flops, PeakFlops{});
  EXPECT_EQ(type.memory_bandwidth, std::nullopt);
}

TEST(LocalCluster, ShowsOnlyTheCpusThatTheProcessIsBoundTo) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  std::size_t last = 0;
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) last = CPU_ISSET(cpu, &before) ? cpu : last;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(last, &only);
  ASSERT_EQ(sched_setaffinity(0, sizeof(only), &only), 0);
  const auto cluster = local_cluster();
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  ASSERT_TRUE(cluster) << cluster.error().message;
  EXPECT_EQ(cpus_of(*cluster), std::set<std::int64_t>{static_cast<std::int64_t>(last)});
}

TEST(LocalCluster, TakesCoresInTurnWhenDevicesOutnumberThem) {
  const std::int64_t num_cores = num_local_cores();
  const auto cluster = local_cluster({.num_devices = 2 * num_cores + 1});
  ASSERT_TRUE(cluster) << cluster.error().message;
  ASSERT_EQ(cluster->devices.size(), static_cast<std::size_t>(2 * num_cores + 1));
  const auto cores = static_cast<std::size_t>(num_cores);
  EXPECT_EQ(cluster->devices[0].cpus, cluster->devices[cores].cpus);
  EXPECT_EQ(cluster->devices[0].cpus, cluster->devices[2 * cores].cpus);
  EXPECT_EQ(cpus_of(*cluster).size(), cores);
  EXPECT_EQ(cluster->devices[0].cpus.size(), 1U);
}

TEST(LocalCluster, SharesOutMemoryAndCores) {
  const auto whole = local_cluster({.num_devices = 1});
  const auto halves = local_cluster({.num_devices = 2});
  ASSERT_TRUE(whole && halves);
  EXPECT_EQ(static_cast<std::int64_t>(whole->devices[0].cpus.size()), num_local_cores());
  EXPECT_EQ(halves->device_types[0].memory.value, whole->device_types[0].memory.value / 2);
}

TEST(LocalCluster, CanBeWrittenAndReadBack) {
  const auto cluster = load_cluster("local:3x1");
  ASSERT_TRUE(cluster) << cluster.error().message;
  EXPECT_EQ(cluster->devices.size(), 3U);
  EXPECT_EQ(cluster_from_json(cluster_to_json(*cluster)), cluster);
}

TEST(LocalCluster, CanBeReadBackWithAsManyDevicesAsThereMayBe) {
  const auto cluster = local_cluster({.num_devices = kMaxDevices});
  ASSERT_TRUE(cluster) << cluster.error().message;
  EXPECT_EQ(cluster_from_json(cluster_to_json(*cluster)), cluster);
}

TEST(LocalCluster, RefusesImpossibleOptions) {
  const std::string cores = std::to_string(num_local_cores());
  const auto cluster = local_cluster({.num_devices = 0, .cores_per_device = 1'000'000});
  ASSERT_FALSE(cluster);
  EXPECT_EQ(cluster.error().message,
            "local.num_devices: found 0, allowed an integer in 1..65536; "
            "local.cores_per_device: found 1000000, allowed an integer in 1.." +
                cores + ", the cores of this machine");
}

}  // namespace
}  // namespace weir
