#include "checkpoint/model_tensors.h"

#include <initializer_list>
#include <span>

#include <fmt/format.h>

#include "base/check.h"

namespace weir {
namespace {

// The tensor's name without the layer's prefix.
std::string_view stored_name(WeightKind kind) {
  using enum WeightKind;
  switch (kind) {
    case embedding:
      return "model.embed_tokens.weight";
    case attn_norm:
      return "input_layernorm.weight";
    case q_proj:
      return "self_attn.q_proj.weight";
    case k_proj:
      return "self_attn.k_proj.weight";
    case v_proj:
      return "self_attn.v_proj.weight";
    case q_bias:
      return "self_attn.q_proj.bias";
    case k_bias:
      return "self_attn.k_proj.bias";
    case v_bias:
      return "self_attn.v_proj.bias";
    case q_norm:
      return "self_attn.q_norm.weight";
    case k_norm:
      return "self_attn.k_norm.weight";
    case o_proj:
      return "self_attn.o_proj.weight";
    case o_bias:
      return "self_attn.o_proj.bias";
    case ffn_norm:
      return "post_attention_layernorm.weight";
    case gate_proj:
      return "mlp.gate_proj.weight";
    case up_proj:
      return "mlp.up_proj.weight";
    case down_proj:
      return "mlp.down_proj.weight";
    case gate_bias:
      return "mlp.gate_proj.bias";
    case up_bias:
      return "mlp.up_proj.bias";
    case down_bias:
      return "mlp.down_proj.bias";
    case final_norm:
      return "model.norm.weight";
    case lm_head:
      return "lm_head.weight";
  }
  CHECK(false, "unknown weight kind");
}

ModelTensor tensor_of(const ModelSpec& model, std::string_view name,
                      std::initializer_list<WeightKind> weights, std::int64_t layer) {
  const WeightKind first = *weights.begin();
  WeightShape shape = shape_of(model, first);
  // A norm or a bias is one row of a matrix to Weir, and has one dimension in a checkpoint.
  const bool is_vector = name.ends_with("norm.weight") || name.ends_with(".bias");
  for (const WeightKind other : std::span(weights).subspan(1)) {
    shape.rows += shape_of(model, other).rows;
  }
  ModelTensor tensor{.name = is_per_layer(first) ? fmt::format("model.layers.{}.{}", layer, name)
                                                 : std::string(name),
                     .shape = {},
                     .weights = weights,
                     .layer = layer};
  if (!is_vector) tensor.shape.push_back(shape.rows);
  tensor.shape.push_back(shape.cols);
  return tensor;
}

void add_layer(const ModelSpec& model, std::int64_t layer, std::vector<ModelTensor>& tensors) {
  using enum WeightKind;
  const auto fused = [&](std::string_view name, std::initializer_list<WeightKind> weights) {
    tensors.push_back(tensor_of(model, name, weights, layer));
  };
  const auto single = [&](std::initializer_list<WeightKind> kinds) {
    for (const WeightKind kind : kinds) {
      if (has_weight(model, kind)) fused(stored_name(kind), {kind});
    }
  };
  const bool is_fused = model.architecture == Architecture::phi3;
  single({attn_norm});
  if (is_fused) {
    fused("self_attn.qkv_proj.weight", {q_proj, k_proj, v_proj});
  } else {
    single({q_proj, k_proj, v_proj, q_bias, k_bias, v_bias});
  }
  single({q_norm, k_norm, o_proj, o_bias, ffn_norm});
  if (is_fused) {
    fused("mlp.gate_up_proj.weight", {gate_proj, up_proj});
  } else {
    single({gate_proj, gate_bias, up_proj, up_bias});
  }
  single({down_proj, down_bias});
}

}  // namespace

std::vector<ModelTensor> model_tensors(const ModelSpec& model) {
  using enum WeightKind;
  const auto shared = [&](WeightKind kind) {
    return tensor_of(model, stored_name(kind), {kind}, 0);
  };
  std::vector<ModelTensor> tensors;
  tensors.push_back(shared(embedding));
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer) add_layer(model, layer, tensors);
  tensors.push_back(shared(final_norm));
  if (!model.tied_embeddings) tensors.push_back(shared(lm_head));
  return tensors;
}

bool is_ignored_tensor(const ModelSpec& model, std::string_view name) {
  const bool is_rotary_table = name.find(".rotary_emb.") != std::string_view::npos;
  return is_rotary_table || (model.tied_embeddings && name == stored_name(WeightKind::lm_head));
}

}  // namespace weir
