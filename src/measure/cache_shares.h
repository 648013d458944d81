#pragma once
// What a cache serves of weights that are read again and again, by how many they are.

#include <cstdint>
#include <optional>

#include "measure/device_teams.h"
#include "spec/measured_kernels.h"

namespace weir {

// Multiplies one row by more and more matrices in turn, from half of the capacity, which the level
// serves whole, to `slow` bytes, of which it serves nothing: what of each it serves is told by how
// long that takes. Nothing where there is hardly a step. (Plain reading is no measure of it: it
// finds in an L3 half as much again as products do.)
[[nodiscard]] std::optional<ServedCurve> measure_served(DeviceTeams& teams, CacheLevel level,
                                                        std::int64_t capacity, std::int64_t slow);

}  // namespace weir
