#pragma once
// Plans as JSON: the exchange format between Weir's commands and with programs that are not Weir.
// docs/plan-format.md describes it completely. Writing is deterministic; reading back gives an
// equal plan.
//
// Reading checks form: types, names, and that every id lies in its table, so that whoever gets the
// plan may index without looking. Whether the plan makes sense is `validate`'s question.

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "plan/plan.h"

namespace weir {

inline constexpr std::string_view kPlanFormat = "weir-plan";
// Raised when a reader of the previous version would misread a plan.
inline constexpr std::int64_t kPlanFormatVersion = 2;

// Limits of what is read. A plan of 128 layers, 64 microbatches and 32 ops a layer has 2^18 nodes.
inline constexpr std::size_t kMaxPlanDevices = std::size_t{1} << 16;
inline constexpr std::size_t kMaxPlanRequests = std::size_t{1} << 16;
inline constexpr std::size_t kMaxPlanLayouts = std::size_t{1} << 20;
inline constexpr std::size_t kMaxPlanPieces = std::size_t{1} << 16;  // Of one layout.
inline constexpr std::size_t kMaxPlanGroups = std::size_t{1} << 20;
inline constexpr std::size_t kMaxPlanValues = std::size_t{1} << 24;
inline constexpr std::size_t kMaxPlanNodes = std::size_t{1} << 24;
inline constexpr std::size_t kMaxNodeValues = 16;  // Inputs, and outputs, of one node.

// The plan's model is one that its architecture can be (see config_of).
[[nodiscard]] nlohmann::json plan_to_json(const Plan& plan);
// The same as text, for people and for diffs: one device, group, layout, value and node per line.
[[nodiscard]] std::string plan_to_json_text(const Plan& plan);

// The error begins with `source` and lists every problem.
[[nodiscard]] Result<Plan> plan_from_json(const nlohmann::json& json, std::string_view source);

}  // namespace weir
