#include <algorithm>
#include <cstdint>

#include "kernel/kernel.h"
#include "kernel/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/elementwise.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// Calls f(values) for vectors of consecutive values; the last ones are padded with zeros.
template <class F>
HWY_INLINE void map(const F& f, const float* x, std::int64_t count, float* out) {
  const DF d;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::StoreU(f(d, hn::LoadU(d, x + i), i), d, out + i);
  if (i == count) return;
  HWY_ALIGN float last[kLanes] = {};
  std::copy(x + i, x + count, last);
  hn::Store(f(d, hn::Load(d, last), i), d, last);
  std::copy_n(last, count - i, out + i);
}

struct Silu {
  HWY_INLINE VecF operator()(DF d, VecF x, std::int64_t) const { return silu(d, x); }
};
struct GeluErf {
  HWY_INLINE VecF operator()(DF d, VecF x, std::int64_t) const { return gelu_erf(d, x); }
};
struct GeluTanh {
  HWY_INLINE VecF operator()(DF d, VecF x, std::int64_t) const { return gelu_tanh(d, x); }
};

// f(x) * up, element by element.
template <class F>
struct Gated {
  const float* up;
  std::int64_t count;

  HWY_INLINE VecF operator()(DF d, VecF x, std::int64_t at) const {
    if (at + kLanes <= count) return hn::Mul(F()(d, x, at), hn::LoadU(d, up + at));
    HWY_ALIGN float last[kLanes] = {};
    std::copy(up + at, up + count, last);
    return hn::Mul(F()(d, x, at), hn::Load(d, last));
  }
};

struct Added {
  float* to;
  std::int64_t count;

  HWY_INLINE VecF operator()(DF d, VecF x, std::int64_t at) const {
    if (at + kLanes <= count) return hn::Add(x, hn::LoadU(d, to + at));
    HWY_ALIGN float last[kLanes] = {};
    std::copy(to + at, to + count, last);
    return hn::Add(x, hn::Load(d, last));
  }
};

void activate_row(Activation activation, const float* x, std::int64_t count, float* out) {
  switch (activation) {
    case Activation::silu:
      return map(Silu(), x, count, out);
    case Activation::gelu_erf:
      return map(GeluErf(), x, count, out);
    case Activation::gelu_tanh:
      return map(GeluTanh(), x, count, out);
  }
}

void gate_row(Activation activation, const float* gate, const float* up, std::int64_t count,
              float* out) {
  switch (activation) {
    case Activation::silu:
      return map(Gated<Silu>{.up = up, .count = count}, gate, count, out);
    case Activation::gelu_erf:
      return map(Gated<GeluErf>{.up = up, .count = count}, gate, count, out);
    case Activation::gelu_tanh:
      return map(Gated<GeluTanh>{.up = up, .count = count}, gate, count, out);
  }
}

void add_row(const float* x, std::int64_t count, float* out) {
  map(Added{.to = out, .count = count}, x, count, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {

HWY_EXPORT(activate_row);
HWY_EXPORT(gate_row);
HWY_EXPORT(add_row);

void activation(Team& team, Activation activation, ConstMatrix x, Matrix out) {
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      HWY_DYNAMIC_DISPATCH(activate_row)
      (activation, x.data + row * x.row_stride, x.cols, out.data + row * out.row_stride);
    }
  };
  for_rows(team, x.rows, x.cols, part);
}

void gated_activation(Team& team, Activation activation, ConstMatrix gate, ConstMatrix up,
                      Matrix out) {
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      HWY_DYNAMIC_DISPATCH(gate_row)
      (activation, gate.data + row * gate.row_stride, up.data + row * up.row_stride, gate.cols,
       out.data + row * out.row_stride);
    }
  };
  for_rows(team, gate.rows, gate.cols, part);
}

void add(Team& team, ConstMatrix x, Matrix out) {
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      HWY_DYNAMIC_DISPATCH(add_row)
      (x.data + row * x.row_stride, x.cols, out.data + row * out.row_stride);
    }
  };
  for_rows(team, x.rows, x.cols, part);
}

}  // namespace weir::kernel
#endif
