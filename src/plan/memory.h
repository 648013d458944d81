#pragma once
// How much memory a plan needs on each device for given lengths.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace weir {

// Bytes on one device, by the categories in which people think of them.
struct DeviceMemory {
  std::int64_t weights = 0;
  std::int64_t kv_cache = 0;      // Of all layers, for the lengths after the step.
  std::int64_t activations = 0;   // Outputs of compute ops alive at the peak,
  std::int64_t attention = 0;     // of these the outputs of attention,
  std::int64_t comm_buffers = 0;  // and what communication ops have delivered.
  [[nodiscard]] std::int64_t total() const {
    return weights + kv_cache + activations + attention + comm_buffers;
  }

  bool operator==(const DeviceMemory&) const = default;
};

// Bytes of a value on every device, by the value's layout. Softmax partials count their lse.
[[nodiscard]] std::vector<std::int64_t> value_bytes_by_device(const Plan& plan, ValueId value,
                                                              const StepLengths& lengths);

// The most that any run of the plan holds at once, whatever its tasks take: a buffer is there from
// the start of the task that writes it to the end of the last that reads it on its device
// (plan/queue_overlap.h). Categories are those of the fullest moment. The plan's queues must be
// those of a valid plan.
// `layer_repeats`: of each of the plan's layers, how many like it weights and caches are counted
// for; empty: one.
[[nodiscard]] std::vector<DeviceMemory> memory_by_device(
    const Plan& plan, const StepLengths& lengths, std::span<const std::int64_t> layer_repeats = {});

}  // namespace weir
