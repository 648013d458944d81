#pragma once
// Counts how often a program allocates with `new`, on all threads. Linking allocation_count.cc
// replaces the global operators.

#include <cstdint>

namespace weir {

[[nodiscard]] std::int64_t allocations_so_far();

}  // namespace weir
