#pragma once
// The links of a cluster and the way that a message takes over them. Every device has a full-duplex
// port into each fabric of its node, one to the host, and network cards of its own or its node's;
// a fabric may have a bus that its transfers share, a leaf of the fat tree an uplink. Links are
// one-directional and numbered; what a link carries at most is its capacity.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "spec/cluster.h"

namespace weir {

enum class LinkId : std::uint32_t {};

// Slowest kind of link on the way.
enum class HopKind : std::uint8_t { local, nvlink, shared_memory, pcie, network };

struct Route {
  std::vector<LinkId> links;    // Empty for a device with itself.
  Seconds latency = {};         // Of one small message, beyond what the software costs.
  bool latency_stated = false;  // By the cluster file; otherwise a default of the hop's kind.
  HopKind hop = HopKind::local;
};

class Topology {
 public:
  // Figures are missed only when a route needs them. `cluster` is copied.
  explicit Topology(ClusterSpec cluster);

  // Fails where nothing joins the two or a figure on the way is not stated, naming it.
  [[nodiscard]] Result<Route> route(DeviceId from, DeviceId to) const;
  // What a link of a route can carry: its stated rate times what the protocol leaves of it.
  [[nodiscard]] BytesPerSecond capacity(LinkId link) const { return {capacity_[index_of(link)]}; }
  // By link, bytes per second.
  [[nodiscard]] std::span<const double> capacities() const { return capacity_; }
  // Whether messages between different pairs of devices can meet on it; other links belong to one
  // device.
  [[nodiscard]] bool is_shared(LinkId link) const { return shared_[index_of(link)]; }
  [[nodiscard]] std::size_t num_links() const { return capacity_.size(); }
  [[nodiscard]] const ClusterSpec& cluster() const { return cluster_; }

 private:
  struct NodeLinks {
    std::uint32_t first_port = 0;    // Then out and in of fabric f of device d.
    std::uint32_t first_host = 0;    // Then out and in of device d.
    std::uint32_t first_nic = 0;     // Then out and in of each owner.
    std::uint32_t first_shared = 0;  // Then one for each group of each fabric.
  };
  std::uint32_t add(double bytes_per_second, bool shared);
  void add_node(const NodeType& type);
  void add_leaves();
  [[nodiscard]] Result<Route> within_node(const Device& from, const Device& to) const;
  [[nodiscard]] Result<Route> between_nodes(const Device& from, const Device& to) const;
  [[nodiscard]] Result<std::uint32_t> nic_of(const Device& device) const;

  ClusterSpec cluster_;
  std::vector<double> capacity_;  // Both by link.
  std::vector<bool> shared_;
  std::vector<NodeLinks> nodes_;
  std::uint32_t first_leaf_ = 0;  // Then up and down of each leaf.
};

}  // namespace weir
