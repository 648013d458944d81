#pragma once
// What each op needs to find on its own device. These rules are what makes a compute node
// executable: the validator checks them for every piece, the executor and the cost model rely on
// them.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace weir {

// Whether these are the roles of an op's inputs and outputs; some ops come in several forms.
[[nodiscard]] bool has_signature(OpKind kind, const ModelSpec& model, std::span<const Role> inputs,
                                 std::span<const Role> outputs);

// Every way in which the node's devices lack what their output pieces need, or a communication op
// does not match what its layouts say. The node's roles must fit a signature. Depends only on kind
// and layouts, not on layer.
[[nodiscard]] std::vector<std::string> locality_problems(const Plan& plan, const Node& node);

// Which input has the rows that an output of qkv_proj, ffn_up or lm_head is made of: one each for
// the first outputs (q of the last rows and k), the last one for all others.
[[nodiscard]] std::size_t input_of_rows(const Node& node, std::size_t output);

// The key/value heads that query heads [begin, end) use: [begin / (N/G), ceil(end / (N/G))).
[[nodiscard]] Interval kv_heads_of(const ModelSpec& model, Interval q_heads);

}  // namespace weir
