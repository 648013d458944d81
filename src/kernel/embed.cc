#include <algorithm>

#include "base/check.h"
#include "kernel/kernel.h"
#include "kernel/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/embed.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

void widen_row(const void* data, DType dtype, std::int64_t at, std::int64_t count, float* out) {
  switch (dtype) {
    case DType::f32:
      return widen(static_cast<const float*>(data) + at, out, count);
    case DType::bf16:
      return widen(static_cast<const Bf16*>(data) + at, out, count);
    case DType::f16:
      return widen(static_cast<const F16*>(data) + at, out, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {

HWY_EXPORT(widen_row);

void embed(Team& team, std::span<const std::int64_t> ids, const EmbeddingTable& table, Matrix out) {
  CHECK(ids.size() == static_cast<std::size_t>(out.rows), "one id per row");
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t row = ids[static_cast<std::size_t>(t)] - table.first_row;
      float* const to = out.data + t * out.row_stride;
      if (row < 0 || row >= table.rows) {
        std::fill_n(to, out.cols, 0.0F);
      } else {
        HWY_DYNAMIC_DISPATCH(widen_row)
        (table.data, table.dtype, row * table.row_stride, out.cols, to);
      }
    }
  };
  for_rows(team, out.rows, out.cols, part);
}

}  // namespace weir::kernel
#endif
