#pragma once
// A plan as a picture: Graphviz DOT of its DAG, for `dot -Tsvg`. A box is a compute op, an ellipse
// a communication op; the fill says what class of op it is, the border which devices it runs on.
// An edge is a tensor with its role and the shape of what one device holds of it, in symbols
// (q_len, kv_len). Layers are frames; the residual stream is drawn bold.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace weir {

// Plans of at most this many layers are drawn whole by default.
inline constexpr std::int64_t kMostLayersDrawn = 8;

struct DotOptions {
  // The layers to draw; each run of others becomes one node. Default: all, or the first two and the
  // last where there are more than kMostLayersDrawn.
  std::optional<std::vector<std::int32_t>> layers = {};
  // Draws only what this device does, with its own shapes.
  std::optional<DeviceId> device = {};
  bool legend = true;
};

// The plan's ids lie in their tables; it need not be valid otherwise, so that broken plans can be
// looked at.
[[nodiscard]] std::string plan_to_dot(const Plan& plan, const DotOptions& options = {});

// Devices as people write them: "0-7", "0-3,8".
[[nodiscard]] std::string to_string(const std::vector<DeviceId>& ascending);

}  // namespace weir
