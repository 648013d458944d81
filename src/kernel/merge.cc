#include "kernel/merge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel/kernel.h"
#include "kernel/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/merge.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// out = out * mine + other * theirs
void blend(std::int64_t count, float* out, float mine, const float* other, float theirs) {
  const DF d;
  const VecF a = hn::Set(d, mine);
  const VecF b = hn::Set(d, theirs);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const VecF scaled = hn::Mul(hn::LoadU(d, out + i), a);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, other + i), b, scaled), d, out + i);
  }
  for (; i < count; ++i) out[i] = out[i] * mine + other[i] * theirs;
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {

HWY_EXPORT(blend);

void merge_head(std::int64_t dim, float* out, float& lse, const float* other_out, float other_lse) {
  // An empty range has lse = -inf; subtracting two of them would give NaN, so return first.
  if (other_lse == -std::numeric_limits<float>::infinity()) return;
  const float largest = std::max(lse, other_lse);
  const float mine = std::exp(lse - largest);
  const float theirs = std::exp(other_lse - largest);
  const float sum = mine + theirs;
  HWY_DYNAMIC_DISPATCH(blend)(dim, out, mine / sum, other_out, theirs / sum);
  lse = largest + std::log(sum);
}

void merge_partial(Team& team, PartialShape shape, PartialAttention into,
                   ConstPartialAttention other) {
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t head = 0; head < shape.num_heads; ++head) {
        const std::int64_t at = head * shape.head_dim;
        merge_head(shape.head_dim, into.out + row * into.row_stride + at,
                   into.lse[row * into.lse_row_stride + head],
                   other.out + row * other.row_stride + at,
                   other.lse[row * other.lse_row_stride + head]);
      }
    }
  };
  for_rows(team, shape.rows, shape.num_heads * shape.head_dim, part);
}

}  // namespace weir::kernel
#endif
