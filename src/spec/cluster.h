#pragma once
// What there is to compute on: device types with their figures, nodes that hold devices, and what
// joins them. Loaded from JSON (docs/cluster.md), from the built-in catalogue, or read off this
// machine (spec/local_cluster.h). Figures only; times are made of them in src/sim.
//
// A figure that nobody has stated or measured is nullopt, never 0. Rates are peaks, per direction
// where something moves. Each object carries `sources`: where a figure comes from, by JSON key.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/dtype.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "spec/measured_kernels.h"
#include "spec/measured_transfers.h"

namespace weir {

using Sources = std::map<std::string, std::string>;  // JSON key -> document.

enum class DeviceKind { gpu, cpu };

// Peak rate by the dtype of the operands; sums are kept in f32. f32 means f32 products: matrix
// units that round operands to TF32 do not have a rate here.
struct PeakFlops {
  std::optional<FlopsPerSecond> f32 = {};
  std::optional<FlopsPerSecond> bf16 = {};
  std::optional<FlopsPerSecond> f16 = {};

  [[nodiscard]] std::optional<FlopsPerSecond> of(DType dtype) const;
  bool operator==(const PeakFlops&) const = default;
};

struct DeviceType {
  std::string name = {};
  DeviceKind kind = DeviceKind::gpu;
  Bytes memory =
      {};  // What tensors can be kept in: HBM of a GPU, its share of RAM for a CPU device.
  std::optional<BytesPerSecond> memory_bandwidth = {};
  std::optional<Bytes> l1 = {};             // Per core or SM; on a GPU, shared memory included.
  std::optional<Bytes> shared_memory = {};  // Per SM: the most that blocks on it can use together.
  std::optional<Bytes> l2 = {};  // Of the whole device: its share where devices share a cache.
  std::optional<BytesPerSecond> l2_bandwidth = {};
  std::optional<Bytes> l3 = {};
  std::optional<BytesPerSecond> l3_bandwidth = {};
  std::optional<std::int64_t> l3_devices =
      {};                       // That share one L3, side by side; else each its own.
  PeakFlops matrix_flops = {};  // Tensor cores, AMX.
  PeakFlops vector_flops = {};
  std::optional<std::int64_t> num_cores = {};  // SMs of a GPU.
  std::optional<double> clock_ghz = {};        // The clock at which the peaks are stated.
  std::optional<Seconds> launch_latency = {};  // Between two dependent kernels.
  std::optional<double> idle_watts = {};
  std::optional<double> max_watts = {};
  std::optional<double> usd_per_hour = {};
  std::optional<MeasuredKernels> kernels = {};  // CPU devices.
  Sources sources = {};

  bool operator==(const DeviceType&) const = default;
};

// Joins devices of a node: each has one full-duplex port of `bandwidth` into it. A node lists its
// fabrics by preference: two devices talk over the first that joins both.
enum class FabricKind { nvlink, nvswitch, pcie, shared_memory };
struct Fabric {
  FabricKind kind = FabricKind::pcie;
  std::optional<BytesPerSecond> bandwidth = {};  // Of one device's port, per direction.
  std::optional<Seconds> latency = {};
  // All transfers together, per group: a root complex, a memory bus. nullopt: the ports alone
  // limit.
  std::optional<BytesPerSecond> shared_bandwidth = {};
  // Only consecutive devices in groups of this size are joined (bridged pairs: 2). nullopt: all.
  std::optional<std::int64_t> group_size = {};
  std::optional<MeasuredTransfers> transfers = {};  // Between CPU devices.
  Sources sources = {};

  bool operator==(const Fabric&) const = default;
};

// Network cards, full-duplex: `count` for each device, or `count` that a node's devices share.
enum class NicOwner { device, node };
struct Nics {
  NicOwner owner = NicOwner::device;
  std::int64_t count = 1;
  std::optional<BytesPerSecond> bandwidth = {};     // Of one card, per direction.
  std::optional<Seconds> latency = {};              // One way between two nodes on one switch.
  std::optional<MeasuredTransfers> transfers = {};  // Between CPU devices of different nodes.
  Sources sources = {};

  bool operator==(const Nics&) const = default;
};

struct Host {
  std::optional<Bytes> memory = {};
  std::optional<BytesPerSecond> memory_bandwidth = {};
  std::optional<std::int64_t> num_cores = {};
  std::optional<BytesPerSecond> device_bandwidth = {};  // Host to one device, per direction.
  std::optional<Seconds> device_latency = {};
  std::optional<Seconds> step_latency = {};        // What a step takes beside its tasks,
  std::optional<Seconds> short_step_latency = {};  // and one that takes up to `short_step`, which
  std::optional<Seconds> short_step = {};          // finds what it needs in the caches.
  Sources sources = {};

  bool operator==(const Host&) const = default;
};

// Equal devices of a node. CPU devices may say which cores they are, one list per device.
struct DeviceGroup {
  std::size_t type = 0;  // Index into ClusterSpec::device_types.
  std::int64_t count = 1;
  std::vector<std::vector<std::int64_t>> cpus = {};  // OS CPU numbers; empty: not pinned.
  std::vector<std::int64_t> numa_nodes = {};         // One per device; empty: not known.

  bool operator==(const DeviceGroup&) const = default;
};

struct NodeType {
  std::string name = {};
  std::int64_t count = 1;
  std::vector<DeviceGroup> devices = {};
  std::vector<Fabric> fabrics = {};
  std::optional<Nics> nics = {};
  Host host = {};

  bool operator==(const NodeType&) const = default;
};

// A fat tree: leaf switches with nodes_per_leaf nodes (nullopt: one switch holds all), above them a
// core that carries 1 / oversubscription of what a leaf's nodes can send.
struct Network {
  double oversubscription = 1;
  std::optional<std::int64_t> nodes_per_leaf = {};
  std::optional<Seconds> core_latency = {};  // Added where a transfer leaves its leaf.
  Sources sources = {};

  bool operator==(const Network&) const = default;
};

struct ClusterNode {
  std::string name = {};  // The type's name, numbered where there are several.
  std::size_t type = 0;   // Index into ClusterSpec::node_types.

  bool operator==(const ClusterNode&) const = default;
};

struct Device {
  DeviceId id = {};
  std::size_t node = 0;                 // Index into ClusterSpec::nodes.
  std::size_t place = 0;                // Among the devices of its node.
  std::size_t type = 0;                 // Index into ClusterSpec::device_types.
  std::string name = {};                // "node/gpu3".
  std::vector<std::int64_t> cpus = {};  // OS CPU numbers that it may use; empty: not pinned.
  std::optional<std::int64_t> numa_node = {};

  bool operator==(const Device&) const = default;
};

// Invariant (kept by everything that returns one): `nodes` and `devices` are what `node_types` say,
// devices[i].id is i, nodes and their devices in the order written.
struct ClusterSpec {
  std::string name = {};
  std::vector<DeviceType> device_types = {};
  std::vector<NodeType> node_types = {};
  Network network = {};
  std::vector<ClusterNode> nodes = {};
  std::vector<Device> devices = {};

  [[nodiscard]] const Device& device(DeviceId id) const { return devices.at(index_of(id)); }
  [[nodiscard]] const DeviceType& type_of(DeviceId id) const {
    return device_types.at(device(id).type);
  }
  [[nodiscard]] const NodeType& node_type_of(DeviceId id) const {
    return node_types.at(nodes.at(device(id).node).type);
  }

  bool operator==(const ClusterSpec&) const = default;
};

inline constexpr std::int64_t kMaxNodes = 1 << 16;
inline constexpr std::int64_t kMaxDevices = 1 << 16;

[[nodiscard]] std::string_view to_string(DeviceKind kind);
[[nodiscard]] std::string_view to_string(FabricKind kind);
[[nodiscard]] std::string_view to_string(NicOwner owner);

// Makes `nodes` and `devices` anew from `node_types`, after those have been changed.
void list_devices(ClusterSpec& cluster);

// The fabric over which two devices of one node talk; nullptr on different nodes, for a device with
// itself, and where nothing joins them (then they talk through the host).
[[nodiscard]] const Fabric* fabric_between(const ClusterSpec& cluster, DeviceId a, DeviceId b);

// Reads the format of docs/cluster.md. The error lists every problem at once.
[[nodiscard]] Result<ClusterSpec> cluster_from_json(const nlohmann::json& json);
// cluster_from_json reads it back into an equal cluster.
[[nodiscard]] nlohmann::json cluster_to_json(const ClusterSpec& cluster);

// `what` is a name of the catalogue, a path to a JSON file, or `local` (this machine). A suffix
// changes the counts of a cluster of one node type and one device type: ":2" is two nodes, ":2x4"
// two nodes of four devices. For `local`, ":4" is four devices and ":4x2" four of two cores each.
[[nodiscard]] Result<ClusterSpec> load_cluster(const std::string& what);

// The clusters that are built in, under the names that load_cluster takes.
[[nodiscard]] std::vector<std::string_view> cluster_catalogue();

}  // namespace weir
