#pragma once
// What a collective costs on a topology: the algorithms of the field, and of those the fastest, as
// a library would choose. For a group of n members and S bytes:
//
//   ring            2(n-1) steps and 2(n-1)/n S sent by each for all_reduce, half for all_gather
//   and
//                   reduce_scatter; as many rings as a node has members, so that all cards are
//                   used. Source: Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms", JPDC
//                   2009.
//   tree            2 log2(n) steps, two binary trees of S/2 each, every device inner in one only.
//                   Source: Sanders, Speck, Traeff, "Two-tree algorithms for full bandwidth
//                   broadcast, reduction and scan", Parallel Computing 2009; NCCL 2.4.
//   hierarchical    reduce_scatter within nodes, all_reduce of S/local between, all_gather within.
//   direct          every pair sends its part at once: one step.
//   switch          the switch adds (NVLS): S up and S down. Within one NVSwitch domain.
//   one_shot,       kernels that read peers' memory; (n-1) S, or 2(n-1)/n S in two steps, with the
//   two_shot        least launch. Within one NVLink domain, up to kCustomAllReduceLimit.
//
// CPU devices with measured kernels exchange as Weir's executor does: one_shot or direct, in the
// time that was measured between them (sim/measured_exchange.h).
//
// Within an NVLink domain, rings come in NCCL's three protocols, each with its own latency and
// efficiency (sim/calibration.h); NCCL's rings of fewer than 8 GPUs leave the packed protocol above
// packed_limit. Elsewhere a step costs the hop's latency and bytes take the time of the link that
// carries most.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "plan/plan.h"
#include "sim/topology.h"

namespace weir {

enum class CollectiveAlgorithm : std::uint8_t {
  none,  // Nothing to send.
  ring,
  tree,
  hierarchical,
  direct,
  in_switch,
  one_shot,
  two_shot,
};
[[nodiscard]] std::string_view to_string(CollectiveAlgorithm algorithm);

// `bytes` is what the group holds together (layout/redistribute.h): the buffer that is reduced, the
// gathered result, the whole of what an all_to_all permutes (n times the size of nccl-tests).
struct CollectiveShape {
  OpKind kind = OpKind::all_reduce;
  std::vector<DeviceId> members;  // Ascending.
  DeviceId root{};                // broadcast, gather, reduce.
  std::int64_t bytes = 0;

  bool operator==(const CollectiveShape&) const = default;
};

struct CollectiveOptions {
  bool custom_all_reduce = true;  // one_shot and two_shot may be chosen,
  bool library = true;  // and the library's algorithms (always where nothing else does it).
};

struct LinkUse {
  LinkId link{};
  double bytes = 0;  // With what the protocol adds to them.
};

// What the algorithm's steps make of a cost; the rest is the same for each of them (sim/expand.h).
struct CommSteps {
  Seconds launch = {};            // Of the latency, what passes before the first step.
  Seconds between_latency = {};   // Of the latency and of the transfer, what hierarchical steps
  Seconds between_transfer = {};  // between nodes take.
  double wire_bytes = 1;          // That the protocol sends for each byte of data.
};

// First `latency`, in which links are idle, then `transfer`, when nobody else uses them.
struct CommCost {
  CollectiveAlgorithm algorithm = CollectiveAlgorithm::none;
  Seconds latency = {};
  Seconds transfer = {};
  std::vector<LinkUse> uses;  // During the transfer; each link once.
  CommSteps steps = {};
  [[nodiscard]] Seconds total() const { return latency + transfer; }
};

// How often a ring goes round for a collective, and whether each step moves an n-th of the buffer
// or all of it, streamed from member to member.
struct RingSteps {
  double passes = 1;
  bool divided = true;
};
[[nodiscard]] RingSteps ring_steps(OpKind kind);

// The members, which are ascending, of each node of the cluster that has any.
[[nodiscard]] std::vector<std::vector<DeviceId>> members_by_node(const Topology& topology,
                                                                 std::span<const DeviceId> members);

// Fails where members are not joined (Topology::route).
[[nodiscard]] Result<CommCost> collective_cost(const Topology& topology,
                                               const CollectiveShape& shape,
                                               const CollectiveOptions& options = {});

// One message from one device to another, as a library's send and recv do it.
[[nodiscard]] Result<CommCost> message_cost(const Topology& topology, DeviceId from, DeviceId to,
                                            std::int64_t bytes);

}  // namespace weir
