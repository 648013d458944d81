#include "spec/sizes.h"

#include "base/check.h"

namespace weir {
namespace {

// Query, key, value and output projections.
std::int64_t attention_matrix_elements(const ModelSpec& model) {
  return 2 * model.hidden_size * (model.num_q_heads + model.num_kv_heads) * model.head_dim;
}

std::int64_t ffn_matrix_elements(const ModelSpec& model) {
  return (model.gated_ffn ? 3 : 2) * model.hidden_size * model.intermediate_size;
}

// min(1, window) + ... + min(n, window): the keys that the first n positions see.
std::int64_t keys_seen_by_first(std::int64_t n, std::int64_t window) {
  if (n <= window) return n * (n + 1) / 2;
  return window * (window + 1) / 2 + (n - window) * window;
}

}  // namespace

ParameterCount count_parameters(const ModelSpec& model) {
  const std::int64_t kv_width = model.num_kv_heads * model.head_dim;
  const std::int64_t q_width = model.num_q_heads * model.head_dim;
  ParameterCount count;
  count.embedding = model.vocab_size * model.hidden_size;
  count.attention_per_layer = attention_matrix_elements(model);
  if (model.qkv_bias) count.attention_per_layer += q_width + 2 * kv_width;
  if (model.o_bias) count.attention_per_layer += model.hidden_size;
  if (model.qk_norm) count.attention_per_layer += 2 * model.head_dim;
  count.ffn_per_layer = ffn_matrix_elements(model);
  if (model.ffn_bias) {
    count.ffn_per_layer += (model.gated_ffn ? 2 : 1) * model.intermediate_size + model.hidden_size;
  }
  count.norms_per_layer = 2 * model.hidden_size;
  count.final_norm = model.hidden_size;
  count.lm_head = model.tied_embeddings ? 0 : model.vocab_size * model.hidden_size;
  count.total =
      count.embedding + model.num_layers * count.per_layer() + count.final_norm + count.lm_head;
  return count;
}

std::int64_t kv_bytes_per_token_per_layer(const ModelSpec& model, DType kv_dtype) {
  return 2 * model.num_kv_heads * model.head_dim * size_in_bytes(kv_dtype);
}

Bytes layer_weight_bytes(const ModelSpec& model, DType dtype) {
  return {count_parameters(model).per_layer() * size_in_bytes(dtype)};
}

Bytes weight_bytes(const ModelSpec& model, DType dtype) {
  return {count_parameters(model).total * size_in_bytes(dtype)};
}

std::int64_t attention_linear_flops_per_token(const ModelSpec& model) {
  return 2 * attention_matrix_elements(model);
}

std::int64_t ffn_flops_per_token(const ModelSpec& model) { return 2 * ffn_matrix_elements(model); }

std::int64_t lm_head_flops_per_token(const ModelSpec& model) {
  return 2 * model.vocab_size * model.hidden_size;
}

std::int64_t linear_flops_per_token(const ModelSpec& model) {
  return model.num_layers * (attention_linear_flops_per_token(model) + ffn_flops_per_token(model)) +
         lm_head_flops_per_token(model);
}

std::int64_t attended_pairs(const AttentionExtent& extent,
                            std::optional<std::int64_t> sliding_window) {
  CHECK(extent.q_len >= 0 && extent.kv_len >= 0, "lengths are counts");
  if (!extent.causal) return extent.q_len * extent.kv_len;
  CHECK(extent.q_len <= extent.kv_len, "causal queries are the last of the keys");
  const std::int64_t window = sliding_window.value_or(extent.kv_len);
  return keys_seen_by_first(extent.kv_len, window) -
         keys_seen_by_first(extent.kv_len - extent.q_len, window);
}

std::int64_t attention_flops(const ModelSpec& model, const AttentionExtent& extent) {
  return 4 * model.num_q_heads * model.head_dim * attended_pairs(extent, model.sliding_window);
}

double prefill_flops(const ModelSpec& model, std::int64_t prompt_len) {
  const auto tokens = static_cast<double>(prompt_len);
  const std::int64_t k_and_v = 4 * model.num_kv_heads * model.head_dim * model.hidden_size;
  const std::int64_t linear = attention_linear_flops_per_token(model) + ffn_flops_per_token(model);
  const auto attention = [&](std::int64_t q_len) {
    return static_cast<double>(attention_flops(model, {.q_len = q_len, .kv_len = prompt_len}));
  };
  const double layer = tokens * static_cast<double>(linear) + attention(prompt_len);
  const double last_layer =
      tokens * static_cast<double>(k_and_v) + static_cast<double>(linear - k_and_v) + attention(1);
  return static_cast<double>(model.num_layers - 1) * layer + last_layer +
         static_cast<double>(lm_head_flops_per_token(model));
}

}  // namespace weir
