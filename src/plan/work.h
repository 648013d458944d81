#pragma once
// How much a task computes and touches: floating-point operations and bytes, from shapes alone. No
// time.

#include <cstdint>

#include "plan/plan.h"

namespace weir {

// Work of one node on one device. FLOPs count a multiply-add as 2; attention counts only visible
// (query, key) pairs.
struct Work {
  std::int64_t flops = 0;
  std::int64_t weight_bytes = 0;   // Read, in the model's storage dtype.
  std::int64_t kv_bytes = 0;       // K and V, read or written.
  std::int64_t read_bytes = 0;     // Activations read
  std::int64_t written_bytes = 0;  // and written.
  [[nodiscard]] std::int64_t bytes() const {
    return weight_bytes + kv_bytes + read_bytes + written_bytes;
  }

  bool operator==(const Work&) const = default;
};

// A compute node's task on `device`; all zero for communication and for devices without a piece.
[[nodiscard]] Work work_of(const Plan& plan, const Node& node, DeviceId device,
                           const StepLengths& lengths);

// (query, key) pairs that a causal tile computes: queries [q.begin, q.end) of the step's new
// tokens, whose first stands at position `past`, against key positions `keys`; a window limits each
// query to its last `window` positions.
[[nodiscard]] std::int64_t visible_pairs(Interval queries, std::int64_t past, Interval keys,
                                         std::optional<std::int64_t> window);

}  // namespace weir
