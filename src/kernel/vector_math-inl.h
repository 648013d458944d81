// Elementary functions on vectors of f32. Coefficients are minimax fits made for this file; the
// errors stated are the largest measured over the whole range (tests/kernel/vector_math_test.cc).

#if defined(WEIR_KERNEL_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_VECTOR_MATH_INL_H_
#undef WEIR_KERNEL_VECTOR_MATH_INL_H_
#else
#define WEIR_KERNEL_VECTOR_MATH_INL_H_
#endif

#include <cstdint>

#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// 2^x for x <= 0, and up to 127. Relative error below 2e-7; 1 at 0; 0 below -126; NaN for NaN.
HWY_INLINE VecF exp2_nonpositive(DF d, VecF x) {
  const hn::RebindToSigned<DF> di;
  // Adding 1.5 * 2^23 rounds x to an integer n, which then stands in the low bits of the sum.
  const VecF round = hn::Set(d, 12582912.0F);
  const VecF shifted = hn::Add(x, round);
  const VecF r = hn::Sub(x, hn::Sub(shifted, round));  // [-1/2, 1/2], exact.
  VecF p = hn::Set(d, 0x1.5bba14p-10F);
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.3cea88p-7F));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.c6b752p-5F));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.ebf9bcp-3F));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.62e42ap-1F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  // p * 2^n by adding n to the exponent. The magnitude of n has no room where x < -126.
  const auto scaled = hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0F)), hn::BitCast(d, scaled));
}

// e^x for x <= 0 (and up to 80). Relative error below 3e-7; 0 below -87.3365.
HWY_INLINE VecF exp_nonpositive(DF d, VecF x) {
  // x = n ln 2 + r, with ln 2 in two parts so that r keeps its digits; then e^x = 2^n 2^(r / ln 2).
  const VecF round = hn::Set(d, 12582912.0F);  // As in exp2_nonpositive.
  const VecF shifted = hn::MulAdd(x, hn::Set(d, 0x1.715476p+0F), round);
  const VecF n = hn::Sub(shifted, round);
  VecF r = hn::NegMulAdd(n, hn::Set(d, 0x1.62e4p-1F), x);
  r = hn::NegMulAdd(n, hn::Set(d, 0x1.7f7d1cp-20F), r);
  const hn::RebindToSigned<DF> di;
  const VecF fraction = exp2_nonpositive(d, hn::Mul(r, hn::Set(d, 0x1.715476p+0F)));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const VecF scaled = hn::BitCast(d, hn::Add(hn::BitCast(di, fraction), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.3365F)), scaled);
}

// 1 / (1 + e^-x).
HWY_INLINE VecF sigmoid(DF d, VecF x) {
  const VecF one = hn::Set(d, 1.0F);
  const VecF e = exp_nonpositive(d, hn::Neg(hn::Abs(x)));  // Never overflows.
  const VecF numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one);
  return hn::Div(numerator, hn::Add(one, e));
}

HWY_INLINE VecF silu(DF d, VecF x) { return hn::Mul(x, sigmoid(d, x)); }

// x / 2 (1 + tanh(u)) = x sigmoid(2 u),  u = sqrt(2 / pi) (x + 0.044715 x^3).
HWY_INLINE VecF gelu_tanh(DF d, VecF x) {
  const VecF cubic = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.044715F), hn::Set(d, 1.0F));
  const VecF twice_u = hn::Mul(hn::Mul(x, hn::Set(d, 1.5957691216057308F)), cubic);
  return hn::Mul(x, sigmoid(d, twice_u));
}

// erfc(z) e^(z^2) for z >= 0, as a polynomial in t = 1 / (1 + z / 2). Relative error of the fit
// 1.1e-8; t -> 0 as z grows, as the function does.
HWY_INLINE VecF scaled_erfc(DF d, VecF z) {
  const VecF one = hn::Set(d, 1.0F);
  const VecF t = hn::Div(one, hn::MulAdd(z, hn::Set(d, 0.5F), one));
  VecF q = hn::Set(d, 0.0423521294F);
  q = hn::MulAdd(q, t, hn::Set(d, -0.230855602F));
  q = hn::MulAdd(q, t, hn::Set(d, 0.486175079F));
  q = hn::MulAdd(q, t, hn::Set(d, -0.446973662F));
  q = hn::MulAdd(q, t, hn::Set(d, 0.127087237F));
  q = hn::MulAdd(q, t, hn::Set(d, -0.0572317012F));
  q = hn::MulAdd(q, t, hn::Set(d, 0.0930004294F));
  q = hn::MulAdd(q, t, hn::Set(d, 0.175376846F));
  q = hn::MulAdd(q, t, hn::Set(d, 0.246880586F));
  q = hn::MulAdd(q, t, hn::Set(d, 0.282093853F));
  q = hn::MulAdd(q, t, hn::Set(d, 0.282094795F));
  return hn::Mul(q, t);
}

// x / 2 erfc(-x / sqrt(2)).
HWY_INLINE VecF gelu_erf(DF d, VecF x) {
  const VecF z = hn::Mul(hn::Abs(x), hn::Set(d, 0.70710678118654752F));
  const VecF half = hn::Set(d, 0.5F);
  const VecF gauss = exp_nonpositive(d, hn::Neg(hn::Mul(hn::Mul(x, half), x)));
  const VecF tail = hn::Mul(half, hn::Mul(gauss, scaled_erfc(d, z)));  // erfc(|x| / sqrt 2) / 2.
  const VecF share = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.0F), tail));
  return hn::Mul(x, share);
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // WEIR_KERNEL_VECTOR_MATH_INL_H_
