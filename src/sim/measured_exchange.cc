#include "sim/measured_exchange.h"

#include <algorithm>

namespace weir {
namespace {

const MeasuredTransfers* within_node(const ClusterSpec& cluster, DeviceId a, DeviceId b) {
  const Fabric* fabric = fabric_between(cluster, a, b);
  return fabric != nullptr && fabric->transfers ? &*fabric->transfers : nullptr;
}

// Measured between nodes on one switch.
const MeasuredTransfers* on_cards(const ClusterSpec& cluster, DeviceId device) {
  const std::optional<Nics>& nics = cluster.node_type_of(device).nics;
  const bool one_switch = !cluster.network.nodes_per_leaf;
  return one_switch && nics && nics->transfers ? &*nics->transfers : nullptr;
}

std::optional<Seconds> time_of(const MeasuredTransfers* transfers, std::size_t members,
                               double bytes) {
  if (transfers == nullptr) return {};
  return exchange_time(*transfers, members, bytes);
}

// The longest of some times, of which none may be missing.
class Slowest {
 public:
  void add(std::optional<Seconds> time) {
    if (!time) complete_ = false;
    if (time && *time > longest_) longest_ = *time;
  }
  [[nodiscard]] std::optional<Seconds> result() const {
    return complete_ ? std::optional(longest_) : std::nullopt;
  }

 private:
  bool complete_ = true;
  Seconds longest_ = {};
};

}  // namespace

std::optional<Seconds> measured_message(const Topology& topology, DeviceId from, DeviceId to,
                                        double bytes) {
  const ClusterSpec& cluster = topology.cluster();
  const auto time_on = [&](const MeasuredTransfers* transfers) {
    return transfers != nullptr ? std::optional(message_time(*transfers, bytes)) : std::nullopt;
  };
  if (cluster.device(from).node == cluster.device(to).node)
    return time_on(within_node(cluster, from, to));
  Slowest slowest;
  for (const DeviceId end : {from, to}) slowest.add(time_on(on_cards(cluster, end)));
  return slowest.result();
}

std::optional<Seconds> measured_exchange(const Topology& topology,
                                         std::span<const std::vector<DeviceId>> by_node,
                                         double bytes) {
  const ClusterSpec& cluster = topology.cluster();
  std::size_t all = 0;
  for (const auto& members : by_node) all += members.size();
  Slowest slowest;
  for (const auto& members : by_node) {
    if (members.size() > 1)
      slowest.add(time_of(within_node(cluster, members[0], members[1]), members.size(), bytes));
    if (by_node.size() == 1) continue;
    // As if its members were one, with a card each or with one together.
    const std::optional<Nics>& nics = cluster.node_type_of(members[0]).nics;
    const bool share = nics && nics->owner == NicOwner::node;
    const double senders = share ? static_cast<double>(members.size()) : 1;
    const double sent = senders * static_cast<double>(all - members.size()) * bytes;
    slowest.add(time_of(on_cards(cluster, members[0]), by_node.size(),
                        sent / static_cast<double>(by_node.size() - 1)));
  }
  return slowest.result();
}

std::optional<Seconds> measured_collective(const Topology& topology,
                                           std::span<const std::vector<DeviceId>> by_node,
                                           std::vector<GroupCurve> MeasuredTransfers::*curves,
                                           double bytes) {
  const ClusterSpec& cluster = topology.cluster();
  const auto time_on = [&](const MeasuredTransfers* transfers,
                           std::size_t members) -> std::optional<Seconds> {
    if (transfers == nullptr) return {};
    return collective_time(transfers->*curves, members, bytes);
  };
  if (by_node.size() == 1) {
    const auto& members = by_node.front();
    return time_on(within_node(cluster, members[0], members[1]), members.size());
  }
  Slowest slowest;
  for (const auto& members : by_node) {
    if (members.size() > 1) return {};
    slowest.add(time_on(on_cards(cluster, members[0]), by_node.size()));
  }
  return slowest.result();
}

std::optional<Seconds> measured_gather(const Topology& topology,
                                       std::span<const std::vector<DeviceId>> by_node,
                                       DeviceId root, double bytes) {
  const ClusterSpec& cluster = topology.cluster();
  const std::size_t home = cluster.device(root).node;
  Slowest slowest;
  double elsewhere = 0;
  for (const auto& members : by_node) {
    const auto count = static_cast<double>(members.size());
    if (cluster.device(members[0]).node != home) {
      elsewhere += count;
    } else if (members.size() > 1) {
      slowest.add(time_of(within_node(cluster, members[0], members[1]), 2, (count - 1) * bytes));
    }
  }
  if (elsewhere > 0) slowest.add(time_of(on_cards(cluster, root), 2, elsewhere * bytes));
  return slowest.result();
}

}  // namespace weir
