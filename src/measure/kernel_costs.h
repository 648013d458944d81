#pragma once
// The kernels of this machine's devices, measured by shape: what sim/cpu_model.cc reads its times
// from.

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "measure/ceilings.h"
#include "spec/cluster.h"

namespace weir {

// Of devices of `type` on these cores: one alone, and all at the same time where they share what is
// measured; each timing lasts `least_seconds`. `progress` is told what is next.
// `memory_now`: how fast memory is read at this moment (MemoryWatch), or empty.
// What is measured while that is not what it was at first is measured again, so that all curves are
// of one state of the machine; a machine that stays in the other one is taken as it is.
[[nodiscard]] MeasuredKernels measure_kernels(std::span<const std::vector<int>> cores,
                                              const DeviceType& type, double least_seconds,
                                              const std::function<void(std::string_view)>& progress,
                                              const std::function<MemoryRates()>& memory_now = {});

}  // namespace weir
