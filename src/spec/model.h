#pragma once
// What a model is, as far as splitting, timing and running it need to know: a decoder-only
// transformer with pre-norm RMSNorm, RoPE, multi-head or grouped-query attention and a gated or
// plain FFN. Read from a Hugging Face config.json; whatever a config asks for beyond this is
// refused by name, never ignored.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/dtype.h"
#include "base/result.h"

namespace weir {

// Decides names of tensors in the checkpoint and defaults of the config. `dense` is Weir's own: the
// source notes' model.
enum class Architecture { llama, mistral, qwen2, qwen3, phi3, dense };

enum class Activation { silu, gelu_erf, gelu_tanh };

// How published configs stretch RoPE; the frequencies themselves are computed by
// `rope_frequencies`.
struct LinearRope {
  double factor = 1;
  bool operator==(const LinearRope&) const = default;
};
// "dynamic" NTK: theta grows with the length once it exceeds the original maximum.
struct DynamicRope {
  double factor = 1;
  std::int64_t original_max_position = 0;
  bool operator==(const DynamicRope&) const = default;
};
struct Llama3Rope {
  double factor = 8;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  std::int64_t original_max_position = 8192;
  bool operator==(const Llama3Rope&) const = default;
};
struct YarnRope {  // arXiv:2309.00071
  double factor = 1;
  double beta_fast = 32;
  double beta_slow = 1;
  // Multiplies cos and sin; resolved from the config when it is loaded.
  double attention_factor = 1;
  std::int64_t original_max_position = 0;
  bool truncate = true;
  bool operator==(const YarnRope&) const = default;
};
// Phi-3: one divisor per rotary pair; the long list applies beyond the original maximum.
struct LongRope {
  std::vector<double> short_factor = {};
  std::vector<double> long_factor = {};
  double attention_factor = 1;  // Multiplies cos and sin.
  std::int64_t original_max_position = 0;
  bool operator==(const LongRope&) const = default;
};

struct RopeSpec {
  double theta = 10000;
  // The first rotary_dim dimensions of a head rotate, pair i with i + rotary_dim / 2.
  std::int64_t rotary_dim = 0;
  std::variant<std::monostate, LinearRope, DynamicRope, Llama3Rope, YarnRope, LongRope> scaling =
      {};
  bool operator==(const RopeSpec&) const = default;
};

struct ModelSpec {
  std::string name = {};
  Architecture architecture = Architecture::llama;
  std::int64_t num_layers = 0;         // [L]
  std::int64_t hidden_size = 0;        // [H]
  std::int64_t intermediate_size = 0;  // [F]
  std::int64_t vocab_size = 0;
  std::int64_t num_q_heads = 0;   // [N]
  std::int64_t num_kv_heads = 0;  // [G], divides N
  std::int64_t head_dim = 0;      // [D]
  std::int64_t max_position = 0;  // Longest sequence, prompt and output together.
  double rms_norm_eps = 1e-6;
  Activation activation = Activation::silu;
  bool gated_ffn = true;
  bool qkv_bias = false;
  bool o_bias = false;
  bool ffn_bias = false;
  bool qk_norm = false;  // RMSNorm over head_dim of every q and k head before RoPE (Qwen3).
  bool tied_embeddings = false;
  std::vector<std::int64_t> eos_token_ids = {};  // Any of them ends a generation.
  std::optional<std::int64_t> bos_token_id = {};
  RopeSpec rope = {};
  // A query attends to the last `sliding_window` positions, itself included.
  std::optional<std::int64_t> sliding_window = {};
  DType weight_dtype = DType::f32;

  bool operator==(const ModelSpec&) const = default;
};

// Limits of what is read. Counts of parameters, bytes and operations of one sequence then stay far
// from overflowing 64 bits.
inline constexpr std::int64_t kMaxModelLayers = 4096;
inline constexpr std::int64_t kMaxModelWidth = std::int64_t{1} << 20;  // H, F, N, and N * D.
inline constexpr std::int64_t kMaxVocabSize = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxModelPosition = std::int64_t{1} << 31;

// The names of configs: model_type ("llama", ..., "weir_dense") and hidden_act ("silu", "gelu",
// "gelu_pytorch_tanh").
[[nodiscard]] std::string_view to_string(Architecture architecture);
[[nodiscard]] std::string_view to_string(Activation activation);

// Reads a parsed config.json, in the spelling of transformers 4 (torch_dtype, rope_theta,
// rope_scaling) or 5 (dtype, rope_parameters). A key that is left out has the default that
// transformers 5 gives it for that model_type; without a dtype, weights are f32. The error lists
// every problem at once.
//
// Unknown keys: published configs carry many private keys that nothing reads, so for the published
// architectures a key is refused only if it is known to change the computation in a way that Weir
// does not do (experts, quantization, soft-capping, scalings, ...: one table in model.cc) and is
// switched on. A `weir_dense` config refuses every key that is neither read nor known to be
// harmless; so does every object that describes RoPE.
//
// weir_dense has the keys num_hidden_layers, hidden_size, intermediate_size, vocab_size,
// num_attention_heads (required), num_key_value_heads, head_dim, max_position_embeddings (2048),
// rms_norm_eps (1e-6), hidden_act (silu), gated_ffn (true), qkv_bias, o_bias, ffn_bias, qk_norm,
// tie_word_embeddings (all false), sliding_window, RoPE as Llama's plus partial_rotary_factor,
// bos_token_id, eos_token_id, dtype.
[[nodiscard]] Result<ModelSpec> model_from_config(const nlohmann::json& config, std::string name);
// Reads DIR/config.json, and DIR/generation_config.json for stop tokens where there is one.
[[nodiscard]] Result<ModelSpec> load_model_spec(const std::string& folder);
// The config.json that model_from_config reads back into an equal spec (but for the name, which a
// config does not hold), in the classic spelling, which transformers 4 and 5 both read. The model
// must be one that its architecture can be, as every loaded one is: a gated FFN unless dense, and
// so on.
[[nodiscard]] nlohmann::json config_of(const ModelSpec& model);

// Every number below is exact, derived from the shapes; counts are of parameters.
struct ParameterCount {
  std::int64_t embedding = 0;
  std::int64_t attention_per_layer = 0;  // Projections, biases and q/k norms.
  std::int64_t ffn_per_layer = 0;
  std::int64_t norms_per_layer = 0;
  std::int64_t final_norm = 0;
  std::int64_t lm_head = 0;  // 0 when tied to the embedding.
  [[nodiscard]] std::int64_t per_layer() const {
    return attention_per_layer + ffn_per_layer + norms_per_layer;
  }
  std::int64_t total = 0;
};
[[nodiscard]] ParameterCount count_parameters(const ModelSpec& model);

// Bytes of K and V of one token in one layer.
[[nodiscard]] std::int64_t kv_bytes_per_token_per_layer(const ModelSpec& model, DType kv_dtype);

// cos/sin tables come from these: angle(position, pair) = position * inverse_frequency[pair]; cos
// and sin are multiplied by `scale`. Length rotary_dim / 2. `seq_len` is the length that the
// request will reach: it selects between the short and long factors of LongRope and stretches
// DynamicRope; other scalings ignore it.
struct RopeFrequencies {
  std::vector<double> inverse_frequency;
  double scale = 1;
};
[[nodiscard]] RopeFrequencies rope_frequencies(const RopeSpec& rope, std::int64_t seq_len);

}  // namespace weir
