#pragma once
// Getting a step's logits off its devices. Each device has some rows, or some columns of them; of
// replicas, only the first one counts.

#include <vector>

#include "exec/device_state.h"
#include "exec/executor.h"

namespace weir {

// Room for all logits of the step, which its devices may then fill side by side. What an output of
// an earlier step holds is used again.
void make_room(const StepView& step, StepOutput& output);

// Puts the device's own into the step's output.
void place_own_logits(const StepView& step, const DeviceState& device, StepOutput& output);

// The same for a device elsewhere: what it has, one buffer after the other,
[[nodiscard]] std::vector<float> own_logits(const StepView& step, const DeviceState& device);
// and where that belongs.
void place_logits(const StepView& step, DeviceId device, const float* data, StepOutput& output);

}  // namespace weir
