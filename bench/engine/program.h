#pragma once
// Runs other programs and reads what they print.

#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace weir::bench {

// Lines of the program's stdout. Arguments reach it as they are. Fails where it does.
[[nodiscard]] Result<std::vector<std::string>> lines_of(std::span<const std::string> command);

}  // namespace weir::bench
