#include <cmath>

#include "base/check.h"
#include "kernel/kernel.h"
#include "kernel/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/norm.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

HWY_INLINE float sum_of_squares(const float* x, std::int64_t count) {
  const DF d;
  constexpr int kChains = 4;  // Independent sums, to hide the latency of a multiply-add.
  VecF chain[kChains] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  std::int64_t i = 0;
  for (; i + kChains * kLanes <= count; i += kChains * kLanes) {
    HWY_UNROLL(4)
    for (int c = 0; c < kChains; ++c) {
      const VecF value = hn::LoadU(d, x + i + c * kLanes);
      chain[c] = hn::MulAdd(value, value, chain[c]);
    }
  }
  float rest = 0;
  for (; i < count; ++i) rest += x[i] * x[i];
  const VecF sum = hn::Add(hn::Add(chain[0], chain[1]), hn::Add(chain[2], chain[3]));
  return hn::GetLane(hn::SumOfLanes(d, sum)) + rest;
}

void norm_row(const float* x, const RmsNorm& norm, std::int64_t count, float* out) {
  const DF d;
  const float scale =
      1.0F / std::sqrt(sum_of_squares(x, count) / static_cast<float>(count) + norm.eps);
  const VecF factor = hn::Set(d, scale);
  const float* const weight = norm.weight.data();
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const VecF scaled = hn::Mul(hn::LoadU(d, x + i), factor);
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight + i)), d, out + i);
  }
  for (; i < count; ++i) out[i] = x[i] * scale * weight[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {

HWY_EXPORT(norm_row);

void rms_norm(Team& team, ConstMatrix x, RmsNorm norm, Matrix out) {
  CHECK(norm.weight.size() == static_cast<std::size_t>(x.cols), "one norm weight per column");
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      HWY_DYNAMIC_DISPATCH(norm_row)
      (x.data + row * x.row_stride, norm, x.cols, out.data + row * out.row_stride);
    }
  };
  for_rows(team, x.rows, x.cols, part);
}

}  // namespace weir::kernel
#endif
