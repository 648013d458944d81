#pragma once
// Predicted time per output token held against that of served models. Nothing is fitted to these
// rows: kernels, collectives, plan and the server's cycle are put together as they are.

#include <filesystem>

#include "base/result.h"
#include "sim/accuracy.h"

namespace weir {

// Adds what aic_e2e_*.csv in `folder` has of models with bf16 weights, split by tensor parallelism
// on one node. Fails where a file is there but is not of its format.
[[nodiscard]] Status add_serving_accuracy(const std::filesystem::path& folder,
                                          AccuracyReport& report);

}  // namespace weir
