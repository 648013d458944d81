#pragma once
// What CPU devices take to send each other, read off the curves that `weir calibrate` has measured
// between them (spec/measured_transfers.h), where the cluster has any: on a fabric of their node,
// and on the network cards of nodes under one switch.
//
// An exchange over several nodes does both at once: within each node, and on its cards what all of
// its members send to other nodes together. The slowest of these decides.

#include <optional>
#include <span>
#include <vector>

#include "sim/topology.h"

namespace weir {

// A message between two different devices that nobody else disturbs; nullopt: not measured.
[[nodiscard]] std::optional<Seconds> measured_message(const Topology& topology, DeviceId from,
                                                      DeviceId to, double bytes);

// Every member sends every other `bytes` at once. `by_node`: see members_by_node(); two members at
// least. nullopt where any part of it was not measured.
[[nodiscard]] std::optional<Seconds> measured_exchange(
    const Topology& topology, std::span<const std::vector<DeviceId>> by_node, double bytes);

// Collectives of just such groups, if they were measured: of a node, or of one member on each.
// `curves`: all_reduces, reduce_scatters or all_gathers.
[[nodiscard]] std::optional<Seconds> measured_collective(
    const Topology& topology, std::span<const std::vector<DeviceId>> by_node,
    std::vector<GroupCurve> MeasuredTransfers::*curves, double bytes);

// Every other member sends the root `bytes` at once. The root gets them as it would get all of it
// from one member in an exchange: they come together, whereas who gets a message has mostly waited.
[[nodiscard]] std::optional<Seconds> measured_gather(const Topology& topology,
                                                     std::span<const std::vector<DeviceId>> by_node,
                                                     DeviceId root, double bytes);

}  // namespace weir
