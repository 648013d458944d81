#pragma once
// Models with random weights: the shapes, costs and file formats of a real model, without its
// training. For timing, and for comparing ways of splitting with each other.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "checkpoint/model_folder.h"
#include "spec/model.h"

namespace weir {

// Writes `model`, of any architecture, to `folder` (see write_model_folder) with weights drawn so
// that activations stay near 1: matrices have the deviation 1 / sqrt(cols), norms lie around 1,
// biases around 0. The same seed gives the same values in every dtype, rounded to it, and however
// the files are sharded. The vocabulary holds the 256 bytes, "<s>" (256) and "</s>" (257); a
// smaller one is refused.
[[nodiscard]] Status write_random_model(const std::string& folder, const ModelSpec& model,
                                        const WriteModelOptions& options = {});

// The token ids that end and begin a sequence of a random model.
inline constexpr std::int64_t kRandomModelBos = 256;
inline constexpr std::int64_t kRandomModelEos = 257;

// A random fill with the given mean and standard deviation, seeded by `seed` and the name.
[[nodiscard]] TensorFill random_fill(std::uint64_t seed, std::string_view name, double mean,
                                     double deviation);

}  // namespace weir
