#include <cmath>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "spec/model.h"

namespace weir {
namespace {

using nlohmann::json;

std::string_view config_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
  }
  return "unknown";
}

std::string_view class_name(Architecture architecture) {
  switch (architecture) {
    case Architecture::llama:
      return "LlamaForCausalLM";
    case Architecture::mistral:
      return "MistralForCausalLM";
    case Architecture::qwen2:
      return "Qwen2ForCausalLM";
    case Architecture::qwen3:
      return "Qwen3ForCausalLM";
    case Architecture::phi3:
      return "Phi3ForCausalLM";
    case Architecture::dense:
      return "WeirDenseForCausalLM";
  }
  return "unknown";
}

// A published architecture has its biases, norms and FFN built in; another one cannot be written as
// it.
bool fits_architecture(const ModelSpec& model) {
  const bool no_bias = !model.qkv_bias && !model.o_bias && !model.ffn_bias;
  switch (model.architecture) {
    case Architecture::llama:
      return model.gated_ffn && !model.qk_norm && model.qkv_bias == model.o_bias &&
             !model.sliding_window;
    case Architecture::mistral:
    case Architecture::phi3:
      return model.gated_ffn && !model.qk_norm && no_bias;
    case Architecture::qwen2:
      return model.gated_ffn && !model.qk_norm && model.qkv_bias && !model.o_bias &&
             !model.ffn_bias;
    case Architecture::qwen3:
      return model.gated_ffn && model.qk_norm && model.qkv_bias == model.o_bias && !model.ffn_bias;
    case Architecture::dense:
      return true;
  }
  return false;
}

json scaling_of(const std::monostate&) { return nullptr; }

json scaling_of(const LinearRope& rope) {
  return {{"rope_type", "linear"}, {"factor", rope.factor}};
}

json scaling_of(const DynamicRope& rope) {
  return {{"rope_type", "dynamic"}, {"factor", rope.factor}};
}

json scaling_of(const Llama3Rope& rope) {
  return {{"rope_type", "llama3"},
          {"factor", rope.factor},
          {"low_freq_factor", rope.low_freq_factor},
          {"high_freq_factor", rope.high_freq_factor},
          {"original_max_position_embeddings", rope.original_max_position}};
}

json scaling_of(const YarnRope& rope) {
  return {{"rope_type", "yarn"},
          {"factor", rope.factor},
          {"beta_fast", rope.beta_fast},
          {"beta_slow", rope.beta_slow},
          {"attention_factor", rope.attention_factor},
          {"truncate", rope.truncate},
          {"original_max_position_embeddings", rope.original_max_position}};
}

json scaling_of(const LongRope& rope) {
  return {{"rope_type", "longrope"},
          {"short_factor", rope.short_factor},
          {"long_factor", rope.long_factor},
          {"attention_factor", rope.attention_factor},
          {"original_max_position_embeddings", rope.original_max_position}};
}

// The share of a head that rotates, such that truncating head_dim * share gives back rotary_dim.
double rotary_share(const ModelSpec& model) {
  const auto head_dim = static_cast<double>(model.head_dim);
  const auto rotary_dim = static_cast<double>(model.rope.rotary_dim);
  const double share = rotary_dim / head_dim;
  return std::floor(share * head_dim) == rotary_dim ? share : (rotary_dim + 0.5) / head_dim;
}

void write_rope(const ModelSpec& model, json& config) {
  config["rope_theta"] = model.rope.theta;
  config["rope_scaling"] =
      std::visit([](const auto& scaling) { return scaling_of(scaling); }, model.rope.scaling);
  const bool may_be_partial =
      model.architecture == Architecture::phi3 || model.architecture == Architecture::dense;
  if (may_be_partial) {
    config["partial_rotary_factor"] = rotary_share(model);
  } else {
    CHECK(model.rope.rotary_dim == model.head_dim, "only phi3 and weir_dense rotate a part");
  }
  if (model.architecture == Architecture::phi3) {
    // Phi-3's class reads the original length here only.
    const auto* const longrope = std::get_if<LongRope>(&model.rope.scaling);
    if (longrope != nullptr) {
      config["original_max_position_embeddings"] = longrope->original_max_position;
    }
  }
}

void write_window(const ModelSpec& model, json& config) {
  const json window = model.sliding_window ? json(*model.sliding_window) : json(nullptr);
  switch (model.architecture) {
    case Architecture::llama:
      return;
    case Architecture::qwen2:
    case Architecture::qwen3:
      config["use_sliding_window"] = model.sliding_window.has_value();
      config["max_window_layers"] = model.sliding_window ? 0 : model.num_layers;
      config["sliding_window"] = window;
      return;
    case Architecture::mistral:
    case Architecture::phi3:
    case Architecture::dense:
      config["sliding_window"] = window;
      return;
  }
}

void write_biases(const ModelSpec& model, json& config) {
  switch (model.architecture) {
    case Architecture::llama:
      config["attention_bias"] = model.qkv_bias;
      config["mlp_bias"] = model.ffn_bias;
      return;
    case Architecture::qwen3:
      config["attention_bias"] = model.qkv_bias;
      return;
    case Architecture::mistral:
    case Architecture::qwen2:
    case Architecture::phi3:
      return;
    case Architecture::dense:
      config["gated_ffn"] = model.gated_ffn;
      config["qkv_bias"] = model.qkv_bias;
      config["o_bias"] = model.o_bias;
      config["ffn_bias"] = model.ffn_bias;
      config["qk_norm"] = model.qk_norm;
      return;
  }
}

json token_ids(const std::vector<std::int64_t>& ids) {
  if (ids.empty()) return nullptr;
  if (ids.size() == 1) return ids.front();
  return ids;
}

}  // namespace

json config_of(const ModelSpec& model) {
  CHECK(fits_architecture(model), "the model is one that its architecture can be");
  json config{{"model_type", to_string(model.architecture)},
              {"architectures", json::array({class_name(model.architecture)})},
              {"num_hidden_layers", model.num_layers},
              {"hidden_size", model.hidden_size},
              {"intermediate_size", model.intermediate_size},
              {"vocab_size", model.vocab_size},
              {"num_attention_heads", model.num_q_heads},
              {"num_key_value_heads", model.num_kv_heads},
              {"head_dim", model.head_dim},
              {"max_position_embeddings", model.max_position},
              {"rms_norm_eps", model.rms_norm_eps},
              {"hidden_act", to_string(model.activation)},
              {"tie_word_embeddings", model.tied_embeddings},
              {"torch_dtype", config_name(model.weight_dtype)},
              {"eos_token_id", token_ids(model.eos_token_ids)},
              {"bos_token_id", model.bos_token_id ? json(*model.bos_token_id) : json(nullptr)}};
  // Phi-3's class would otherwise pad with token 32000, which a smaller vocabulary has not.
  config["pad_token_id"] = nullptr;
  write_rope(model, config);
  write_window(model, config);
  write_biases(model, config);
  return config;
}

}  // namespace weir
