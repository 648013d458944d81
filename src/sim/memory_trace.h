#pragma once
// What every device holds at every instant of a simulated or measured step, in the categories of
// plan/memory.h. A buffer is there from the start of the task that writes it to the end of the last
// task on its device that reads it; weights and the KV cache (for the lengths after the step) are
// there all the time.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plan/lower.h"
#include "plan/memory.h"
#include "plan/plan.h"
#include "result/memory_trace.h"
#include "result/timeline.h"

namespace weir {

// The tasks of `step` must be a run of `plan` (result/paths.h) with these lengths.
[[nodiscard]] MemoryTrace trace_memory(const Timeline& timeline, std::int32_t step,
                                       const Plan& plan, const StepLengths& lengths);

// Why a device's memory is too small: the first device, in the order of ids, whose need is above
// its capacity.
struct MemoryShortage {
  DeviceId device{};
  std::int64_t capacity = 0;
  DeviceMemory need;
  std::string_view category;  // The largest of `need`.
  std::int64_t missing = 0;   // Bytes over capacity.
};
// `devices` and `need` by DeviceId; a device without a capacity has room for everything.
[[nodiscard]] std::optional<MemoryShortage> find_shortage(
    std::span<const PlanHeader::Device> devices, const std::vector<DeviceMemory>& need);
// "device node/gpu0 needs 91.20 GB and has 80.00 GB; the largest part is weights, 70.00 GB".
[[nodiscard]] std::string describe(std::span<const PlanHeader::Device> devices,
                                   const MemoryShortage& shortage);

}  // namespace weir
