#include "spec/cluster.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "spec/catalogue.h"
#include "spec/local_cluster.h"

namespace weir {
namespace {

// "h100-sxm:2x4" in its parts.
struct ClusterName {
  std::string base;
  std::optional<std::int64_t> first;
  std::optional<std::int64_t> second;
};

// The digits at the front of `text`, which they leave. Values beyond 64 bits are no number.
std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || text.front() == '-') return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

// A colon that no counts follow belongs to the name: paths may hold colons.
ClusterName split_name(const std::string& what) {
  const std::size_t colon = what.rfind(':');
  if (colon == std::string::npos) return {.base = what, .first = {}, .second = {}};
  ClusterName whole{.base = what, .first = {}, .second = {}};
  std::string_view rest = what;
  rest.remove_prefix(colon + 1);
  ClusterName name{.base = what.substr(0, colon), .first = take_number(rest), .second = {}};
  if (!name.first) return whole;
  if (rest.empty()) return name;
  if (rest.front() != 'x') return whole;
  rest.remove_prefix(1);
  name.second = take_number(rest);
  return name.second && rest.empty() ? name : whole;
}

Result<ClusterSpec> with_counts(ClusterSpec cluster, const ClusterName& name) {
  if (cluster.node_types.size() != 1 || cluster.node_types.front().devices.size() != 1) {
    return invalid_input(fmt::format(
        "cluster {}: found counts behind the name, allowed only for one node type with one device "
        "type",
        name.base));
  }
  const std::int64_t num_nodes = *name.first;
  NodeType& node = cluster.node_types.front();
  const std::int64_t per_node = name.second.value_or(node.devices.front().count);
  if (num_nodes < 1 || num_nodes > kMaxNodes || per_node < 1 || per_node > kMaxDevices ||
      num_nodes * per_node > kMaxDevices) {
    return invalid_input(
        fmt::format("cluster {}: found {} nodes of {} devices, allowed 1 to {} devices in all",
                    name.base, num_nodes, per_node, kMaxDevices));
  }
  if (num_nodes > 1 && !node.nics) {
    return invalid_input(
        fmt::format("cluster {}: found {} nodes, allowed 1: node_types[0].nics is missing",
                    name.base, num_nodes));
  }
  node.count = num_nodes;
  DeviceGroup& group = node.devices.front();
  if (group.count != per_node) {
    // Pinning says which device is where; it is void for another number of devices.
    group.cpus.clear();
    group.numa_nodes.clear();
  }
  group.count = per_node;
  cluster.name +=
      name.second ? fmt::format(":{}x{}", num_nodes, per_node) : fmt::format(":{}", num_nodes);
  list_devices(cluster);
  return cluster;
}

Result<ClusterSpec> load_base(const std::string& base) {
  for (const CatalogueFile& file : catalogue_files()) {
    if (file.name == base) return parse_json(file.text, base).and_then(cluster_from_json);
  }
  std::error_code unreadable;
  const bool looks_like_path = base.find('/') != std::string::npos || base.ends_with(".json");
  if (!looks_like_path && !std::filesystem::exists(base, unreadable)) {
    return invalid_input(
        fmt::format("cluster: found {}, allowed local, a path to a JSON file, or one of: {}",
                    shown(nlohmann::json(base)), fmt::join(cluster_catalogue(), ", ")));
  }
  const auto document = read_json_file(base);
  if (!document) return tl::unexpected(document.error());
  auto cluster = cluster_from_json(*document);
  if (!cluster) return invalid_input(fmt::format("{}: {}", base, cluster.error().message));
  return cluster;
}

}  // namespace

std::optional<FlopsPerSecond> PeakFlops::of(DType dtype) const {
  switch (dtype) {
    case DType::f32:
      return f32;
    case DType::bf16:
      return bf16;
    case DType::f16:
      return f16;
  }
  return std::nullopt;
}

std::string_view to_string(DeviceKind kind) { return kind == DeviceKind::gpu ? "gpu" : "cpu"; }

std::string_view to_string(FabricKind kind) {
  switch (kind) {
    case FabricKind::nvlink:
      return "nvlink";
    case FabricKind::nvswitch:
      return "nvswitch";
    case FabricKind::pcie:
      return "pcie";
    case FabricKind::shared_memory:
      return "shared_memory";
  }
  return "unknown";
}

std::string_view to_string(NicOwner owner) { return owner == NicOwner::device ? "device" : "node"; }

void list_devices(ClusterSpec& cluster) {
  cluster.nodes.clear();
  cluster.devices.clear();
  for (std::size_t type = 0; type < cluster.node_types.size(); ++type) {
    const NodeType& node_type = cluster.node_types[type];
    for (std::int64_t copy = 0; copy < node_type.count; ++copy) {
      const std::string node_name =
          node_type.count == 1 ? node_type.name : fmt::format("{}{}", node_type.name, copy);
      std::size_t place = 0;
      for (const DeviceGroup& group : node_type.devices) {
        for (std::size_t i = 0; std::cmp_less(i, group.count); ++i, ++place) {
          const DeviceKind kind = cluster.device_types.at(group.type).kind;
          cluster.devices.push_back(
              {.id = DeviceId{static_cast<std::uint32_t>(cluster.devices.size())},
               .node = cluster.nodes.size(),
               .place = place,
               .type = group.type,
               .name = fmt::format("{}/{}{}", node_name, to_string(kind), place),
               .cpus = group.cpus.empty() ? std::vector<std::int64_t>() : group.cpus.at(i),
               .numa_node = group.numa_nodes.empty() ? std::nullopt
                                                     : std::optional(group.numa_nodes.at(i))});
        }
      }
      cluster.nodes.push_back({.name = node_name, .type = type});
    }
  }
}

const Fabric* fabric_between(const ClusterSpec& cluster, DeviceId a, DeviceId b) {
  const Device& from = cluster.device(a);
  const Device& to = cluster.device(b);
  if (a == b || from.node != to.node) return nullptr;
  for (const Fabric& fabric : cluster.node_type_of(a).fabrics) {
    if (!fabric.group_size) return &fabric;
    const auto size = static_cast<std::size_t>(*fabric.group_size);
    if (from.place / size == to.place / size) return &fabric;
  }
  return nullptr;
}

std::vector<std::string_view> cluster_catalogue() {
  std::vector<std::string_view> names;
  for (const CatalogueFile& file : catalogue_files()) names.push_back(file.name);
  return names;
}

Result<ClusterSpec> load_cluster(const std::string& what) {
  const ClusterName name = split_name(what);
  if (name.base == "local") {
    return local_cluster({.num_devices = name.first, .cores_per_device = name.second});
  }
  auto cluster = load_base(name.base);
  if (!cluster || !name.first) return cluster;
  return with_counts(*std::move(cluster), name);
}

}  // namespace weir
