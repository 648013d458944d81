#pragma once
// The one tile shape that all matrix products of this folder share: panels of kPanel values side by
// side (out features of a weight, queries of an attention block), whatever the vector length.
// Packed memory thereby has the same form on every target.

#include <cstdint>
#include <memory>

#include "base/dtype.h"
#include "kernel/kernel.h"
#include "kernel/scratch.h"

namespace weir::kernel {

inline constexpr std::int64_t kPanel = 32;

// Values stored in two bytes, told apart by type.
struct Bf16 {
  std::uint16_t bits;
};
struct F16 {
  std::uint16_t bits;
};

[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t value, std::int64_t divisor) {
  return (value + divisor - 1) / divisor;
}
[[nodiscard]] constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

// Element (o, i) lies in panel o / kPanel at index i * kPanel + o % kPanel; out features past the
// last are zero.
struct PackedWeights::Impl {
  Block block;
  DType dtype = DType::f32;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;

  [[nodiscard]] std::int64_t panels() const { return ceil_div(out_features, kPanel); }
};

}  // namespace weir::kernel
