#include "spec/weights.h"

#include "base/check.h"

namespace weir {

std::string_view to_string(WeightKind kind) {
  using enum WeightKind;
  switch (kind) {
    case embedding:
      return "embedding";
    case attn_norm:
      return "attn_norm";
    case q_proj:
      return "q_proj";
    case k_proj:
      return "k_proj";
    case v_proj:
      return "v_proj";
    case q_bias:
      return "q_bias";
    case k_bias:
      return "k_bias";
    case v_bias:
      return "v_bias";
    case q_norm:
      return "q_norm";
    case k_norm:
      return "k_norm";
    case o_proj:
      return "o_proj";
    case o_bias:
      return "o_bias";
    case ffn_norm:
      return "ffn_norm";
    case gate_proj:
      return "gate_proj";
    case up_proj:
      return "up_proj";
    case down_proj:
      return "down_proj";
    case gate_bias:
      return "gate_bias";
    case up_bias:
      return "up_bias";
    case down_bias:
      return "down_bias";
    case final_norm:
      return "final_norm";
    case lm_head:
      return "lm_head";
  }
  CHECK(false, "unknown weight kind");
}

std::optional<WeightKind> parse_weight_kind(std::string_view name) {
  for (const WeightKind kind : kAllWeightKinds) {
    if (to_string(kind) == name) return kind;
  }
  return std::nullopt;
}

bool is_per_layer(WeightKind kind) {
  return kind != WeightKind::embedding && kind != WeightKind::final_norm &&
         kind != WeightKind::lm_head;
}

bool has_weight(const ModelSpec& model, WeightKind kind) {
  using enum WeightKind;
  switch (kind) {
    case q_bias:
    case k_bias:
    case v_bias:
      return model.qkv_bias;
    case q_norm:
    case k_norm:
      return model.qk_norm;
    case o_bias:
      return model.o_bias;
    case gate_proj:
      return model.gated_ffn;
    case gate_bias:
      return model.gated_ffn && model.ffn_bias;
    case up_bias:
    case down_bias:
      return model.ffn_bias;
    case embedding:
    case attn_norm:
    case q_proj:
    case k_proj:
    case v_proj:
    case o_proj:
    case ffn_norm:
    case up_proj:
    case down_proj:
    case final_norm:
    case lm_head:
      return true;
  }
  CHECK(false, "unknown weight kind");
}

WeightShape shape_of(const ModelSpec& model, WeightKind kind) {
  using enum WeightKind;
  const std::int64_t hidden = model.hidden_size;
  const std::int64_t q = model.num_q_heads * model.head_dim;
  const std::int64_t kv = model.num_kv_heads * model.head_dim;
  switch (kind) {
    case embedding:
    case lm_head:
      return {.rows = model.vocab_size, .cols = hidden};
    case attn_norm:
    case ffn_norm:
    case final_norm:
    case o_bias:
    case down_bias:
      return {.rows = 1, .cols = hidden};
    case q_proj:
      return {.rows = q, .cols = hidden};
    case k_proj:
    case v_proj:
      return {.rows = kv, .cols = hidden};
    case q_bias:
      return {.rows = 1, .cols = q};
    case k_bias:
    case v_bias:
      return {.rows = 1, .cols = kv};
    case q_norm:
    case k_norm:
      return {.rows = 1, .cols = model.head_dim};
    case o_proj:
      return {.rows = hidden, .cols = q};
    case gate_proj:
    case up_proj:
      return {.rows = model.intermediate_size, .cols = hidden};
    case down_proj:
      return {.rows = hidden, .cols = model.intermediate_size};
    case gate_bias:
    case up_bias:
      return {.rows = 1, .cols = model.intermediate_size};
  }
  CHECK(false, "unknown weight kind");
}

}  // namespace weir
