#pragma once
// A valid plan as tables for people: what each device does, holds and sends in a step of given
// lengths, and what happens in each layer.

#include <cstdint>
#include <string>
#include <vector>

#include "plan/validate.h"
#include "report/table.h"

namespace weir {

// What one device does in a step.
struct DeviceShare {
  std::int64_t flops = 0;
  std::int64_t bytes_sent = 0;        // To other devices; all devices' together are the plan's.
  std::vector<std::int64_t> layers;   // Where it computes, ascending.
  std::vector<std::int64_t> q_heads;  // Whose attention it computes in some layer, ascending.
};
[[nodiscard]] std::vector<DeviceShare> shares_of(const Plan& plan, const StepLengths& lengths);

[[nodiscard]] Table device_table(const ValidPlan& plan, const StepLengths& lengths);

// The ops of every layer in order, one section per run of layers with the same ops.
[[nodiscard]] std::string layer_tables(const ValidPlan& plan, const StepLengths& lengths);

}  // namespace weir
