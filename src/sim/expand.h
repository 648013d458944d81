#pragma once
// A collective as the messages of its algorithm, for those who want to see them meet on links one
// by one. What sim/collectives.h states for the whole is spread over the messages, so alone the
// messages take the same time but for rounding up to nanoseconds (`expansion_rounding`).
//
//   ring            2(n-1) or n-1 steps, in each of which every member sends to the next
//   (all_to_all:
//                   to one after the other; gather: one by one to the root). Each ring of a rail
//                   goes on by itself. Broadcast and reduce stream along the ring: a member passes
//                   on what still arrives, a step behind.
//   tree            every edge of both trees streams, a step behind those that it waits for.
//   hierarchical    rings within nodes, rings or streams between them, rings within nodes again.
//   direct,         every pair at once, and once more where the collective has two passes.
//   one_shot, two_shot
//   in_switch       stays one activity over the links of all members.
//
// A member begins a step when it is done with the one before. Messages of one step are as fast as
// the link allows that carries most of them, so a collective never holds itself up.

#include <vector>

#include "base/result.h"
#include "sim/activities.h"
#include "sim/collectives.h"

namespace weir {

struct ExpandedCollective {
  ActivityPattern pattern;       // The first activity begins when all members have come.
  std::vector<ActivityId> ends;  // By member: with what it is done.
  std::int64_t num_steps = 0;    // One after the other.
};

// `cost` is that of `shape`. Adds the works of the pattern to `graph`. Fails where the cost would
// have failed, and where there may be more messages than kMostActivities.
[[nodiscard]] Result<ExpandedCollective> expand_collective(const Topology& topology,
                                                           const CollectiveShape& shape,
                                                           const CommCost& cost,
                                                           ActivityGraph& graph);

// The most that the messages can take longer, or less, than `to_sim_time` of latency and transfer,
// when nothing is shared: launch, and latency and transfer of each step, are rounded up by less
// than a nanosecond each, and so are the two of the whole.
[[nodiscard]] SimTime expansion_rounding(const ExpandedCollective& expanded);

}  // namespace weir
