#pragma once
// How row-wise kernels are spread over a team.

#include <algorithm>
#include <cstdint>
#include <functional>

#include "kernel/team.h"

namespace weir::kernel {

// Calls body(begin, end) for parts of [0, rows). A part has at least 32Ki values: at some 4 values
// a nanosecond that is 8 us, several times what it costs to hand work to a spinning helper.
template <class Body>
void for_rows(Team& team, std::int64_t rows, std::int64_t values_per_row, const Body& body) {
  constexpr std::int64_t kLeastValues = std::int64_t{1} << 15U;
  const std::int64_t grain =
      std::max<std::int64_t>(1, kLeastValues / std::max<std::int64_t>(1, values_per_row));
  team.parallel_for(rows, grain, std::ref(body));
}

}  // namespace weir::kernel
