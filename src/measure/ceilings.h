#pragma once
// What the machine can do at most, measured in the same run as the kernels that are judged by it.

#include <cstdint>

#include "kernel/team.h"

namespace weir {

// f32 multiply-adds in registers on every worker of the team, with the longest vectors.
[[nodiscard]] double fma_flops_per_s(Team& team);

// Reading `bytes` of memory again and again, each worker its own part: the rate of the cache that
// holds them. The default is many times any last-level cache that a few cores have to themselves.
inline constexpr std::int64_t kFarMoreThanCaches = std::int64_t{256} << 20;
[[nodiscard]] double read_bytes_per_s(Team& team, std::int64_t bytes = kFarMoreThanCaches);

}  // namespace weir
