#pragma once
// The shape of what a device holds of a value, in symbols: "[q_len, 8, 128]", "[4 x q_len/2,
// 4096]". For pictures and tables; lengths are not known when a plan is printed.

#include <optional>
#include <string>
#include <string_view>

#include "plan/plan.h"

namespace weir {

// One shape if all buffers (of `device`, where given) have the same; else the distinct ones,
// joined by " | ". Axes of one head are left out; "2 x q_len" are the tokens of two requests.
[[nodiscard]] std::string shape_text(const Plan& plan, const Value& value,
                                     std::optional<DeviceId> device = {});

// The length of a range in terms of the axis' extent `symbol`: "q_len", "q_len/8", "q_len - 4096",
// "1"; the range itself where there is no short form.
[[nodiscard]] std::string length_text(const Range& range, std::string_view symbol);

}  // namespace weir
