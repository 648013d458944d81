#pragma once
// Nodes of a plan that differ in nothing but their layer: they do the same, and cost the same.

#include <cstddef>

#include "plan/plan.h"

namespace weir {

[[nodiscard]] bool differ_in_layer_only(const Plan& plan, const Node& a, const Node& b);

// Equal for nodes that do.
[[nodiscard]] std::size_t hash_without_layer(const Plan& plan, const Node& node);

}  // namespace weir
