#include "checkpoint/model_tensors.h"

#include <gtest/gtest.h>

namespace weir {
namespace {

ModelSpec small_model_of(Architecture architecture) {
  return {.architecture = architecture,
          .num_layers = 1,
          .hidden_size = 8,
          .intermediate_size = 12,
          .vocab_size = 300,
          .num_q_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 4};
}

std::vector<std::string> names_of(const ModelSpec& model) {
  std::vector<std::string> names;
  for (const ModelTensor& tensor : model_tensors(model)) names.push_back(tensor.name);
  return names;
}

TEST(ModelTensors, LlamaHasTheNamesOfPublishedCheckpoints) {
  EXPECT_EQ(names_of(small_model_of(Architecture::llama)),
            (std::vector<std::string>{
                "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
                "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.o_proj.weight",
                "model.layers.0.post_attention_layernorm.weight",
                "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight",
                "model.layers.0.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"}));
}

TEST(ModelTensors, Phi3FusesProjectionsByRows) {
  const auto tensors = model_tensors(small_model_of(Architecture::phi3));
  using enum WeightKind;
  EXPECT_EQ(tensors[2].name, "model.layers.0.self_attn.qkv_proj.weight");
  EXPECT_EQ(tensors[2].shape, (std::vector<std::int64_t>{32, 8}));
  EXPECT_EQ(tensors[2].weights, (std::vector{q_proj, k_proj, v_proj}));
  EXPECT_EQ(tensors[5].name, "model.layers.0.mlp.gate_up_proj.weight");
  EXPECT_EQ(tensors[5].shape, (std::vector<std::int64_t>{24, 8}));
  EXPECT_EQ(tensors[5].weights, (std::vector{gate_proj, up_proj}));
}

TEST(ModelTensors, BiasesAndNormsOfHeadsHaveOneDimension) {
  ModelSpec model = small_model_of(Architecture::dense);
  model.qkv_bias = model.o_bias = model.ffn_bias = model.qk_norm = true;
  std::vector<std::pair<std::string, std::int64_t>> vectors;
  for (const ModelTensor& tensor : model_tensors(model)) {
    if (tensor.shape.size() == 1) vectors.emplace_back(tensor.name, tensor.shape[0]);
  }
  EXPECT_EQ(vectors, (std::vector<std::pair<std::string, std::int64_t>>{
                         {"model.layers.0.input_layernorm.weight", 8},
                         {"model.layers.0.self_attn.q_proj.bias", 16},
                         {"model.layers.0.self_attn.k_proj.bias", 8},
                         {"model.layers.0.self_attn.v_proj.bias", 8},
                         {"model.layers.0.self_attn.q_norm.weight", 4},
                         {"model.layers.0.self_attn.k_norm.weight", 4},
                         {"model.layers.0.self_attn.o_proj.bias", 8},
                         {"model.layers.0.post_attention_layernorm.weight", 8},
                         {"model.layers.0.mlp.gate_proj.bias", 12},
                         {"model.layers.0.mlp.up_proj.bias", 12},
                         {"model.layers.0.mlp.down_proj.bias", 8},
                         {"model.norm.weight", 8},
                     }));
}

TEST(ModelTensors, APlainFfnHasNoGate) {
  ModelSpec model = small_model_of(Architecture::dense);
  model.gated_ffn = false;
  for (const std::string& name : names_of(model)) {
    EXPECT_EQ(name.find("gate_proj"), std::string::npos) << name;
  }
}

TEST(ModelTensors, OnlyATiedModelLacksAHead) {
  ModelSpec model = small_model_of(Architecture::qwen3);
  EXPECT_EQ(names_of(model).back(), "lm_head.weight");
  EXPECT_FALSE(is_ignored_tensor(model, "lm_head.weight"));
  model.tied_embeddings = true;
  EXPECT_EQ(names_of(model).back(), "model.norm.weight");
  EXPECT_TRUE(is_ignored_tensor(model, "lm_head.weight"));
}

}  // namespace
}  // namespace weir
