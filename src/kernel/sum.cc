#include "base/check.h"
#include "kernel/kernel.h"
#include "kernel/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/sum.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

void sum_range(const float* const* terms, std::size_t count, std::int64_t begin, std::int64_t end,
               float* out) {
  const DF d;
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    VecF total = hn::LoadU(d, terms[0] + i);
    for (std::size_t term = 1; term < count; ++term) {
      total = hn::Add(total, hn::LoadU(d, terms[term] + i));
    }
    hn::StoreU(total, d, out + i);
  }
  for (; i < end; ++i) {
    float total = terms[0][i];
    for (std::size_t term = 1; term < count; ++term) total += terms[term][i];
    out[i] = total;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {

HWY_EXPORT(sum_range);

void sum(Team& team, std::span<const float* const> terms, std::span<float> out) {
  CHECK(!terms.empty(), "a sum has a term");
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(sum_range)(terms.data(), terms.size(), begin, end, out.data());
  };
  for_rows(team, static_cast<std::int64_t>(out.size()), 1, part);
}

}  // namespace weir::kernel
#endif
