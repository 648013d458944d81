#include <cmath>

#include "base/check.h"
#include "kernel/kernel.h"
#include "kernel/rows.h"
#include "kernel/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/rope.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

using DD = hn::ScalableTag<double>;
using VecD = hn::Vec<DD>;

struct SineCosine {
  VecD sine;
  VecD cosine;
};

// The angle is reduced to [-pi/4, pi/4] by multiples of pi/2 held in two doubles, then Taylor's
// series: absolute error below 1e-9 for angles below 2^40.
HWY_INLINE SineCosine sine_cosine(DD d, VecD angle) {
  const VecD turns = hn::Round(hn::Mul(angle, hn::Set(d, 0.63661977236758134308)));
  VecD r = hn::NegMulAdd(turns, hn::Set(d, 0x1.921fb54442d18p+0), angle);
  r = hn::NegMulAdd(turns, hn::Set(d, 0x1.1a62633145c07p-54), r);
  const VecD r2 = hn::Mul(r, r);
  VecD s = hn::Set(d, -1.0 / 39916800);
  s = hn::MulAdd(s, r2, hn::Set(d, 1.0 / 362880));
  s = hn::MulAdd(s, r2, hn::Set(d, -1.0 / 5040));
  s = hn::MulAdd(s, r2, hn::Set(d, 1.0 / 120));
  s = hn::MulAdd(s, r2, hn::Set(d, -1.0 / 6));
  s = hn::MulAdd(hn::Mul(s, r2), r, r);
  VecD c = hn::Set(d, -1.0 / 3628800);
  c = hn::MulAdd(c, r2, hn::Set(d, 1.0 / 40320));
  c = hn::MulAdd(c, r2, hn::Set(d, -1.0 / 720));
  c = hn::MulAdd(c, r2, hn::Set(d, 1.0 / 24));
  c = hn::MulAdd(c, r2, hn::Set(d, -1.0 / 2));
  c = hn::MulAdd(c, r2, hn::Set(d, 1.0));
  // Quarter turns 0, 1, 2, 3: (s, c), (c, -s), (-s, -c), (-c, s).
  const VecD quarter =
      hn::NegMulAdd(hn::Floor(hn::Mul(turns, hn::Set(d, 0.25))), hn::Set(d, 4.0), turns);
  const VecD one = hn::Set(d, 1.0);
  const VecD two = hn::Set(d, 2.0);
  const auto swap = hn::Or(hn::Eq(quarter, one), hn::Gt(quarter, two));
  const auto negate_sine = hn::Ge(quarter, two);
  const auto negate_cosine = hn::Or(hn::Eq(quarter, one), hn::Eq(quarter, two));
  const VecD sine = hn::IfThenElse(swap, c, s);
  const VecD cosine = hn::IfThenElse(swap, s, c);
  return {.sine = hn::IfThenElse(negate_sine, hn::Neg(sine), sine),
          .cosine = hn::IfThenElse(negate_cosine, hn::Neg(cosine), cosine)};
}

// cosines[i], sines[i] = scale * cos, sin (position * inverse_frequency[i])
HWY_INLINE void fill_angles(double position, const Rope& rope, float* cosines, float* sines) {
  const DD d;
  const hn::Rebind<float, DD> narrow;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto pairs = static_cast<std::int64_t>(rope.inverse_frequency.size());
  const double* const frequency = rope.inverse_frequency.data();
  const VecD scale = hn::Set(d, rope.scale);
  std::int64_t i = 0;
  for (; i + lanes <= pairs; i += lanes) {
    const VecD angle = hn::Mul(hn::LoadU(d, frequency + i), hn::Set(d, position));
    const SineCosine both = sine_cosine(d, angle);
    hn::StoreU(hn::DemoteTo(narrow, hn::Mul(both.cosine, scale)), narrow, cosines + i);
    hn::StoreU(hn::DemoteTo(narrow, hn::Mul(both.sine, scale)), narrow, sines + i);
  }
  for (; i < pairs; ++i) {
    cosines[i] = static_cast<float>(std::cos(position * frequency[i]) * rope.scale);
    sines[i] = static_cast<float>(std::sin(position * frequency[i]) * rope.scale);
  }
}

HWY_INLINE void rotate(float* head, std::int64_t pairs, const float* cosines, const float* sines) {
  const DF d;
  std::int64_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    VecF first;
    VecF second;
    hn::LoadInterleaved2(d, head + 2 * i, first, second);
    const VecF cosine = hn::LoadU(d, cosines + i);
    const VecF sine = hn::LoadU(d, sines + i);
    hn::StoreInterleaved2(hn::NegMulAdd(second, sine, hn::Mul(first, cosine)),
                          hn::MulAdd(second, cosine, hn::Mul(first, sine)), d, head + 2 * i);
  }
  for (; i < pairs; ++i) {
    const float first = head[2 * i];
    const float second = head[2 * i + 1];
    head[2 * i] = first * cosines[i] - second * sines[i];
    head[2 * i + 1] = second * cosines[i] + first * sines[i];
  }
}

// `angles` has room for twice the number of pairs.
void rotate_row(float* row, std::int64_t position, const Rope& rope, float* angles) {
  const auto pairs = static_cast<std::int64_t>(rope.inverse_frequency.size());
  float* const cosines = angles;
  float* const sines = angles + pairs;
  fill_angles(static_cast<double>(position), rope, cosines, sines);
  for (std::int64_t head = 0; head < rope.num_heads; ++head) {
    rotate(row + head * rope.head_dim, pairs, cosines, sines);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {

HWY_EXPORT(rotate_row);

void rope(Team& team, Matrix x, std::span<const std::int64_t> positions, const Rope& rope) {
  const auto pairs = static_cast<std::int64_t>(rope.inverse_frequency.size());
  CHECK(positions.size() == static_cast<std::size_t>(x.rows), "one position per row");
  CHECK(2 * pairs <= rope.head_dim, "pairs lie within a head");
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    Scratch& scratch = worker_scratch();
    scratch.reserve(Scratch::bytes_of_floats(2 * pairs));
    float* const angles = scratch.floats(2 * pairs);
    for (std::int64_t row = begin; row < end; ++row) {
      HWY_DYNAMIC_DISPATCH(rotate_row)
      (x.data + row * x.row_stride, positions[static_cast<std::size_t>(row)], rope, angles);
    }
  };
  for_rows(team, x.rows, rope.num_heads * rope.head_dim, part);
}

}  // namespace weir::kernel
#endif
