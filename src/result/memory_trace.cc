#include "result/memory_trace.h"

#include <algorithm>

namespace weir {

const MemorySample& MemoryTrace::peak(DeviceId device) const {
  const std::vector<MemorySample>& samples = devices[index_of(device)];
  return *std::ranges::max_element(
      samples, {}, [](const MemorySample& sample) { return sample.memory.total(); });
}

}  // namespace weir
