#pragma once
// For tests that take a valid plan and break it: what to break, and how problems name it.

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "plan/validate.h"

namespace weir {

using Problems = std::vector<std::string>;

inline Problems problems_in(const Plan& plan) {
  const auto valid = validate(plan);
  return valid ? Problems{} : valid.error();
}

struct Place {
  std::int32_t layer = 0;
  std::int32_t microbatch = 0;
  std::size_t skip = 0;  // How many that fit come before it.
};

inline NodeId node_at(const Plan& plan, OpKind kind, Place place = {}) {
  for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
    const Node& node = plan.nodes[i];
    if (node.kind != kind || node.layer != place.layer || node.microbatch != place.microbatch)
      continue;
    if (place.skip-- == 0) return static_cast<NodeId>(i);
  }
  ADD_FAILURE() << "the plan has no such " << to_string(kind);
  return NodeId{};
}

inline Node& at(Plan& plan, NodeId id) { return plan.nodes[index_of(id)]; }
inline Value& at(Plan& plan, ValueId id) { return plan.values[index_of(id)]; }

inline std::string name(const Plan& plan, NodeId id) {
  const Node& node = plan.at(id);
  return fmt::format("node {} ({}, layer {}, microbatch {})", index_of(id), to_string(node.kind),
                     node.layer, node.microbatch);
}

inline std::string name(const Plan& plan, ValueId id) {
  const Value& value = plan.at(id);
  return fmt::format("value {} ({}, layer {}, microbatch {})", index_of(id), to_string(value.role),
                     value.layer, value.microbatch);
}

// A copy of the value's layout, for this value alone.
inline Layout& own_layout(Plan& plan, ValueId id) {
  plan.layouts.push_back(plan.layout_of(id));
  at(plan, id).layout = static_cast<LayoutId>(plan.layouts.size() - 1);
  return plan.layouts.back();
}

}  // namespace weir
