#pragma once
// What the machine can do at most, measured in the same run as the kernels that are judged by it.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernel/team.h"

namespace weir {

// f32 multiply-adds in registers on every worker of the team, with the longest vectors.
[[nodiscard]] double fma_flops_per_s(Team& team);

// bf16 on AMX tiles in registers; 0 where there are none (kernel/amx.h).
[[nodiscard]] double amx_flops_per_s(Team& team);

// Reading `bytes` of memory again and again, each worker its own part: the rate of the cache that
// holds them. The default is many times any last-level cache that a few cores have to themselves.
inline constexpr std::int64_t kFarMoreThanCaches = std::int64_t{256} << 20;
[[nodiscard]] double read_bytes_per_s(Team& team, std::int64_t bytes = kFarMoreThanCaches);

// The same asked again and again, for it changes: the host of a virtual machine moves its cores
// about, and two that read 85 GB/s together read 48 when they have come to share a way to memory;
// one alone reads 36 in some minutes and 24 in others.
struct MemoryRates {
  double alone = 0;     // Bytes per second, of the first device,
  double together = 0;  // and of all.

  bool operator==(const MemoryRates&) const = default;
};
// Whether these are rates of the same state of the machine.
[[nodiscard]] bool is_same_memory(const MemoryRates& a, const MemoryRates& b);

// The cores of all devices, in their order.
[[nodiscard]] std::vector<int> joined(std::span<const std::vector<int>> cores);

class MemoryWatch {
 public:
  // Of devices on these cores.
  explicit MemoryWatch(std::span<const std::vector<int>> cores);
  ~MemoryWatch();
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;

  // At this moment. Takes some 60 ms.
  [[nodiscard]] MemoryRates rates();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace weir
