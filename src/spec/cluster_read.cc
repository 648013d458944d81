#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "spec/cluster.h"
#include "spec/cluster_units.h"

namespace weir {
namespace {

using nlohmann::json;

// Wide enough for any machine, narrow enough that a slip of units shows and nothing overflows.
constexpr NumberLimits kGigabytesPerSecondLimits{.min = 1e-6, .max = 1e6};
constexpr NumberLimits kTeraflopsLimits{.min = 1e-6, .max = 1e6};
constexpr NumberLimits kMicroseconds{.min = 0, .max = 1e7};
constexpr NumberLimits kMemoryGib{.min = 1e-6, .max = 1e6};
constexpr NumberLimits kCacheMib{.min = 1e-6, .max = 1e6};
constexpr NumberLimits kCacheKib{.min = 1, .max = 1e6};
constexpr NumberLimits kWatts{.min = 0, .max = 1e6};
constexpr NumberLimits kDollars{.min = 0, .max = 1e6};
constexpr NumberLimits kGigahertz{.min = 1e-3, .max = 100};
constexpr IntegerLimits kCores{.min = 1, .max = 1 << 20};
constexpr IntegerLimits kCpuNumbers{.min = 0, .max = 1 << 20};
constexpr std::size_t kMaxTypes = 256;  // Of devices, of nodes, of groups in a node.

Bytes to_bytes(double amount, double unit) { return {std::llround(amount * unit)}; }

std::optional<Bytes> read_bytes(ObjectReader& reader, std::string_view key, double unit,
                                NumberLimits limits) {
  const auto amount = reader.optional_number(key, limits);
  return amount ? std::optional(to_bytes(*amount, unit)) : std::nullopt;
}

std::optional<BytesPerSecond> read_bandwidth(ObjectReader& reader, std::string_view key) {
  const auto rate = reader.optional_number(key, kGigabytesPerSecondLimits);
  return rate ? std::optional(BytesPerSecond{*rate * kGigabytesPerSecond}) : std::nullopt;
}

std::optional<Seconds> read_latency(ObjectReader& reader, std::string_view key) {
  const auto latency = reader.optional_number(key, kMicroseconds);
  return latency ? std::optional(Seconds{*latency / kMicrosecondsPerSecond}) : std::nullopt;
}

PeakFlops read_flops(ObjectReader& parent, std::string_view key) {
  if (!parent.has(key)) return {};
  ObjectReader reader = parent.object(key);
  const auto rate = [&](std::string_view dtype) -> std::optional<FlopsPerSecond> {
    const auto value = reader.optional_number(dtype, kTeraflopsLimits);
    return value ? std::optional(FlopsPerSecond{*value * kTeraflops}) : std::nullopt;
  };
  const PeakFlops flops{.f32 = rate("f32"), .bf16 = rate("bf16"), .f16 = rate("f16")};
  reader.refuse_unknown_keys();
  return flops;
}

Sources read_sources(ObjectReader& reader) {
  Sources sources;
  if (!reader.has("sources")) return sources;
  ObjectReader written = reader.object("sources");
  const json& object = reader.raw("sources");
  if (!object.is_object()) return sources;
  for (const auto& [key, unused] : object.items()) {
    sources[key] = written.string(key);
    if (!reader.has(key)) written.problem(key, "found a source for a figure that is not given");
  }
  return sources;
}

DeviceType read_device_type(ObjectReader reader, const std::string& name) {
  constexpr std::array<std::string_view, 2> kKinds{"gpu", "cpu"};
  DeviceType type{.name = name};
  type.kind = std::array{DeviceKind::gpu, DeviceKind::cpu}[reader.choice("kind", kKinds)];
  type.memory = to_bytes(reader.number("memory_gib", kMemoryGib), kGib);
  type.memory_bandwidth = read_bandwidth(reader, "memory_gb_per_s");
  type.l1 = read_bytes(reader, "l1_kib", kKib, kCacheKib);
  type.shared_memory = read_bytes(reader, "shared_memory_kib", kKib, kCacheKib);
  type.l2 = read_bytes(reader, "l2_mib", kMib, kCacheMib);
  type.l2_bandwidth = read_bandwidth(reader, "l2_gb_per_s");
  type.l3 = read_bytes(reader, "l3_mib", kMib, kCacheMib);
  type.l3_bandwidth = read_bandwidth(reader, "l3_gb_per_s");
  type.l3_devices = reader.optional_integer("l3_devices", kCores);
  type.matrix_flops = read_flops(reader, "matrix_tflops");
  type.vector_flops = read_flops(reader, "vector_tflops");
  type.num_cores = reader.optional_integer("num_cores", kCores);
  type.clock_ghz = reader.optional_number("clock_ghz", kGigahertz);
  type.launch_latency = read_latency(reader, "launch_latency_us");
  type.idle_watts = reader.optional_number("idle_watts", kWatts);
  type.max_watts = reader.optional_number("max_watts", kWatts);
  type.usd_per_hour = reader.optional_number("usd_per_hour", kDollars);
  if (reader.has("kernels")) type.kernels = read_measured_kernels(reader.object("kernels"));
  if (type.kernels && type.kind != DeviceKind::cpu)
    reader.problem("kernels", "found in a GPU, allowed in CPU device types only");
  type.sources = read_sources(reader);
  if (type.idle_watts && type.max_watts && *type.idle_watts > *type.max_watts) {
    reader.problem("idle_watts", fmt::format("found {}, allowed at most max_watts ({})",
                                             *type.idle_watts, *type.max_watts));
  }
  reader.refuse_unknown_keys();
  return type;
}

std::vector<DeviceType> read_device_types(ObjectReader& cluster,
                                          std::vector<std::string>& problems) {
  std::vector<DeviceType> types;
  const json& object = cluster.raw("device_types");
  if (!object.is_object() || object.empty() || object.size() > kMaxTypes) {
    cluster.problem("device_types",
                    fmt::format("found {}, allowed an object of 1 to {} device types by name",
                                object.is_null() ? "nothing" : shown(object), kMaxTypes));
    return types;
  }
  for (const auto& [name, value] : object.items()) {
    const std::string path = fmt::format("{}.device_types.{}", cluster.path(), name);
    if (name.empty()) problems.push_back(path + ": found an empty name");
    types.push_back(read_device_type(ObjectReader(value, path, problems), name));
  }
  return types;
}

std::vector<std::vector<std::int64_t>> read_cpus(ObjectReader& reader, std::int64_t count) {
  std::vector<std::vector<std::int64_t>> cpus;
  const json& lists = reader.raw("cpus");
  if (lists.is_null()) return cpus;
  if (!lists.is_array() || std::cmp_not_equal(lists.size(), count)) {
    reader.problem("cpus", fmt::format("found {}, allowed an array of {} arrays of CPU numbers, "
                                       "one per device",
                                       shown(lists), count));
    return cpus;
  }
  for (std::size_t i = 0; i < lists.size(); ++i) {
    const auto is_cpu_number = [](const json& value) {
      return value.is_number_integer() && value >= kCpuNumbers.min && value <= kCpuNumbers.max;
    };
    if (lists[i].is_array() && !lists[i].empty() && std::ranges::all_of(lists[i], is_cpu_number)) {
      cpus.push_back(lists[i].get<std::vector<std::int64_t>>());
    } else {
      reader.problem(fmt::format("cpus[{}]", i),
                     fmt::format("found {}, allowed a non-empty array of integers in {}..{}",
                                 shown(lists[i]), kCpuNumbers.min, kCpuNumbers.max));
    }
  }
  return cpus;
}

DeviceGroup read_device_group(ObjectReader& reader, const std::vector<DeviceType>& types) {
  std::vector<std::string_view> names(types.size());
  std::ranges::transform(types, names.begin(), &DeviceType::name);
  DeviceGroup group{.type = reader.choice("type", names)};
  group.count =
      reader.optional_integer("count", {.min = 1, .max = kMaxDevices}).value_or(group.count);
  group.cpus = read_cpus(reader, group.count);
  if (!group.cpus.empty() && !types.empty() && types[group.type].kind != DeviceKind::cpu) {
    reader.problem("cpus", "found for a GPU, allowed for devices of kind cpu");
  }
  if (reader.has("numa_nodes")) {
    group.numa_nodes = reader.integers("numa_nodes", {.min = 0, .max = 1 << 16});
    if (std::cmp_not_equal(group.numa_nodes.size(), group.count)) {
      reader.problem("numa_nodes", fmt::format("found {} entries, allowed one per device ({})",
                                               group.numa_nodes.size(), group.count));
    }
  }
  reader.refuse_unknown_keys();
  return group;
}

std::optional<MeasuredTransfers> read_transfers(ObjectReader& parent) {
  if (!parent.has("transfers")) return {};
  return read_measured_transfers(parent.object("transfers"));
}

Fabric read_fabric(ObjectReader& reader) {
  constexpr std::array<std::string_view, 4> kKinds{"nvlink", "nvswitch", "pcie", "shared_memory"};
  constexpr std::array kKindOf{FabricKind::nvlink, FabricKind::nvswitch, FabricKind::pcie,
                               FabricKind::shared_memory};
  Fabric fabric{.kind = kKindOf[reader.choice("kind", kKinds)]};
  fabric.bandwidth = read_bandwidth(reader, "gb_per_s");
  fabric.latency = read_latency(reader, "latency_us");
  fabric.shared_bandwidth = read_bandwidth(reader, "shared_gb_per_s");
  fabric.group_size = reader.optional_integer("group_size", {.min = 2, .max = kMaxDevices});
  fabric.transfers = read_transfers(reader);
  fabric.sources = read_sources(reader);
  reader.refuse_unknown_keys();
  return fabric;
}

Nics read_nics(ObjectReader reader) {
  constexpr std::array<std::string_view, 2> kOwners{"device", "node"};
  Nics nics{.owner = std::array{NicOwner::device, NicOwner::node}[reader.choice("per", kOwners)]};
  nics.count = reader.optional_integer("count", {.min = 1, .max = 1024}).value_or(nics.count);
  nics.bandwidth = read_bandwidth(reader, "gb_per_s");
  nics.latency = read_latency(reader, "latency_us");
  nics.transfers = read_transfers(reader);
  nics.sources = read_sources(reader);
  reader.refuse_unknown_keys();
  return nics;
}

Host read_host(ObjectReader reader) {
  Host host{.memory = read_bytes(reader, "memory_gib", kGib, kMemoryGib),
            .memory_bandwidth = read_bandwidth(reader, "memory_gb_per_s"),
            .num_cores = reader.optional_integer("num_cores", kCores),
            .device_bandwidth = read_bandwidth(reader, "device_gb_per_s"),
            .device_latency = read_latency(reader, "device_latency_us"),
            .step_latency = read_latency(reader, "step_latency_us"),
            .short_step_latency = read_latency(reader, "short_step_latency_us"),
            .short_step = read_latency(reader, "short_step_us"),
            .sources = read_sources(reader)};
  reader.refuse_unknown_keys();
  return host;
}

// They are times of Weir's own executor, which runs on CPU devices.
void refuse_transfers(ObjectReader& reader, const NodeType& node) {
  constexpr std::string_view kProblem = "found beside GPUs, allowed between CPU devices only";
  for (std::size_t i = 0; i < node.fabrics.size(); ++i) {
    if (node.fabrics[i].transfers)
      reader.problem(fmt::format("fabrics[{}].transfers", i), std::string(kProblem));
  }
  if (node.nics && node.nics->transfers) reader.problem("nics.transfers", std::string(kProblem));
}

NodeType read_node_type(ObjectReader& reader, const std::vector<DeviceType>& types) {
  NodeType node{.name = reader.string("name")};
  if (reader.has("name") && node.name.empty()) reader.problem("name", "found an empty name");
  node.count = reader.optional_integer("count", {.min = 1, .max = kMaxNodes}).value_or(node.count);
  std::vector<ObjectReader> groups = reader.objects("devices");
  if (groups.empty() || groups.size() > kMaxTypes) {
    reader.problem("devices", fmt::format("found {} groups of devices, allowed 1 to {}",
                                          groups.size(), kMaxTypes));
    groups.clear();
  }
  for (ObjectReader& group : groups) node.devices.push_back(read_device_group(group, types));
  if (reader.has("fabrics")) {
    for (ObjectReader& fabric : reader.objects("fabrics")) {
      node.fabrics.push_back(read_fabric(fabric));
    }
  }
  if (reader.has("nics")) node.nics = read_nics(reader.object("nics"));
  if (reader.has("host")) node.host = read_host(reader.object("host"));
  const bool is_cpu = std::ranges::all_of(node.devices, [&](const DeviceGroup& group) {
    return group.type < types.size() && types[group.type].kind == DeviceKind::cpu;
  });
  if (!is_cpu) refuse_transfers(reader, node);
  reader.ignore("fabrics");
  reader.ignore("nics");
  reader.ignore("host");
  reader.refuse_unknown_keys();
  return node;
}

Network read_network(ObjectReader reader) {
  Network network;
  network.oversubscription = reader.optional_number("oversubscription", {.min = 1, .max = 1e4})
                                 .value_or(network.oversubscription);
  network.nodes_per_leaf = reader.optional_integer("nodes_per_leaf", {.min = 1, .max = kMaxNodes});
  network.core_latency = read_latency(reader, "core_latency_us");
  network.sources = read_sources(reader);
  reader.refuse_unknown_keys();
  return network;
}

void check_counts(ObjectReader& reader, const ClusterSpec& cluster) {
  std::int64_t num_nodes = 0;
  std::int64_t num_devices = 0;
  std::set<std::string_view> names;
  for (const NodeType& node : cluster.node_types) {
    num_nodes += node.count;
    for (const DeviceGroup& group : node.devices) num_devices += node.count * group.count;
    if (!names.insert(node.name).second) {
      reader.problem("node_types", fmt::format("found two of the name {}, allowed different names",
                                               shown(json(node.name))));
    }
  }
  if (num_nodes > kMaxNodes) {
    reader.problem("node_types",
                   fmt::format("found {} nodes, allowed at most {}", num_nodes, kMaxNodes));
  }
  if (num_devices > kMaxDevices) {
    reader.problem("node_types",
                   fmt::format("found {} devices, allowed at most {}", num_devices, kMaxDevices));
  }
  for (std::size_t i = 0; num_nodes > 1 && i < cluster.node_types.size(); ++i) {
    if (!cluster.node_types[i].nics) {
      reader.problem(fmt::format("node_types[{}].nics", i),
                     "missing, allowed an object where there are several nodes");
    }
  }
}

}  // namespace

Result<ClusterSpec> cluster_from_json(const json& document) {
  std::vector<std::string> problems;
  ObjectReader reader(document, "cluster", problems);
  ClusterSpec cluster{.name = reader.string("name")};
  if (reader.has("name") && cluster.name.empty()) reader.problem("name", "found an empty name");
  cluster.device_types = read_device_types(reader, problems);
  std::vector<ObjectReader> node_types = reader.objects("node_types");
  if (node_types.empty() || node_types.size() > kMaxTypes) {
    reader.problem("node_types", fmt::format("found {} node types, allowed 1 to {}",
                                             node_types.size(), kMaxTypes));
    node_types.clear();
  }
  for (ObjectReader& node_type : node_types) {
    cluster.node_types.push_back(read_node_type(node_type, cluster.device_types));
  }
  if (reader.has("network")) cluster.network = read_network(reader.object("network"));
  reader.ignore("network");
  check_counts(reader, cluster);
  reader.refuse_unknown_keys();
  if (!problems.empty()) return invalid_input(join_problems(problems));
  list_devices(cluster);
  return cluster;
}

}  // namespace weir
