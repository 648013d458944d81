#pragma once
// Timelines as JSON, so that a run can be kept and reported on later. Tasks are written as columns
// (one array per field), which is about a quarter of the size of one object per task.

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "result/timeline.h"

namespace weir {

// Limits of what is read back, so that no sum over a timeline can overflow 64 bits.
inline constexpr std::int64_t kMaxTimelineNs = 1'000'000'000'000'000;  // 11.5 days.
inline constexpr std::size_t kMaxTimelineDevices = 4096;

[[nodiscard]] nlohmann::json timeline_to_json(const Timeline& timeline);

// Fails on missing, unknown or ill-typed fields, on columns of different lengths, beyond the limits
// above, and on whatever problems_of(Timeline) finds. Reads back what timeline_to_json wrote.
[[nodiscard]] Result<Timeline> timeline_from_json(const nlohmann::json& document);

}  // namespace weir
