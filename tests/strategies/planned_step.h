#pragma once
// One step of a strategy, planned and validated, and the bytes that it moves by what they are. For
// tests that hold plans of strategies against figures worked out by hand.

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "plan/validate.h"
#include "strategy/strategy.h"

namespace weir {

struct StepSetup {
  ModelSpec model;
  std::string strategy;
  OptionValues options;
  StepShape step;
  DType activation_dtype = DType::f32;
  DType kv_dtype = DType::f32;
  LogitsWanted logits = LogitsWanted::all;
};

struct PlannedStep {
  ValidPlan plan;
  StepLengths lengths;
};

// Devices without a memory limit. A setup that has no valid plan fails
// the test that asks for it.
[[nodiscard]] std::optional<PlannedStep> planned(const StepSetup& setup);

// Bytes between devices in one layer, by what is moved.
struct LayerBytes {
  std::int64_t q = 0;          // To where the attention is.
  std::int64_t kv = 0;         // K and V to where they are kept.
  std::int64_t kv_rounds = 0;  // K and V from one round of attention to the next.
  std::int64_t scores = 0;
  std::int64_t attention = 0;  // Outputs and partial outputs.
  std::int64_t branches = 0;   // What attention and FFN add to the residual.

  bool operator==(const LayerBytes&) const = default;
};

struct StepBytes {
  std::int64_t embedding = 0;
  std::vector<LayerBytes> layers;
  std::int64_t stages = 0;  // The residual from stage to stage.
  std::int64_t logits = 0;  // The residual to the last layer's last rows and to lm_head, and its
                            // logits to the sampler.

  bool operator==(const StepBytes&) const = default;
};
void PrintTo(const StepBytes& bytes, std::ostream* out);

[[nodiscard]] StepBytes bytes_by_kind(const PlannedStep& step);

}  // namespace weir
