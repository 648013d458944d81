#pragma once
// Getting a step's logits off its devices: which buffers hold them, and where their rows belong.

#include <vector>

#include "exec/device_state.h"
#include "exec/executor.h"

namespace weir {

// The same on all devices and in the same order. Of replicas, the first one. Follows from the plan
// and the numbers of new tokens.
[[nodiscard]] std::vector<LogitsPart> logits_parts(const StepView& step);

// What the device has of them, one part after the other, as `place_logits` reads it.
[[nodiscard]] std::vector<float> own_logits(const StepView& step, const DeviceState& device);

// Puts the rows of a part into a step's output, whose logits are one vector per request.
void place_logits(const StepView& step, const LogitsPart& part, const float* data,
                  StepOutput& output);

}  // namespace weir
