#include "spec/model.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "spec/model_rope.h"

namespace weir {
namespace {

using nlohmann::json;

// What a key that the config leaves out means; transformers 5's configuration classes.
struct ConfigDefaults {
  Architecture architecture;
  std::string_view model_type;
  std::int64_t max_position;
  double rms_norm_eps;
  std::optional<std::int64_t> num_kv_heads;  // nullopt: as many as query heads.
  std::optional<std::int64_t> head_dim;      // nullopt: hidden_size / num_attention_heads.
  std::optional<std::int64_t> sliding_window;
  std::optional<std::int64_t> bos_token_id;
  std::optional<std::int64_t> eos_token_id;
};

constexpr std::array kArchitectures{
    ConfigDefaults{.architecture = Architecture::llama,
                   .model_type = "llama",
                   .max_position = 2048,
                   .rms_norm_eps = 1e-6,
                   .num_kv_heads = {},
                   .head_dim = {},
                   .sliding_window = {},
                   .bos_token_id = 1,
                   .eos_token_id = 2},
    ConfigDefaults{.architecture = Architecture::mistral,
                   .model_type = "mistral",
                   .max_position = 131072,
                   .rms_norm_eps = 1e-6,
                   .num_kv_heads = 8,
                   .head_dim = {},
                   .sliding_window = 4096,
                   .bos_token_id = 1,
                   .eos_token_id = 2},
    ConfigDefaults{.architecture = Architecture::qwen2,
                   .model_type = "qwen2",
                   .max_position = 32768,
                   .rms_norm_eps = 1e-6,
                   .num_kv_heads = 32,
                   .head_dim = {},
                   .sliding_window = 4096,
                   .bos_token_id = {},
                   .eos_token_id = {}},
    ConfigDefaults{.architecture = Architecture::qwen3,
                   .model_type = "qwen3",
                   .max_position = 32768,
                   .rms_norm_eps = 1e-6,
                   .num_kv_heads = 32,
                   .head_dim = 128,
                   .sliding_window = 4096,
                   .bos_token_id = {},
                   .eos_token_id = {}},
    ConfigDefaults{.architecture = Architecture::phi3,
                   .model_type = "phi3",
                   .max_position = 4096,
                   .rms_norm_eps = 1e-5,
                   .num_kv_heads = {},
                   .head_dim = {},
                   .sliding_window = {},
                   .bos_token_id = 1,
                   .eos_token_id = 32000},
    ConfigDefaults{.architecture = Architecture::dense,
                   .model_type = "weir_dense",
                   .max_position = 2048,
                   .rms_norm_eps = 1e-6,
                   .num_kv_heads = {},
                   .head_dim = {},
                   .sliding_window = {},
                   .bos_token_id = {},
                   .eos_token_id = {}},
};

// Keys that do not change what a trained model computes. Only `weir_dense` needs the list: it
// refuses every key that is neither read nor listed here.
constexpr std::array<std::string_view, 16> kHarmlessKeys{
    "_name_or_path",       "architectures",        "attention_dropout", "auto_map",
    "attn_implementation", "_attn_implementation", "initializer_range", "model_type",
    "output_attentions",   "output_hidden_states", "pad_token_id",      "return_dict",
    "tokenizer_class",     "transformers_version", "unk_token_id",      "use_cache",
};

// Keys of published configs that change the computation in a way that Weir does not do. Absent,
// null, false, 0, empty or `neutral` means that the feature is off.
struct UnsupportedKey {
  std::string_view key;
  std::string_view feature;
  std::optional<double> neutral = {};
};
constexpr std::array kUnsupportedKeys{
    UnsupportedKey{"quantization_config", "quantized weights"},
    UnsupportedKey{"compression_config", "quantized weights"},
    UnsupportedKey{"num_experts", "mixture of experts"},
    UnsupportedKey{"num_local_experts", "mixture of experts"},
    UnsupportedKey{"n_routed_experts", "mixture of experts"},
    UnsupportedKey{"n_shared_experts", "mixture of experts"},
    UnsupportedKey{"num_experts_per_tok", "mixture of experts"},
    UnsupportedKey{"moe_intermediate_size", "mixture of experts"},
    UnsupportedKey{"pretraining_tp", "sliced projections", 1},
    UnsupportedKey{"kv_lora_rank", "latent attention"},
    UnsupportedKey{"q_lora_rank", "latent attention"},
    UnsupportedKey{"v_head_dim", "a head_dim of its own for V"},
    UnsupportedKey{"attention_chunk_size", "chunked attention"},
    UnsupportedKey{"attention_sinks", "attention sinks"},
    UnsupportedKey{"use_bidirectional_attention", "bidirectional attention"},
    UnsupportedKey{"add_cross_attention", "cross attention"},
    UnsupportedKey{"is_encoder_decoder", "an encoder"},
    UnsupportedKey{"alibi", "ALiBi"},
    UnsupportedKey{"no_rope_layers", "layers without RoPE"},
    UnsupportedKey{"no_rope_layer_interval", "layers without RoPE"},
    UnsupportedKey{"rope_interleave", "interleaved rotary pairs"},
    UnsupportedKey{"rope_interleaved", "interleaved rotary pairs"},
    UnsupportedKey{"clip_qkv", "clipped projections"},
    UnsupportedKey{"attn_logit_softcapping", "soft-capped scores"},
    UnsupportedKey{"final_logit_softcapping", "soft-capped logits"},
    UnsupportedKey{"query_pre_attn_scalar", "a score scale other than 1 / sqrt(head_dim)"},
    UnsupportedKey{"attention_multiplier", "a score scale other than 1 / sqrt(head_dim)"},
    UnsupportedKey{"embedding_multiplier", "scaled embeddings", 1},
    UnsupportedKey{"residual_multiplier", "scaled residuals", 1},
    UnsupportedKey{"logits_scaling", "scaled logits", 1},
    UnsupportedKey{"logit_scale", "scaled logits", 1},
    UnsupportedKey{"scale_emb", "scaled embeddings", 1},
    UnsupportedKey{"scale_depth", "scaled residuals"},
    UnsupportedKey{"lm_head_bias", "a bias in the output head"},
    UnsupportedKey{"use_mrope", "multimodal RoPE"},
    UnsupportedKey{"qk_layernorm", "LayerNorm of q and k"},
    UnsupportedKey{"use_qk_norm", "norms of q and k in this architecture"},
    UnsupportedKey{"per_layer_config", "layers of different shapes"},
    UnsupportedKey{"vision_config", "image input"},
    UnsupportedKey{"audio_config", "audio input"},
    UnsupportedKey{"text_config", "a model inside a multimodal one"},
};

struct ActivationName {
  std::string_view name;
  Activation activation;
};
constexpr std::array kActivations{
    ActivationName{"silu", Activation::silu},
    ActivationName{"swish", Activation::silu},
    ActivationName{"gelu", Activation::gelu_erf},
    ActivationName{"gelu_python", Activation::gelu_erf},
    ActivationName{"gelu_pytorch_tanh", Activation::gelu_tanh},
    ActivationName{"gelu_new", Activation::gelu_tanh},
    ActivationName{"gelu_fast", Activation::gelu_tanh},
};

bool is_off(const json& value, std::optional<double> neutral) {
  if (value.is_null() || value == json(false) || value == json(0)) return true;
  if (value.is_array() || value.is_object()) return value.empty();
  return neutral && value.is_number() && value.get<double>() == *neutral;
}

void refuse_unsupported(ObjectReader& reader) {
  for (const UnsupportedKey& unsupported : kUnsupportedKeys) {
    if (!reader.has(unsupported.key)) continue;
    const json& value = reader.raw(unsupported.key);
    if (is_off(value, unsupported.neutral)) continue;
    reader.problem(unsupported.key, fmt::format("found {}, allowed nothing: Weir does not do {}",
                                                shown(value), unsupported.feature));
  }
}

// Another head than the language model's (a classifier, an embedding, a draft model) needs other
// tensors.
void refuse_other_heads(ObjectReader& reader) {
  if (!reader.has("architectures")) return;
  for (const std::string& name : reader.strings("architectures")) {
    if (!name.ends_with("ForCausalLM")) {
      reader.problem("architectures", fmt::format("found {}, allowed names that end in ForCausalLM",
                                                  shown(json(name))));
    }
  }
}

// A key that is absent has the default; a key that says null has no value.
std::optional<std::int64_t> integer_or(ObjectReader& reader, const json& config,
                                       std::string_view key, IntegerLimits limits,
                                       std::optional<std::int64_t> fallback) {
  if (!config.contains(key)) return fallback;
  return reader.optional_integer(key, limits);
}

// The flag may be written, but only with the value that the architecture has built in.
void require_flag(ObjectReader& reader, std::string_view key, bool built_in) {
  const std::optional<bool> value = reader.optional_boolean(key);
  if (value && *value != built_in) {
    reader.problem(key, fmt::format("found {}, allowed {} for this model_type", *value, built_in));
  }
}

void read_shape(ObjectReader& reader, const json& config, const ConfigDefaults& defaults,
                ModelSpec& model) {
  const IntegerLimits size{.min = 1, .max = kMaxModelWidth};
  model.num_layers = reader.integer("num_hidden_layers", {.min = 1, .max = kMaxModelLayers});
  model.hidden_size = reader.integer("hidden_size", size);
  model.intermediate_size = reader.integer("intermediate_size", size);
  model.vocab_size = reader.integer("vocab_size", {.min = 1, .max = kMaxVocabSize});
  model.num_q_heads = reader.integer("num_attention_heads", size);
  model.num_kv_heads =
      integer_or(reader, config, "num_key_value_heads", size, defaults.num_kv_heads)
          .value_or(model.num_q_heads);
  const auto head_dim = integer_or(reader, config, "head_dim", size, defaults.head_dim);
  model.head_dim =
      head_dim.value_or(std::max<std::int64_t>(1, model.hidden_size / model.num_q_heads));
  model.max_position =
      reader.optional_integer("max_position_embeddings", {.min = 1, .max = kMaxModelPosition})
          .value_or(defaults.max_position);

  if (!head_dim && model.hidden_size % model.num_q_heads != 0) {
    reader.problem("hidden_size",
                   fmt::format("found {}, allowed a multiple of num_attention_heads ({}) where "
                               "head_dim is not given",
                               model.hidden_size, model.num_q_heads));
  }
  if (model.num_q_heads % model.num_kv_heads != 0) {
    reader.problem("num_key_value_heads",
                   fmt::format("found {}, allowed a divisor of num_attention_heads ({})",
                               model.num_kv_heads, model.num_q_heads));
  }
  if (model.num_q_heads * model.head_dim > kMaxModelWidth) {
    reader.problem("head_dim",
                   fmt::format("found {} with {} heads, allowed a product of at most {}",
                               model.head_dim, model.num_q_heads, kMaxModelWidth));
    return;
  }
  // Scores and values of one full-length sequence cost 4 N D P^2; beyond 2^62 they could not be
  // counted.
  const std::int64_t longest =
      (std::int64_t{1} << 60) / (model.num_q_heads * model.head_dim) / model.max_position;
  if (model.max_position > longest) {
    reader.problem("max_position_embeddings",
                   fmt::format("found {}, too long to count the operations of {} heads of {}",
                               model.max_position, model.num_q_heads, model.head_dim));
  }
}

void read_arithmetic(ObjectReader& reader, const ConfigDefaults& defaults, ModelSpec& model) {
  model.rms_norm_eps =
      reader.optional_number("rms_norm_eps", {.min = 0, .max = 1}).value_or(defaults.rms_norm_eps);
  model.tied_embeddings = reader.optional_boolean("tie_word_embeddings").value_or(false);
  if (const auto name = reader.optional_string("hidden_act")) {
    const auto* const found = std::ranges::find(kActivations, *name, &ActivationName::name);
    if (found != kActivations.end()) {
      model.activation = found->activation;
    } else {
      std::string allowed;
      for (const ActivationName& known : kActivations) {
        allowed += (allowed.empty() ? "" : ", ") + std::string(known.name);
      }
      reader.problem("hidden_act",
                     fmt::format("found {}, allowed one of: {}", shown(json(*name)), allowed));
    }
  }
  // transformers 5 writes `dtype`; where both are given it takes that one.
  const auto classic = reader.optional_string("torch_dtype");
  const auto current = reader.optional_string("dtype");
  if (const auto& name = current ? current : classic) {
    if (const auto dtype = parse_dtype(*name)) {
      model.weight_dtype = *dtype;
    } else {
      reader.problem(
          current ? "dtype" : "torch_dtype",
          fmt::format("found {}, allowed one of: float32, bfloat16, float16", shown(json(*name))));
    }
  }
}

void read_biases(ObjectReader& reader, ModelSpec& model) {
  switch (model.architecture) {
    case Architecture::llama:
      model.qkv_bias = model.o_bias = reader.optional_boolean("attention_bias").value_or(false);
      model.ffn_bias = reader.optional_boolean("mlp_bias").value_or(false);
      return;
    case Architecture::qwen3:
      model.qkv_bias = model.o_bias = reader.optional_boolean("attention_bias").value_or(false);
      model.qk_norm = true;
      require_flag(reader, "mlp_bias", false);
      return;
    case Architecture::qwen2:
      model.qkv_bias = true;
      require_flag(reader, "attention_bias", true);
      require_flag(reader, "mlp_bias", false);
      return;
    case Architecture::mistral:
    case Architecture::phi3:
      require_flag(reader, "attention_bias", false);
      require_flag(reader, "mlp_bias", false);
      return;
    case Architecture::dense:
      model.gated_ffn = reader.optional_boolean("gated_ffn").value_or(true);
      model.qkv_bias = reader.optional_boolean("qkv_bias").value_or(false);
      model.o_bias = reader.optional_boolean("o_bias").value_or(false);
      model.ffn_bias = reader.optional_boolean("ffn_bias").value_or(false);
      model.qk_norm = reader.optional_boolean("qk_norm").value_or(false);
      return;
  }
}

// Weir's layers all attend alike, so the three ways in which configs give some layers a window
// must come to one answer. Returns whether the layers slide; nullopt where layer_types does not
// say.
std::optional<bool> read_layer_types(ObjectReader& reader, const ModelSpec& model) {
  if (!reader.has("layer_types")) return std::nullopt;
  const std::vector<std::string> types = reader.strings("layer_types");
  if (std::cmp_not_equal(types.size(), model.num_layers)) {
    reader.problem("layer_types", fmt::format("found {} entries, allowed one per layer ({})",
                                              types.size(), model.num_layers));
    return std::nullopt;
  }
  for (const std::string_view only : {"full_attention", "sliding_attention"}) {
    if (std::ranges::all_of(types, [&](const std::string& type) { return type == only; })) {
      return only == "sliding_attention";
    }
  }
  reader.problem("layer_types",
                 "found a mixture or an unknown type, allowed full_attention everywhere or "
                 "sliding_attention everywhere");
  return std::nullopt;
}

void read_window_of_qwen(ObjectReader& reader, std::optional<std::int64_t> window,
                         ModelSpec& model) {
  const bool use_window = reader.optional_boolean("use_sliding_window").value_or(false);
  // Layers below max_window_layers attend to everything; the class default is 28.
  const std::int64_t full_layers =
      reader.optional_integer("max_window_layers", {.min = 0}).value_or(28);
  const std::optional<bool> layers_slide = read_layer_types(reader, model);
  if (!use_window || !window) return;
  if (!layers_slide && full_layers > 0 && full_layers < model.num_layers) {
    reader.problem("max_window_layers",
                   fmt::format("found {} of {} layers, allowed 0 or all: Weir's layers all attend "
                               "alike",
                               full_layers, model.num_layers));
  }
  if (layers_slide.value_or(full_layers == 0)) model.sliding_window = window;
}

void read_window(ObjectReader& reader, const json& config, const ConfigDefaults& defaults,
                 ModelSpec& model) {
  const std::optional<std::int64_t> window =
      integer_or(reader, config, "sliding_window", {.min = 1, .max = kMaxModelPosition},
                 defaults.sliding_window);
  if (model.architecture == Architecture::qwen2 || model.architecture == Architecture::qwen3) {
    read_window_of_qwen(reader, window, model);
    return;
  }
  const std::optional<bool> layers_slide = read_layer_types(reader, model);
  if (model.architecture == Architecture::llama && window) {
    reader.problem("sliding_window", fmt::format("found {}, allowed null for llama", *window));
    return;
  }
  require_flag(reader, "use_sliding_window", window.has_value());
  model.sliding_window = window;
  if (layers_slide && *layers_slide != window.has_value()) {
    reader.problem("layer_types",
                   fmt::format("found {}, allowed what sliding_window ({}) says",
                               *layers_slide ? "sliding_attention" : "full_attention",
                               window ? "given" : "null"));
  }
}

constexpr IntegerLimits kTokenIds{.min = 0, .max = kMaxVocabSize - 1};

// One id or a list of them. Nothing where the key is absent or null.
std::optional<std::vector<std::int64_t>> read_token_ids(ObjectReader& reader,
                                                        std::string_view key) {
  if (!reader.has(key)) return std::nullopt;
  if (reader.raw(key).is_array()) return reader.integers(key, kTokenIds);
  return std::vector{reader.integer(key, kTokenIds)};
}

void read_special_tokens(ObjectReader& reader, const json& config, const ConfigDefaults& defaults,
                         ModelSpec& model) {
  model.bos_token_id = integer_or(reader, config, "bos_token_id", kTokenIds, defaults.bos_token_id);
  if (auto ids = read_token_ids(reader, "eos_token_id")) {
    model.eos_token_ids = *std::move(ids);
  } else if (!config.contains("eos_token_id") && defaults.eos_token_id) {
    model.eos_token_ids = {*defaults.eos_token_id};
  }
}

// The stop tokens that generation uses stand in generation_config.json, and win over config.json's.
Status read_generation_config(const std::string& path, ModelSpec& model) {
  const auto generation = read_json_file(path);
  if (!generation) return tl::unexpected(generation.error());
  std::vector<std::string> problems;
  ObjectReader reader(*generation, "generation_config", problems);
  if (auto ids = read_token_ids(reader, "eos_token_id")) model.eos_token_ids = *std::move(ids);
  if (const auto id = reader.optional_integer("bos_token_id", kTokenIds)) model.bos_token_id = id;
  if (!problems.empty()) {
    return invalid_input(fmt::format("{}: {}", path, join_problems(problems)));
  }
  return {};
}

const ConfigDefaults* find_architecture(ObjectReader& reader) {
  std::array<std::string_view, kArchitectures.size()> names{};
  std::ranges::transform(kArchitectures, names.begin(), &ConfigDefaults::model_type);
  return &kArchitectures[reader.choice("model_type", names)];
}

}  // namespace

std::string_view to_string(Architecture architecture) {
  return std::ranges::find(kArchitectures, architecture, &ConfigDefaults::architecture)->model_type;
}

std::string_view to_string(Activation activation) {
  switch (activation) {
    case Activation::silu:
      return "silu";
    case Activation::gelu_erf:
      return "gelu";
    case Activation::gelu_tanh:
      return "gelu_pytorch_tanh";
  }
  return "unknown";
}

Result<ModelSpec> model_from_config(const json& config, std::string name) {
  std::vector<std::string> problems;
  ObjectReader reader(config, "config", problems);
  const ConfigDefaults& defaults = *find_architecture(reader);
  // Without the architecture, no other key has a meaning.
  if (!problems.empty()) return invalid_input(join_problems(problems));

  ModelSpec model{.name = std::move(name), .architecture = defaults.architecture};
  read_shape(reader, config, defaults, model);
  read_arithmetic(reader, defaults, model);
  read_biases(reader, model);
  read_window(reader, config, defaults, model);
  read_special_tokens(reader, config, defaults, model);
  model.rope = read_rope(reader, model);
  refuse_other_heads(reader);
  if (model.architecture == Architecture::dense) {
    for (const std::string_view key : kHarmlessKeys) reader.ignore(key);
    reader.refuse_unknown_keys();
  } else {
    refuse_unsupported(reader);
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return model;
}

Result<ModelSpec> load_model_spec(const std::string& folder) {
  namespace fs = std::filesystem;
  const fs::path root = fs::path(folder).lexically_normal();
  const fs::path last = root.has_filename() ? root.filename() : root.parent_path().filename();
  const std::string config_path = (root / "config.json").string();
  const auto config = read_json_file(config_path);
  if (!config) return tl::unexpected(config.error());
  auto model = model_from_config(*config, last.string());
  if (!model) return invalid_input(fmt::format("{}: {}", config_path, model.error().message));

  const fs::path generation_path = root / "generation_config.json";
  std::error_code unreadable;
  if (fs::exists(generation_path, unreadable)) {
    if (const Status read = read_generation_config(generation_path.string(), *model); !read) {
      return tl::unexpected(read.error());
    }
  }
  return model;
}

}  // namespace weir
