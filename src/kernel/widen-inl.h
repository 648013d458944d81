// Vectors of f32 from memory that holds f32, bf16 or f16.

#if defined(WEIR_KERNEL_WIDEN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_WIDEN_INL_H_
#undef WEIR_KERNEL_WIDEN_INL_H_
#else
#define WEIR_KERNEL_WIDEN_INL_H_
#endif

#include <cstdint>

#include <hwy/highway.h>

#include "base/dtype.h"
#include "kernel/panel.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VecF = hn::Vec<DF>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(DF()));
// Of vectors.
inline constexpr int kRegisters = kLanes == 16 || HWY_ARCH_ARM ? 32 : 16;

// The lower and the upper of two values of bf16 in every word, with one operation each.
using Words = hn::RebindToUnsigned<DF>;
HWY_INLINE VecF lower_bf16(hn::Vec<Words> pairs) {
  return hn::BitCast(DF(), hn::ShiftLeft<16>(pairs));
}
HWY_INLINE VecF upper_bf16(hn::Vec<Words> pairs) {
  return hn::BitCast(DF(), hn::And(pairs, hn::Set(Words(), 0xFFFF0000U)));
}

// The vector units of AVX2, AVX-512 and NEON convert f16 as IEEE 754 says; elsewhere Highway's
// emulation leaves out infinities, so the exact scalar conversion is used.
inline constexpr bool kConvertsF16 = HWY_TARGET <= HWY_AVX2 || HWY_TARGET == HWY_NEON;

HWY_INLINE float widen_one(const float* from) { return *from; }
HWY_INLINE float widen_one(const Bf16* from) { return bf16_to_f32(from->bits); }
HWY_INLINE float widen_one(const F16* from) { return f16_to_f32(from->bits); }

// kLanes consecutive values. No alignment beyond that of the type.
HWY_INLINE VecF load_wide(DF d, const float* from) { return hn::LoadU(d, from); }

HWY_INLINE VecF load_wide(DF d, const Bf16* from) {
  const hn::Rebind<std::uint16_t, DF> narrow;
  const hn::RebindToUnsigned<DF> wide;
  const auto bits = hn::LoadU(narrow, reinterpret_cast<const std::uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(wide, bits)));
}

HWY_INLINE VecF load_wide(DF d, const F16* from) {
  if constexpr (kConvertsF16) {
    const hn::Rebind<hwy::float16_t, DF> narrow;
    return hn::PromoteTo(d, hn::LoadU(narrow, reinterpret_cast<const hwy::float16_t*>(from)));
  } else {
    HWY_ALIGN float lanes[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = widen_one(from + lane);
    return hn::Load(d, lanes);
  }
}

// to[0..count) = from[0..count), reading and writing nothing beyond.
template <class T>
HWY_INLINE void widen(const T* from, float* to, std::int64_t count) {
  const DF d;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::StoreU(load_wide(d, from + i), d, to + i);
  for (; i < count; ++i) to[i] = widen_one(from + i);
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // WEIR_KERNEL_WIDEN_INL_H_
