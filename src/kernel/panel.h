#pragma once
// The one tile shape that all matrix products of this folder share: panels of kPanel values side by
// side (out features of a weight, queries of an attention block), whatever the vector length.
// Packed memory thereby has the same form on every target.

#include <algorithm>
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

// Panels lie in groups: few rows go through all of the depth for one group after the other, so that
// this much of weights passes between two uses of a sum, which stays in L2. The sums of all panels,
// in as many places as there are rows, would go to memory and come back for every block of depth:
// eight rows of f32 had 75% of memory's bandwidth that way and have 82%, of bf16 82% and 94%.
inline constexpr std::int64_t kGroupBytes = std::int64_t{512} << 10U;
// A power of two, by the bytes of a weight.
[[nodiscard]] constexpr std::int64_t panels_in_group(std::int64_t element_bytes) {
  return kGroupBytes / (kDepth * kPanel * element_bytes);
}

// In features are cut into blocks of kDepth, out features into panels of kPanel. A part is one
// panel of one block, [depth, kPanel], or in bf16 pairs, with zeros up to a whole step; out
// features past the last are zero. Parts lie group by group, in each block by block, panel after
// panel.
struct PackedWeights::Impl {
  const Arena* arena = nullptr;
  Block own;  // Of `data`, where no arena has it.
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  std::int64_t group_panels = 1;
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
  [[nodiscard]] std::int64_t group_begin(std::int64_t panel) const {
    return panel & ~(group_panels - 1);
  }
  [[nodiscard]] std::int64_t group_end(std::int64_t panel) const {
    return std::min(panels(), group_begin(panel) + group_panels);
  }
  [[nodiscard]] std::byte* part(std::int64_t panel, std::int64_t k) const {
    const std::int64_t first = group_begin(panel);
    const std::int64_t depth_before =
        first * stored_depth(in_features) + k * (group_end(panel) - first);
    return data + depth_before * kPanel * size_in_bytes(dtype) + (panel - first) * part_bytes(k);
  }
};

}  // namespace weir::kernel
