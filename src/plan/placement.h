#pragma once
// Which parts of which weights a device needs for its tasks. A plan does not list weights: they
// follow from the layouts.

#include <cstdint>
#include <span>
#include <vector>

#include "plan/plan.h"
#include "spec/weights.h"

namespace weir {

// Rows and columns of a logical weight (spec/weights.h), each as heads x dimensions within a head;
// one "head" where the axis has none. q and k rows count head dimensions in rotary-pair order (see
// plan.h), all others in plain order.
struct WeightSlice {
  WeightKind kind = WeightKind::embedding;
  std::int32_t layer = -1;
  Interval row_heads{.begin = 0, .end = 1};
  Interval row_dims;
  Interval col_heads{.begin = 0, .end = 1};
  Interval col_dims;

  [[nodiscard]] std::int64_t rows() const { return row_heads.size() * row_dims.size(); }
  [[nodiscard]] std::int64_t cols() const { return col_heads.size() * col_dims.size(); }
  [[nodiscard]] std::int64_t elements() const { return rows() * cols(); }
  bool operator==(const WeightSlice&) const = default;
};

// The slices that one piece of a node's outputs needs, in the op's order: matrices each followed by
// its bias. `output` indexes node.outputs, `piece` the pieces of that output's layout. Ops without
// weights: empty.
[[nodiscard]] std::vector<WeightSlice> weight_slices(const Plan& plan, const Node& node,
                                                     std::size_t output, const Piece& piece);

// All that a device holds for this plan, each slice once.
[[nodiscard]] std::vector<WeightSlice> weights_on(const Plan& plan, DeviceId device);

// Bytes of the union of the device's slices in the model's storage dtype. A tied lm_head is the
// embedding's bytes again.
// `layer_repeats`: of each of the plan's layers, how many like it there are to count; empty: one.
[[nodiscard]] std::vector<std::int64_t> weight_bytes_by_device(
    const Plan& plan, std::span<const std::int64_t> layer_repeats = {});

}  // namespace weir
