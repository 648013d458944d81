#pragma once
// What would make a plan fit that does not: single changes, each recomputed as it stands, so that
// what is said to fit does.

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "app/predict.h"

namespace weir {

struct FittingChange {
  std::string flags;       // "--batch 12"
  std::string instead_of;  // "64"
  std::int64_t num_devices = 1;
};

// Smallest first: on the same devices a smaller dtype of the KV cache, then of activations, more
// microbatches (the fewest that fit), fewer requests and shorter prompts (the most that fit); then
// more devices, the fewest first, on a larger cluster of the same kind where this one has too few;
// then as many devices of a type with more memory, the smallest that fits. Empty where no single
// change suffices.
[[nodiscard]] std::vector<FittingChange> find_fitting_changes(const PredictionInput& input);

// "it would fit with any one of these, ...": a line each.
[[nodiscard]] std::string fitting_changes_text(const std::vector<FittingChange>& changes);
[[nodiscard]] nlohmann::json fitting_changes_to_json(const std::vector<FittingChange>& changes);

}  // namespace weir
