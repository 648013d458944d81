#pragma once
// What no arrangement of work can beat on given devices: arithmetic at the peaks of all of them,
// weights and KV cache read once per step at the peak bandwidth of all of them, and what must lie
// in one device's memory. Communication, launches and everything else are free here.

#include <cstdint>
#include <optional>
#include <string>

#include "base/dtype.h"
#include "spec/cluster.h"
#include "spec/model.h"

namespace weir {

struct BatchWork {
  std::int64_t batch_size = 1;
  std::int64_t seq_len = 1;  // Of each sequence, with its output.
  std::int64_t output_len = 1;
  DType dtype = DType::bf16;
};

// Least times in seconds.
struct LeastTime {
  double prefill = 0;      // Of the whole batch.
  double decode_step = 0;  // At the mean length.
  double total = 0;
  std::string says =
      {};  // "0.26 s of arithmetic for the prompts and 1.2 ms of ..., 8 devices at peak"
};
// nullopt where the device type lacks a peak.
[[nodiscard]] std::optional<LeastTime> least_time(const ModelSpec& model, const BatchWork& work,
                                                  const DeviceType& type, std::int64_t num_devices);

}  // namespace weir
