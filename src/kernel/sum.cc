// Sums and copies of rows: what a device does with what a redistribution has brought it.

#include <algorithm>
#include <cstring>

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

// Columns [begin, end) of one row, as far as whole `vectors` go; returns where they end.
template <int vectors>
HWY_INLINE std::int64_t sum_vectors(std::span<const ConstMatrix> terms, std::int64_t row,
                                    std::int64_t begin, std::int64_t end, float* out) {
  const DF d;
  for (; begin + vectors * kLanes <= end; begin += vectors * kLanes) {
    VecF total[vectors];
    const float* from = terms[0].data + row * terms[0].row_stride + begin;
    HWY_UNROLL(4)
    for (int v = 0; v < vectors; ++v) total[v] = hn::LoadU(d, from + v * kLanes);
    for (const ConstMatrix& term : terms.subspan(1)) {
      from = term.data + row * term.row_stride + begin;
      HWY_UNROLL(4)
      for (int v = 0; v < vectors; ++v)
        total[v] = hn::Add(total[v], hn::LoadU(d, from + v * kLanes));
    }
    HWY_UNROLL(4)
    for (int v = 0; v < vectors; ++v) hn::StoreU(total[v], d, out + begin + v * kLanes);
  }
  return begin;
}

void sum_row(std::span<const ConstMatrix> terms, std::int64_t row, std::int64_t begin,
             std::int64_t end, float* out) {
  begin = sum_vectors<4>(terms, row, begin, end, out);
  begin = sum_vectors<1>(terms, row, begin, end, out);
  for (; begin < end; ++begin) {
    float total = terms[0].data[row * terms[0].row_stride + begin];
    for (const ConstMatrix& term : terms.subspan(1))
      total += term.data[row * term.row_stride + begin];
    out[begin] = total;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {
namespace {

HWY_EXPORT(sum_row);

// Whether its rows follow each other, as if they were one.
template <class AnyMatrix>
bool is_dense(const AnyMatrix& matrix) {
  return matrix.row_stride == matrix.cols || matrix.rows <= 1;
}

// body(row, begin, end) for parts of rows, or of all of them as one long row.
template <class Body>
void for_parts(Team& team, const Matrix& out, bool dense, const Body& body) {
  if (dense) {
    const auto part = [&](std::int64_t begin, std::int64_t end) { body(0, begin, end); };
    for_rows(team, out.rows * out.cols, 1, part);
    return;
  }
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row, 0, out.cols);
  };
  for_rows(team, out.rows, out.cols, part);
}

}  // namespace

void sum(Team& team, std::span<const ConstMatrix> terms, Matrix out) {
  CHECK(!terms.empty(), "a sum has a term");
  const auto add = [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(sum_row)(terms, row, begin, end, out.data + row * out.row_stride);
  };
  for_parts(team, out, is_dense(out) && std::ranges::all_of(terms, is_dense<ConstMatrix>), add);
}

void copy(Team& team, ConstMatrix x, Matrix out) {
  const auto move = [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
    std::memcpy(out.data + row * out.row_stride + begin, x.data + row * x.row_stride + begin,
                static_cast<std::size_t>(end - begin) * sizeof(float));
  };
  for_parts(team, out, is_dense(out) && is_dense(x), move);
}

}  // namespace weir::kernel
#endif
