#pragma once
// Counts what a program has allocated with `new`. Linking counting_allocator.cc replaces the global
// operators. For one thread.

#include <cstddef>

namespace weir {

void begin_counting();
// The most bytes that were allocated at one time since, beyond those allocated then.
[[nodiscard]] std::size_t peak_of_counting();

}  // namespace weir
