#pragma once
// The row-wise part of merge_partial, for callers that are already spread over a team.

#include <cstdint>

namespace weir::kernel {

// Folds (other_out, other_lse) into (out, lse); both hold `dim` values.
void merge_head(std::int64_t dim, float* out, float& lse, const float* other_out, float other_lse);

}  // namespace weir::kernel
