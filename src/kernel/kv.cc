#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernel/kernel.h"
#include "kernel/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/kv.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

using DU16 = hn::Rebind<std::uint16_t, DF>;
using VecU16 = hn::Vec<DU16>;

HWY_INLINE std::uint16_t narrow_one(float value, Bf16*) { return f32_to_bf16(value); }
HWY_INLINE std::uint16_t narrow_one(float value, F16*) { return f32_to_f16(value); }

// Bits of kLanes values rounded to nearest even.
HWY_INLINE VecU16 narrow(DF d, const float* from, Bf16*) {
  const hn::RebindToUnsigned<DF> du;
  const VecF value = hn::LoadU(d, from);
  const auto bits = hn::BitCast(du, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
  // Rounding could carry a NaN into infinity: quiet it instead, so that it stays a NaN.
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
  const auto kept = hn::IfThenElse(hn::RebindMask(du, hn::Ne(value, value)), quiet, rounded);
  // Demoting saturates from signed values: shifting with the sign keeps every pattern in range.
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<std::int16_t, DF> di16;
  const auto high = hn::ShiftRight<16>(hn::BitCast(di, kept));
  return hn::BitCast(DU16(), hn::DemoteTo(di16, high));
}

HWY_INLINE VecU16 narrow(DF d, const float* from, F16*) {
  if constexpr (kConvertsF16) {
    const hn::Rebind<hwy::float16_t, DF> half;
    return hn::BitCast(DU16(), hn::DemoteTo(half, hn::LoadU(d, from)));
  } else {
    HWY_ALIGN std::uint16_t lanes[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = f32_to_f16(from[lane]);
    return hn::Load(DU16(), lanes);
  }
}

template <class T>
HWY_INLINE void narrow_values(const float* from, std::int64_t count, T* to) {
  auto* const bits = reinterpret_cast<std::uint16_t*>(to);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    hn::StoreU(narrow(DF(), from + i, to), DU16(), bits + i);
  }
  for (; i < count; ++i) bits[i] = narrow_one(from[i], to);
}

void narrow_row(const float* from, std::int64_t count, DType dtype, void* to, std::int64_t at) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(static_cast<float*>(to) + at, from,
                  static_cast<std::size_t>(count) * sizeof(float));
      return;
    case DType::bf16:
      return narrow_values(from, count, static_cast<Bf16*>(to) + at);
    case DType::f16:
      return narrow_values(from, count, static_cast<F16*>(to) + at);
  }
}

template <class T>
HWY_INLINE void widen_row(const T* from, std::int64_t count, float* to) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::StoreU(load_wide(DF(), from + i), DF(), to + i);
  for (; i < count; ++i) to[i] = widen_one(from + i);
}

void widen_range(const void* from, std::int64_t at, std::int64_t count, DType dtype, float* to) {
  switch (dtype) {
    case DType::f32:
      return widen_row(static_cast<const float*>(from) + at, count, to);
    case DType::bf16:
      return widen_row(static_cast<const Bf16*>(from) + at, count, to);
    case DType::f16:
      return widen_row(static_cast<const F16*>(from) + at, count, to);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {

HWY_EXPORT(narrow_row);
HWY_EXPORT(widen_range);

void read_kv(const KvBlocks& blocks, const KvRead& read, float* out, std::int64_t row_stride) {
  const std::int64_t first = read.first_position - blocks.first_position;
  CHECK(read.rows == 0 ||
            (first >= 0 && first + read.rows <=
                               static_cast<std::int64_t>(blocks.blocks.size()) * blocks.block_size),
        "read positions lie within the blocks");
  for (std::int64_t row = 0; row < read.rows; ++row) {
    const std::int64_t offset = first + row;
    const void* const block = blocks.blocks[static_cast<std::size_t>(offset / blocks.block_size)];
    for (std::int64_t head = 0; head < read.num_heads; ++head) {
      HWY_DYNAMIC_DISPATCH(widen_range)
      (block,
       (read.first_head + head) * blocks.head_stride +
           (offset % blocks.block_size) * blocks.position_stride + read.first_dim,
       read.head_dim, blocks.dtype, out + row * row_stride + head * read.head_dim);
    }
  }
}

void write_kv(Team& team, const KvWrite& write, const MutableKvBlocks& blocks) {
  const std::int64_t first = write.first_position_of_rows - blocks.first_position;
  CHECK(write.rows == 0 ||
            (first >= 0 && first + write.rows <=
                               static_cast<std::int64_t>(blocks.blocks.size()) * blocks.block_size),
        "written positions lie within the blocks");
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t offset = first + row;
      void* const block = blocks.blocks[static_cast<std::size_t>(offset / blocks.block_size)];
      for (std::int64_t head = 0; head < write.num_heads; ++head) {
        HWY_DYNAMIC_DISPATCH(narrow_row)
        (write.source + row * write.source_row_stride + head * write.head_dim, write.head_dim,
         blocks.dtype, block,
         (write.first_head + head) * blocks.head_stride +
             (offset % blocks.block_size) * blocks.position_stride + write.first_dim);
      }
    }
  };
  for_rows(team, write.rows, write.num_heads * write.head_dim, part);
}

}  // namespace weir::kernel
#endif
