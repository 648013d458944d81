#pragma once
// Which tensors a checkpoint of a model stores, what published checkpoints call them, and which
// logical weights (spec/weights.h) lie in each.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spec/model.h"
#include "spec/weights.h"

namespace weir {

struct ModelTensor {
  std::string name;
  std::vector<std::int64_t> shape;  // One dimension for norms and biases, two for matrices.
  // The weights stacked in it, by rows (a bias or norm counts as one row). More than one where an
  // architecture fuses projections.
  std::vector<WeightKind> weights;
  std::int64_t layer = 0;  // 0 for weights that no layer owns.
};

// Every tensor of the model in the order of the computation. A tied lm_head is not stored.
[[nodiscard]] std::vector<ModelTensor> model_tensors(const ModelSpec& model);

// Tensors that published checkpoints hold beside the weights and that Weir computes itself or does
// not need: tables of rotary frequencies, and a copy of the embedding as the head of a tied model.
[[nodiscard]] bool is_ignored_tensor(const ModelSpec& model, std::string_view name);

}  // namespace weir
