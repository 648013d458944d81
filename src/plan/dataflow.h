#pragma once
// Whether the ops of a plan, put together, are the model: every op of every layer there once, and
// each reading what the model's previous op has written, however often it has been moved since. The
// validator asks this last of the structure; a plan that passes computes the model and nothing
// else.

#include <span>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace weir {

// Every op that is missing or there too often, and every op that reads another one's output than it
// should. Ops have the roles of their signatures; `producers` is the node that writes each value
// (nodes.size() where none does), `order` a topological order of the nodes.
[[nodiscard]] std::vector<std::string> dataflow_problems(const Plan& plan,
                                                         std::span<const NodeId> producers,
                                                         std::span<const NodeId> order);

// "node 7 (attention, layer 0, microbatch 1)", "value 3 (q, layer 0, microbatch 1)": how problems
// name them.
[[nodiscard]] std::string name_of(const Plan& plan, NodeId id);
[[nodiscard]] std::string name_of(const Plan& plan, ValueId id);

}  // namespace weir
