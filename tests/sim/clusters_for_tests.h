#pragma once
// Clusters with round figures, so that a test's expected times can be checked by hand.

#include <cstdint>
#include <utility>

#include "spec/cluster.h"

namespace weir {

// CPU devices of 1 TFLOP/s and 100 GB/s: `nodes` nodes of `per_node` on a shared-memory fabric of
// 10 GB/s per port and 1 us, one card of 1 GB/s and 10 us per device.
inline ClusterSpec round_cluster(std::int64_t nodes, std::int64_t per_node) {
  ClusterSpec cluster;
  cluster.name = "round";
  cluster.device_types.push_back({.name = "core",
                                  .kind = DeviceKind::cpu,
                                  .memory = {std::int64_t{64} << 30},
                                  .memory_bandwidth = BytesPerSecond{100e9},
                                  .vector_flops = {.f32 = FlopsPerSecond{1e12}},
                                  .launch_latency = Seconds{1e-6},
                                  .idle_watts = 10,
                                  .max_watts = 60,
                                  .usd_per_hour = 3.6});
  NodeType node{.name = "node", .count = nodes};
  node.devices.push_back({.type = 0, .count = per_node});
  node.fabrics.push_back({.kind = FabricKind::shared_memory,
                          .bandwidth = BytesPerSecond{10e9},
                          .latency = Seconds{1e-6}});
  node.nics = Nics{.owner = NicOwner::device,
                   .count = 1,
                   .bandwidth = BytesPerSecond{1e9},
                   .latency = Seconds{10e-6}};
  cluster.node_types.push_back(std::move(node));
  list_devices(cluster);
  return cluster;
}

}  // namespace weir
