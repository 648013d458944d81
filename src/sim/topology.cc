#include "sim/topology.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"
#include "sim/calibration.h"

namespace weir {
namespace {

std::int64_t devices_of(const NodeType& type) {
  std::int64_t count = 0;
  for (const DeviceGroup& group : type.devices) count += group.count;
  return count;
}

std::int64_t groups_of(const Fabric& fabric, std::int64_t devices) {
  const std::int64_t size = fabric.group_size.value_or(devices);
  return (devices + size - 1) / std::max<std::int64_t>(size, 1);
}

double efficiency_of(FabricKind kind) {
  switch (kind) {
    case FabricKind::pcie:
      return kPcieEfficiency;
    case FabricKind::nvlink:  // What NCCL makes of NVLink is in its own constants.
    case FabricKind::nvswitch:
    case FabricKind::shared_memory:  // Stated as measured.
      break;
  }
  return 1;
}

HopKind hop_of(FabricKind kind) {
  switch (kind) {
    case FabricKind::nvlink:
    case FabricKind::nvswitch:
      return HopKind::nvlink;
    case FabricKind::shared_memory:
      return HopKind::shared_memory;
    case FabricKind::pcie:
      break;
  }
  return HopKind::pcie;
}

Seconds default_latency(HopKind hop) {
  switch (hop) {
    case HopKind::local:
    case HopKind::nvlink:  // The collective constants have it.
      return {};
    case HopKind::shared_memory:
      return kSharedMemoryLatency;
    case HopKind::pcie:
    case HopKind::network:
      break;
  }
  return kDefaultHopLatency;
}

double value_or_zero(const std::optional<BytesPerSecond>& rate) { return rate ? rate->value : 0; }

}  // namespace

Topology::Topology(ClusterSpec cluster) : cluster_(std::move(cluster)) {
  for (const ClusterNode& node : cluster_.nodes) add_node(cluster_.node_types[node.type]);
  add_leaves();
}

void Topology::add_leaves() {
  const Network& network = cluster_.network;
  first_leaf_ = static_cast<std::uint32_t>(capacity_.size());
  if (!network.nodes_per_leaf) return;
  const auto per_leaf = static_cast<std::size_t>(*network.nodes_per_leaf);
  for (std::size_t first = 0; first < cluster_.nodes.size(); first += per_leaf) {
    double sent = 0;
    for (std::size_t n = first; n < std::min(first + per_leaf, cluster_.nodes.size()); ++n) {
      const NodeType& type = cluster_.node_types[cluster_.nodes[n].type];
      if (!type.nics) continue;
      const std::int64_t owners = type.nics->owner == NicOwner::device ? devices_of(type) : 1;
      sent += static_cast<double>(owners * type.nics->count) * value_or_zero(type.nics->bandwidth) *
              kNicEfficiency;
    }
    for (int direction = 0; direction < 2; ++direction) add(sent / network.oversubscription, true);
  }
}

std::uint32_t Topology::add(double bytes_per_second, bool shared) {
  capacity_.push_back(bytes_per_second);
  shared_.push_back(shared);
  return static_cast<std::uint32_t>(capacity_.size() - 1);
}

void Topology::add_node(const NodeType& type) {
  const std::int64_t devices = devices_of(type);
  const auto next = [&] { return static_cast<std::uint32_t>(capacity_.size()); };
  NodeLinks links;
  links.first_port = next();
  for (std::int64_t d = 0; d < devices; ++d) {
    for (const Fabric& fabric : type.fabrics) {
      const double rate = value_or_zero(fabric.bandwidth) * efficiency_of(fabric.kind);
      for (int direction = 0; direction < 2; ++direction) add(rate, false);
    }
  }
  links.first_host = next();
  for (std::int64_t d = 0; d < devices; ++d) {
    const double rate = value_or_zero(type.host.device_bandwidth) * kPcieEfficiency;
    for (int direction = 0; direction < 2; ++direction) add(rate, false);
  }
  links.first_nic = next();
  if (type.nics) {
    const std::int64_t owners = type.nics->owner == NicOwner::device ? devices : 1;
    const double rate = static_cast<double>(type.nics->count) *
                        value_or_zero(type.nics->bandwidth) * kNicEfficiency;
    for (std::int64_t i = 0; i < 2 * owners; ++i) add(rate, owners == 1);
  }
  links.first_shared = next();
  for (const Fabric& fabric : type.fabrics) {
    for (std::int64_t g = 0; g < groups_of(fabric, devices); ++g)
      add(value_or_zero(fabric.shared_bandwidth) * efficiency_of(fabric.kind), true);
  }
  nodes_.push_back(links);
}

Result<Route> Topology::route(DeviceId from, DeviceId to) const {
  if (from == to) return Route{};
  const Device& a = cluster_.device(from);
  const Device& b = cluster_.device(to);
  return a.node == b.node ? within_node(a, b) : between_nodes(a, b);
}

Result<Route> Topology::within_node(const Device& from, const Device& to) const {
  const NodeType& type = cluster_.node_type_of(from.id);
  const NodeLinks& links = nodes_[from.node];
  const Fabric* fabric = fabric_between(cluster_, from.id, to.id);
  Route route;
  route.links.reserve(3);  // Or fewer: out, a bus, in.
  const auto take = [&](std::size_t link) { route.links.push_back(static_cast<LinkId>(link)); };
  if (fabric == nullptr) {
    if (value_or_zero(type.host.device_bandwidth) <= 0) {
      return invalid_input(fmt::format(
          "node type {}: found neither a fabric between {} and {} nor host device_gb_per_s, "
          "allowed one of them",
          type.name, from.name, to.name));
    }
    route.hop = HopKind::pcie;
    route.latency_stated = type.host.device_latency.has_value();
    route.latency = type.host.device_latency.value_or(default_latency(route.hop));
    take(links.first_host + 2 * from.place);
    take(links.first_host + 2 * to.place + 1);
    return route;
  }
  if (value_or_zero(fabric->bandwidth) <= 0) {
    return invalid_input(fmt::format("node type {}: fabric {}: found no gb_per_s, allowed a rate",
                                     type.name, to_string(fabric->kind)));
  }
  const auto f = static_cast<std::size_t>(fabric - type.fabrics.data());
  const std::size_t fabrics = type.fabrics.size();
  route.hop = hop_of(fabric->kind);
  route.latency_stated = fabric->latency.has_value();
  route.latency = fabric->latency.value_or(default_latency(route.hop));
  take(links.first_port + 2 * (from.place * fabrics + f));
  if (fabric->shared_bandwidth) {
    const std::int64_t devices = devices_of(type);
    std::int64_t bus = links.first_shared;
    for (std::size_t earlier = 0; earlier < f; ++earlier)
      bus += groups_of(type.fabrics[earlier], devices);
    bus += static_cast<std::int64_t>(from.place) / fabric->group_size.value_or(devices);
    take(static_cast<std::size_t>(bus));
  }
  take(links.first_port + 2 * (to.place * fabrics + f) + 1);
  return route;
}

Result<std::uint32_t> Topology::nic_of(const Device& device) const {
  const NodeType& type = cluster_.node_type_of(device.id);
  if (!type.nics || value_or_zero(type.nics->bandwidth) <= 0 || type.nics->count <= 0) {
    return invalid_input(
        fmt::format("node type {}: nics: found no gb_per_s, allowed a rate, as {} talks to another "
                    "node",
                    type.name, device.name));
  }
  const std::size_t owner = type.nics->owner == NicOwner::device ? device.place : 0;
  return static_cast<std::uint32_t>(nodes_[device.node].first_nic + 2 * owner);
}

Result<Route> Topology::between_nodes(const Device& from, const Device& to) const {
  const auto out = nic_of(from);
  if (!out) return tl::unexpected(out.error());
  const auto in = nic_of(to);
  if (!in) return tl::unexpected(in.error());
  const Network& network = cluster_.network;
  const Nics& nics = *cluster_.node_type_of(from.id).nics;
  Route route;
  route.hop = HopKind::network;
  route.latency_stated = nics.latency.has_value();
  route.latency = nics.latency.value_or(default_latency(route.hop));
  route.links.push_back(static_cast<LinkId>(*out));
  if (network.nodes_per_leaf) {
    const auto per_leaf = static_cast<std::size_t>(*network.nodes_per_leaf);
    const std::size_t leaf_out = from.node / per_leaf;
    const std::size_t leaf_in = to.node / per_leaf;
    if (leaf_out != leaf_in) {
      route.links.push_back(static_cast<LinkId>(first_leaf_ + 2 * leaf_out));
      route.links.push_back(static_cast<LinkId>(first_leaf_ + 2 * leaf_in + 1));
      if (network.core_latency) route.latency += *network.core_latency;
    }
  }
  route.links.push_back(static_cast<LinkId>(*in + 1));
  return route;
}

}  // namespace weir
