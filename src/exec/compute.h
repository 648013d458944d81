#pragma once
// The compute ops of a plan on one device: finds the buffers, calls the kernels.

#include "exec/device_state.h"

namespace weir {

// Runs the node's task on the device. Inputs must be ready; the outputs are allocated here and left
// for the caller to mark. Throws std::bad_alloc when memory runs out.
void run_compute(const StepView& step, DeviceState& device, NodeId node, const TaskWeights& weights,
                 TaskFacts& facts);

}  // namespace weir
