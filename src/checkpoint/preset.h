#pragma once
// The models that Weir can make by itself: the ones that the source notes describe, at any power of
// two of their width, and two small ones of its own.

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/dtype.h"
#include "base/result.h"
#include "checkpoint/model_folder.h"
#include "spec/model.h"

namespace weir {

struct Preset {
  std::string_view name;
  std::string_view description;  // One line.
  // What the source notes claim; `count_parameters` says what their dimensions come to.
  std::optional<double> claimed_parameters = {};
  bool is_constructed = false;  // Weights are computed (recall.h), not drawn.
};

// tiny, fa-pool-4l, two-level-2l, cache-16l, recall.
[[nodiscard]] std::span<const Preset> presets();

struct PresetOptions {
  // Multiplies the width (hidden_size, intermediate_size, heads) of the full model: a power of two
  // in 1/256..8. Below 1, heads go first, down to 4; then head_dim, down to 16; where there is
  // nothing left to halve, the scale is refused. Layers and vocabulary stay.
  double scale = 1;
  DType dtype = DType::f32;
  std::optional<std::int64_t> vocab_size = {};    // At least 258.
  std::optional<std::int64_t> max_position = {};  // Longest context.
};

// The spec of a preset. A constructed preset allows no option but the dtype.
[[nodiscard]] Result<ModelSpec> preset_model(std::string_view name, const PresetOptions& options);

// Writes a model folder of the preset: random weights, or the constructed ones.
[[nodiscard]] Status write_preset_model(const std::string& folder, std::string_view name,
                                        const PresetOptions& preset,
                                        const WriteModelOptions& options = {});

}  // namespace weir
