#pragma once
// What the machine can do at most, measured in the same run as the kernels that are judged by it.

#include "kernel/team.h"

namespace weir::bench {

// f32 multiply-adds in registers on every worker of the team, with the longest vectors.
[[nodiscard]] double fma_flops_per_s(Team& team);

// Reading memory far larger than the caches, each worker its own part.
[[nodiscard]] double read_bytes_per_s(Team& team);

}  // namespace weir::bench
