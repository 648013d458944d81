#include "tests/plan/tensor_pipeline_plans.h"

#include <fmt/format.h>

#include "base/check.h"
#include "strategy/strategy.h"

namespace weir {

PlanHeader tensor_pipeline_header(const TensorPipelineCase& choice) {
  PlanHeader header = tiny_header(choice.tp * choice.pp);
  header.model = choice.model;
  header.logits = choice.logits;
  header.limits = choice.limits;
  for (PlanHeader::Device& device : header.devices) device.memory_bytes = choice.memory_bytes;
  return header;
}

StepLayouts tensor_pipeline_layouts(const TensorPipelineCase& choice) {
  const auto named = make_strategy("tp_pp",
                                   {{"tp", fmt::format("{}", choice.tp)},
                                    {"pp", fmt::format("{}", choice.pp)},
                                    {"microbatches", fmt::format("{}", choice.microbatches)}},
                                   choice.model);
  CHECK(named.has_value(), "a test asks for degrees that the model does not allow");
  StepShape step;
  for (const RequestLengths& lengths : choice.limits) {
    step.push_back({.past_len = lengths.kv_len - lengths.q_len,
                    .q_len = lengths.q_len,
                    .max_len = lengths.kv_len});
  }
  return named->strategy->layouts(step);
}

Plan tensor_pipeline_plan(const TensorPipelineCase& choice) {
  return lower(tensor_pipeline_header(choice), tensor_pipeline_layouts(choice));
}

}  // namespace weir
