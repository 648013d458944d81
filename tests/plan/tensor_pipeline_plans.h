#pragma once
// Plans of the tp_pp strategy on the tiny model, for tests that start from a valid plan.

#include <cstdint>
#include <optional>

#include "tests/plan/plans_for_tests.h"

namespace weir {

struct TensorPipelineCase {
  std::int64_t tp = 1;
  std::int64_t pp = 1;
  std::int64_t microbatches = 1;
  StepLengths limits = {{.q_len = 4, .kv_len = 12}};  // One entry per request.
  ModelSpec model = tiny_model();
  LogitsWanted logits = LogitsWanted::all;
  std::optional<std::int64_t> memory_bytes = {};  // Of every device.
};

[[nodiscard]] Plan tensor_pipeline_plan(const TensorPipelineCase& choice);
// The same, before lowering.
[[nodiscard]] PlanHeader tensor_pipeline_header(const TensorPipelineCase& choice);
[[nodiscard]] StepLayouts tensor_pipeline_layouts(const TensorPipelineCase& choice);

}  // namespace weir
