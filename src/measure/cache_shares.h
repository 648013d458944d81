#pragma once
// What a cache serves of a set that is read again and again, by the size of the set.

#include <cstdint>
#include <span>
#include <vector>

#include "spec/measured_kernels.h"

namespace weir {

// Reads sets of more and more bytes, from half of the capacity, which the level serves whole, to
// `slow`, of which it serves nothing: what of each it serves is told by how long that takes.
// Nothing where there is hardly a step.
// `cores`: of the devices that read at the same time, each a set of its own.
[[nodiscard]] std::vector<ServedCurve> measure_served(std::span<const std::vector<int>> cores,
                                                      CacheLevel level, std::int64_t capacity,
                                                      std::int64_t slow);

}  // namespace weir
