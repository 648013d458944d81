#pragma once
// Small models and layouts written by hand, so that tests of plans do not depend on any strategy.

#include <vector>

#include "plan/lower.h"

namespace weir {

// A gated, grouped-query model: 4 query heads on 2 KV heads of 8, hidden 32, FFN 64, vocabulary 96.
[[nodiscard]] ModelSpec tiny_model(std::int64_t num_layers = 2);

// bf16, all logits, `num_requests` requests of up to 16 new tokens and 64 positions.
[[nodiscard]] PlanHeader tiny_header(std::int64_t num_devices, std::int64_t num_layers = 2,
                                     std::int64_t num_requests = 1);

[[nodiscard]] std::vector<DeviceId> device_range(std::uint32_t begin, std::uint32_t end);

// Heads, FFN columns and vocabulary in even parts over `group`, everything else on all of it; one
// microbatch of all requests. Of a group of one device: everything there.
[[nodiscard]] LayerLayouts tensor_parallel_layer(const ModelSpec& model,
                                                 const std::vector<DeviceId>& group);
[[nodiscard]] StepLayouts tensor_parallel_layouts(const PlanHeader& header,
                                                  const std::vector<DeviceId>& group);
// The first half of the layers on `first`, the rest on `second`.
[[nodiscard]] StepLayouts two_stage_layouts(const PlanHeader& header,
                                            const std::vector<DeviceId>& first,
                                            const std::vector<DeviceId>& second);

[[nodiscard]] Plan single_device_plan();
[[nodiscard]] Plan tensor_parallel_plan(std::int64_t tp = 2);
[[nodiscard]] Plan two_stage_plan();

}  // namespace weir
