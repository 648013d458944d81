#pragma once
// One prediction as people and as programs read it.

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "app/fit_search.h"
#include "app/predict.h"

namespace weir {

// `changes` are shown with a shortage; they are those of the same input.
[[nodiscard]] std::string prediction_page(const PredictionInput& input,
                                          const Prediction& prediction,
                                          const std::vector<FittingChange>& changes);
[[nodiscard]] nlohmann::json prediction_to_json(const PredictionInput& input,
                                                const Prediction& prediction,
                                                const std::vector<FittingChange>& changes);

}  // namespace weir
