#include "sim/layer_twins.h"

#include <algorithm>
#include <cstdint>

namespace weir {

bool differ_in_layer_only(const Plan& plan, const Node& a, const Node& b) {
  const auto same = [&](ValueId x, ValueId y) {
    return plan.at(x).layout == plan.at(y).layout && plan.at(x).role == plan.at(y).role;
  };
  return a.kind == b.kind && a.microbatch == b.microbatch && a.devices == b.devices &&
         std::ranges::equal(a.inputs, b.inputs, same) &&
         std::ranges::equal(a.outputs, b.outputs, same);
}

std::size_t hash_without_layer(const Plan& plan, const Node& node) {
  std::size_t seed = static_cast<std::size_t>(node.kind);
  const auto mix = [&seed](std::size_t value) {
    seed ^= value + 0x9E3779B97F4A7C15ULL + (seed << 6) + (seed >> 2);
  };
  mix(static_cast<std::size_t>(node.microbatch));
  mix(index_of(node.devices));
  for (const auto* list : {&node.inputs, &node.outputs}) {
    for (const ValueId id : *list) mix(index_of(plan.at(id).layout));
  }
  return seed;
}

}  // namespace weir
