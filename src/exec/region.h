#pragma once
// Parts of buffers, and what redistributions do with them, spread over a device's cores.

#include <cstdint>
#include <span>
#include <vector>

#include "exec/bound_layout.h"
#include "kernel/kernel.h"
#include "plan/plan.h"

namespace weir {

// A part of a buffer: `rows` rows, in each of them `heads` runs of `dims` floats.
struct Region {
  float* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t heads = 0;
  std::int64_t dims = 0;
  std::int64_t row_stride = 0;
  std::int64_t head_stride = 0;
  float* lse = nullptr;  // Partial attention: [rows, heads].
  std::int64_t lse_row_stride = 0;
};

// A box by itself, its lse behind it.
[[nodiscard]] Region dense(float* data, const ResolvedBox& box, bool with_lse);

// Where `box` lies in a buffer. `first_token`: what box.token counts minus what the buffer's rows
// count (past positions).
[[nodiscard]] Region region_of(const BoundBuffer& buffer, float* data, float* lse,
                               const ResolvedBox& box, std::int64_t first_token);

// All regions of a call have the same rows, heads and dims.

void copy_region(Team& team, const Region& target, const Region& source);
// target += source.
void add_region(Team& team, const Region& target, const Region& source);
// target = terms[0] + terms[1] + ..., added in that order. `views` is memory to work in.
void sum_regions(Team& team, const Region& target, std::span<const Region> terms,
                 std::vector<kernel::ConstMatrix>& views);
// Merges partial attention into the target's.
void merge_region(Team& team, const Region& target, const Region& source);

}  // namespace weir
