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
// Weights of bf16 in a panel: those of in features k and k + kPairDistance.
struct Bf16Pair {
  std::uint16_t low;
  std::uint16_t high;
};

[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t value, std::int64_t divisor) {
  return (value + divisor - 1) / divisor;
}
[[nodiscard]] constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

// Depth that a product covers in one pass: a widened part of a panel (64 KiB) is read again and
// again from L2 while rows of x stream past, and sums are loaded and stored once per 512 steps.
inline constexpr std::int64_t kDepth = 512;

// Pairs fill steps of kStepDepth in features: [half of the panel, kPairDistance] rows of
// kPairsInRow. This is what a tile of AMX multiplies by, and vectors widen a pair with one
// operation for each value, where 16 values that lie together take two.
inline constexpr std::int64_t kStepDepth = 32;
inline constexpr std::int64_t kPairDistance = kStepDepth / 2;
inline constexpr std::int64_t kPairsInRow = kPanel / 2;
inline constexpr std::int64_t kHalfStepPairs = kPairDistance * kPairsInRow;

// From here on values are too large to be cut into pieces (amx-inl.h): products of two, and sums of
// them, may no longer be finite in f32.
inline constexpr float kImmoderate = 0x1p56F;

// In features are cut into blocks of kDepth, out features into panels of kPanel. A part is one
// panel of one block, [depth, kPanel], or in bf16 pairs, with zeros up to a whole step; out
// features past the last are zero. Parts lie block by block, panel after panel, in the order in
// which all products read them.
struct PackedWeights::Impl {
  const Arena* arena = nullptr;
  Block own;  // Of `data`, where no arena has it.
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  bool moderate = false;  // Every weight is finite and below kImmoderate.

  [[nodiscard]] std::int64_t bytes() const {
    return panels() * stored_depth(in_features) * kPanel * size_in_bytes(dtype);
  }
  // Whether the L2 of each of so many workers holds its share of all matrices of the arena: then
  // they are read from there, token after token, and need not be asked for.
  [[nodiscard]] bool near(std::int64_t workers) const;
  [[nodiscard]] std::int64_t panels() const { return ceil_div(out_features, kPanel); }
  // Depth of the block that begins at in feature k, a multiple of kDepth.
  [[nodiscard]] std::int64_t depth(std::int64_t k) const {
    return in_features - k < kDepth ? in_features - k : kDepth;
  }
  [[nodiscard]] std::int64_t stored_depth(std::int64_t depth) const {
    return dtype == DType::bf16 ? round_up(depth, kStepDepth) : depth;
  }
  // Bytes of a part of the block that begins at in feature k.
  [[nodiscard]] std::int64_t part_bytes(std::int64_t k) const {
    return stored_depth(depth(k)) * kPanel * size_in_bytes(dtype);
  }
  [[nodiscard]] std::byte* part(std::int64_t panel, std::int64_t k) const {
    return data + k * panels() * kPanel * size_in_bytes(dtype) + panel * part_bytes(k);
  }
};

}  // namespace weir::kernel
