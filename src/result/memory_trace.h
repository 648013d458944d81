#pragma once
// What every device holds at every instant of a step, in the categories of plan/memory.h.

#include <vector>

#include "base/ids.h"
#include "base/units.h"
#include "plan/memory.h"

namespace weir {

// From `time` to the next sample.
struct MemorySample {
  SimTime time;
  DeviceMemory memory;

  bool operator==(const MemorySample&) const = default;
};

struct MemoryTrace {
  std::vector<std::vector<MemorySample>> devices;  // By DeviceId; times ascend, the first is the
                                                   // step's start.
  // The sample with the largest total, the first of equals.
  [[nodiscard]] const MemorySample& peak(DeviceId device) const;
};

}  // namespace weir
