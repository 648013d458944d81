#pragma once
// What `weir --version` says, and what ranks that run together must agree on.

#include <string_view>

namespace weir {

inline constexpr std::string_view kVersion = "0.1.0";

}  // namespace weir
