#pragma once
// What the products of a linear layer (linear.cc, linear_tiles-inl.h) have in common: the block of
// rows and panels that a worker multiplies, and the parts of panels in the order in which it does.

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernel/kernel.h"
#include "kernel/panel.h"

namespace weir::kernel {

// One worker's part of one call: these rows times these panels.
struct LinearBlock {
  ConstMatrix x;
  const PackedWeights::Impl* weights = nullptr;
  bool near = false;  // The weights are in the worker's L2 (PackedWeights::Impl::near).
  std::span<const float> bias;
  Matrix out;
  std::int64_t row_begin = 0;
  std::int64_t row_end = 0;
  std::int64_t panel_begin = 0;
  std::int64_t panel_end = 0;
};

// The part of a panel that is multiplied first, and by `next` those after it; none past the last.
struct Part {
  std::int64_t panel = 0;
  std::int64_t k = 0;

  [[nodiscard]] Part next(const LinearBlock& block) const {
    if (panel + 1 < block.panel_end) return {.panel = panel + 1, .k = k};
    return {.panel = block.panel_begin, .k = k + kDepth};
  }
  [[nodiscard]] std::int64_t depth(const LinearBlock& block) const {
    return k < block.x.cols ? block.weights->depth(k) : 0;
  }
  [[nodiscard]] const std::byte* at(const LinearBlock& block) const {
    return k < block.x.cols ? block.weights->part(panel, k) : nullptr;
  }
  [[nodiscard]] std::int64_t bytes(const LinearBlock& block) const {
    return k < block.x.cols ? block.weights->part_bytes(k) : 0;
  }
};

}  // namespace weir::kernel
