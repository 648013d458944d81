#pragma once
// Getting a step's logits off its devices: which buffers hold them, and where their rows belong.

#include <cstdint>
#include <vector>

#include "exec/device_state.h"
#include "exec/executor.h"

namespace weir {

// A buffer of a device with logits that nobody else has handed over yet.
struct LogitsPart {
  ValueId value{};
  std::uint32_t buffer = 0;  // Of the value's BoundLayout.
  DeviceId device{};
  std::size_t place = 0;  // Among the device's buffers of the value.
};

// The same on all devices and in the same order. Of replicas, the first one.
[[nodiscard]] std::vector<LogitsPart> logits_parts(const StepView& step);

// What the device has of them, one part after the other, as `place_logits` reads it.
[[nodiscard]] std::vector<float> own_logits(const StepView& step, const DeviceState& device);

// Puts the rows of a part into a step's output, whose logits are one vector per request.
void place_logits(const StepView& step, const LogitsPart& part, const float* data,
                  StepOutput& output);

}  // namespace weir
