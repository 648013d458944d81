#pragma once
// What a redistribution moves once lengths are known: which part of which buffer goes into which.
// The executor copies by this list, the simulator sends by it, and the bytes that strategies are
// judged by are counted from it.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/plan.h"

namespace weir {

// A part of one request's tensor, from a buffer of an input to a buffer of the output (indices into
// buffers_of()).
struct Transfer {
  std::uint32_t output = 0;  // Which of the node's outputs it goes to,
  std::uint32_t input = 0;   // and from which of its inputs.
  std::uint32_t source = 0;  // Buffer of that input's layout.
  std::uint32_t target = 0;  // Buffer of the output's layout.
  DeviceId from{};
  DeviceId to{};
  ResolvedBox box;  // In the output's coordinates: positions where it counts positions.

  bool operator==(const Transfer&) const = default;
};

// For a slice or a communication node. Every part of every output buffer is covered: once by whole
// sources, however they overlap, once per partial term by partial ones, in the order in which terms
// are to be folded. Sources on the same device are preferred; replicas elsewhere are spread by the
// receiver's id. From partial to partial layouts, a target takes the terms that it says it holds.
[[nodiscard]] std::vector<Transfer> transfers_of(const Plan& plan, NodeId node,
                                                 const StepLengths& lengths);

// The members of a communication node that work together at these lengths: for each member, in the
// order of the node's group, itself and those that it sends data to or receives data from,
// ascending. Neither can finish before the other has come, whereas members that exchange nothing do
// not wait for each other, as the pairs of a copy between two pipeline stages.
[[nodiscard]] std::vector<std::vector<DeviceId>> partners_of(const Plan& plan, NodeId node,
                                                             const StepLengths& lengths);

// Bytes that a transfer carries (softmax partials with their lse; K and V both).
[[nodiscard]] std::int64_t bytes_of(const Plan& plan, const Node& node, const Transfer& transfer);

// Bytes of a box of a value, of all its requests: what a collective group holds together. Softmax
// partials count their lse.
[[nodiscard]] std::int64_t bytes_of_box(const Plan& plan, ValueId value, const Box& box,
                                        const StepLengths& lengths);

// Bytes that the node moves between different devices, all members together. Collectives count what
// the standard bandwidth-optimal algorithm sends: all_reduce 2 (n-1) S, reduce_scatter, all_gather,
// broadcast and reduce (n-1) S for a group of n that holds S bytes together; all_to_all, gather and
// copies what really crosses.
[[nodiscard]] std::int64_t bytes_sent(const Plan& plan, NodeId node, const StepLengths& lengths);

// How the executor reduces `bytes` over a group: everything to everybody at once, or each member
// its part, which it then hands round. Up to this size the time is that of the rounds, not of the
// bytes. Of two members either way sends as much, but in two rounds the sum takes the place of the
// terms, and is half as much work: 4 MB between two cores take 310 us for 670.
inline constexpr std::int64_t kOneShotAllReduce = 64 << 10;
[[nodiscard]] constexpr bool is_one_shot(std::size_t members, std::int64_t bytes) {
  return members < 2 || bytes <= kOneShotAllReduce;
}

}  // namespace weir
