#pragma once
// Counts that follow from a model's shapes alone: bytes and floating-point operations, exact, no
// times. A multiply-add counts 2; norms, activations, RoPE and softmax are not counted here.

#include "base/units.h"
#include "spec/model.h"

namespace weir {

// Bytes of the weights that one decoder layer reads, and of the whole model, kept in `dtype`.
[[nodiscard]] Bytes layer_weight_bytes(const ModelSpec& model, DType dtype);
[[nodiscard]] Bytes weight_bytes(const ModelSpec& model, DType dtype);

// Matrix products with weights, for one token.
[[nodiscard]] std::int64_t attention_linear_flops_per_token(const ModelSpec& model);  // One layer.
[[nodiscard]] std::int64_t ffn_flops_per_token(const ModelSpec& model);               // One layer.
[[nodiscard]] std::int64_t lm_head_flops_per_token(const ModelSpec& model);
// The whole model for a token whose logits are wanted.
[[nodiscard]] std::int64_t linear_flops_per_token(const ModelSpec& model);

// `q_len` new tokens against `kv_len` tokens, the new ones included. Causal: the queries are the
// last q_len positions (so q_len <= kv_len), and each sees itself and what lies before it. Lengths
// up to the model's max_position.
struct AttentionExtent {
  std::int64_t q_len = 0;   // [Q]
  std::int64_t kv_len = 0;  // [K]
  bool causal = true;
};
// (query, key) pairs that attend, under the causal mask and the window where given.
[[nodiscard]] std::int64_t attended_pairs(const AttentionExtent& extent,
                                          std::optional<std::int64_t> sliding_window);
// q k^T and p v of one layer, all heads, one sequence: 4 N D per attended pair.
[[nodiscard]] std::int64_t attention_flops(const ModelSpec& model, const AttentionExtent& extent);

// The least from a prompt to its first token: in the last layer only K and V are needed of all
// tokens, everything else, and the logits, of the last one. Prompts of at least one token.
[[nodiscard]] double prefill_flops(const ModelSpec& model, std::int64_t prompt_len);

}  // namespace weir
