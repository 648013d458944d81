#pragma once
// The logical weights of a model: which matrices there are and their shapes, whatever a checkpoint
// calls or fuses them. A plan places weights by these names, a checkpoint finds their bytes, a
// simulator counts them.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "spec/model.h"

namespace weir {

enum class WeightKind : std::uint8_t {
  embedding,   // [vocab_size, H]
  attn_norm,   // [1, H]
  q_proj,      // [N * D, H]
  k_proj,      // [G * D, H]
  v_proj,      // [G * D, H]
  q_bias,      // [1, N * D]
  k_bias,      // [1, G * D]
  v_bias,      // [1, G * D]
  q_norm,      // [1, D]
  k_norm,      // [1, D]
  o_proj,      // [H, N * D]
  o_bias,      // [1, H]
  ffn_norm,    // [1, H]
  gate_proj,   // [F, H], gated FFN only
  up_proj,     // [F, H]
  down_proj,   // [H, F]
  gate_bias,   // [1, F]
  up_bias,     // [1, F]
  down_bias,   // [1, H]
  final_norm,  // [1, H]
  lm_head,     // [vocab_size, H]; the embedding again when tied
};

inline constexpr std::array kAllWeightKinds = {
    WeightKind::embedding, WeightKind::attn_norm, WeightKind::q_proj,    WeightKind::k_proj,
    WeightKind::v_proj,    WeightKind::q_bias,    WeightKind::k_bias,    WeightKind::v_bias,
    WeightKind::q_norm,    WeightKind::k_norm,    WeightKind::o_proj,    WeightKind::o_bias,
    WeightKind::ffn_norm,  WeightKind::gate_proj, WeightKind::up_proj,   WeightKind::down_proj,
    WeightKind::gate_bias, WeightKind::up_bias,   WeightKind::down_bias, WeightKind::final_norm,
    WeightKind::lm_head};

struct WeightShape {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  bool operator==(const WeightShape&) const = default;
};

[[nodiscard]] std::string_view to_string(WeightKind kind);
[[nodiscard]] std::optional<WeightKind> parse_weight_kind(std::string_view name);
// True for kinds of which every layer has its own.
[[nodiscard]] bool is_per_layer(WeightKind kind);
// Does this model have such a weight? lm_head: always (its bytes may be the embedding's).
[[nodiscard]] bool has_weight(const ModelSpec& model, WeightKind kind);
// Shape of the whole weight. The model must have it.
[[nodiscard]] WeightShape shape_of(const ModelSpec& model, WeightKind kind);

}  // namespace weir
