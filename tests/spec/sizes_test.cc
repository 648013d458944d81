#include "spec/sizes.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace weir {
namespace {

struct ModelGolden {
  std::string name;
  std::int64_t num_parameters;
  std::string config;
};

const std::vector<ModelGolden>& model_goldens() {
  static const std::vector<ModelGolden> goldens{
#include "tests/spec/model_goldens.inc"
  };
  return goldens;
}

// The dense model of the source notes: 4 layers, multi-head, gated FFN of 4 H.
ModelSpec notes_model() {
  return {.architecture = Architecture::dense,
          .num_layers = 4,
          .hidden_size = 4096,
          .intermediate_size = 16384,
          .vocab_size = 32000,
          .num_q_heads = 32,
          .num_kv_heads = 32,
          .head_dim = 128,
          .max_position = 32768,
          .activation = Activation::gelu_tanh,
          .rope = {.rotary_dim = 128}};
}

TEST(CountParameters, EqualsTransformersForEveryArchitecture) {
  ASSERT_EQ(model_goldens().size(), 8U);
  for (const ModelGolden& golden : model_goldens()) {
    SCOPED_TRACE(golden.name);
    const auto model = model_from_config(*parse_json(golden.config, "golden"), golden.name);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ(count_parameters(*model).total, golden.num_parameters);
  }
}

// The shapes and counts that the authors of these models published.
TEST(CountParameters, EqualsPublishedCounts) {
  const std::vector<ModelGolden> published{
      {"Llama-2-7B", 6'738'415'616, R"({"model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 32000})"},
      {"Mistral-7B-v0.1", 7'241'732'096, R"({"model_type": "mistral", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000})"},
      {"Qwen2.5-7B", 7'615'616'512, R"({"model_type": "qwen2", "hidden_size": 3584,
        "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "use_mrope": false,
        "use_sliding_window": false, "sliding_window": 131072})"},
      {"Qwen3-8B", 8'190'735'360, R"({"model_type": "qwen3", "hidden_size": 4096,
        "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 151936})"},
      {"Phi-3-mini-4k", 3'821'079'552, R"({"model_type": "phi3", "hidden_size": 3072,
        "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 32064, "sliding_window": 2047})"},
  };
  for (const ModelGolden& golden : published) {
    SCOPED_TRACE(golden.name);
    const auto model = model_from_config(*parse_json(golden.config, golden.name), golden.name);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ(count_parameters(*model).total, golden.num_parameters);
  }
}

TEST(CountParameters, OfTheNotesModelIsOnePointThreeBillion) {
  const ParameterCount count = count_parameters(notes_model());
  EXPECT_EQ(count.embedding, 32000 * 4096);
  EXPECT_EQ(count.attention_per_layer, 4 * 4096 * 4096);
  EXPECT_EQ(count.ffn_per_layer, 3 * 4096 * 16384);
  EXPECT_EQ(count.norms_per_layer, 2 * 4096);
  EXPECT_EQ(count.per_layer(), 268'443'648);
  EXPECT_EQ(count.total, 1'335'922'688);
}

TEST(CountParameters, CountsBiasesAndNormsOfADenseModel) {
  ModelSpec model = notes_model();
  const std::int64_t plain = count_parameters(model).per_layer();
  model.qkv_bias = true;
  EXPECT_EQ(count_parameters(model).per_layer() - plain, 3 * 4096);
  model.o_bias = true;
  EXPECT_EQ(count_parameters(model).per_layer() - plain, 4 * 4096);
  model.qk_norm = true;
  EXPECT_EQ(count_parameters(model).per_layer() - plain, 4 * 4096 + 2 * 128);
  model.ffn_bias = true;
  EXPECT_EQ(count_parameters(model).ffn_per_layer, 3 * 4096 * 16384 + 2 * 16384 + 4096);
  model.gated_ffn = false;
  EXPECT_EQ(count_parameters(model).ffn_per_layer, 2 * 4096 * 16384 + 16384 + 4096);
}

TEST(WeightBytes, AreParametersTimesTheDtype) {
  EXPECT_EQ(layer_weight_bytes(notes_model(), DType::bf16).value, 2 * 268'443'648LL);
  EXPECT_EQ(weight_bytes(notes_model(), DType::f32).value, 4 * 1'335'922'688LL);
}

TEST(KvBytes, CountKeysAndValuesOfTheKvHeads) {
  ModelSpec model = notes_model();
  model.num_kv_heads = 8;
  EXPECT_EQ(kv_bytes_per_token_per_layer(model, DType::f16), 2 * 8 * 128 * 2);
}

TEST(LinearFlops, AreTwicePerWeightOfEveryMatrix) {
  const ModelSpec model = notes_model();
  EXPECT_EQ(attention_linear_flops_per_token(model), 2 * 4 * 4096 * 4096);
  EXPECT_EQ(ffn_flops_per_token(model), 2LL * 3 * 4096 * 16384);
  EXPECT_EQ(linear_flops_per_token(model),
            4 * (2LL * 4 * 4096 * 4096 + 2LL * 3 * 4096 * 16384) + 2LL * 32000 * 4096);
}

TEST(AttendedPairs, EqualACountByHand) {
  for (const std::int64_t window : {1, 2, 3, 5, 9, 100}) {
    for (std::int64_t kv_len = 0; kv_len <= 9; ++kv_len) {
      for (std::int64_t q_len = 0; q_len <= kv_len; ++q_len) {
        std::int64_t expected = 0;
        for (std::int64_t q = kv_len - q_len; q < kv_len; ++q) {
          for (std::int64_t k = 0; k < kv_len; ++k) expected += k <= q && k > q - window ? 1 : 0;
        }
        EXPECT_EQ(attended_pairs({.q_len = q_len, .kv_len = kv_len}, window), expected)
            << q_len << " of " << kv_len << ", window " << window;
      }
    }
  }
}

TEST(AttendedPairs, WithoutMaskAreAllOfThem) {
  EXPECT_EQ(attended_pairs({.q_len = 7, .kv_len = 3, .causal = false}, std::nullopt), 21);
}

TEST(AttentionFlops, AreFourPerPairAndDimension) {
  EXPECT_EQ(attention_flops(notes_model(), {.q_len = 1, .kv_len = 1000}), 4LL * 4096 * 1000);
  EXPECT_EQ(attention_flops(notes_model(), {.q_len = 4, .kv_len = 4}), 4LL * 4096 * 10);
}

// 4 layers of 4,096, FFN 16,384 gated, vocabulary 32,000.
TEST(PrefillFlops, LeaveOutOfTheLastLayerWhatNobodyReads) {
  const double square = 4096.0 * 4096;
  const double layer = 2 * (4 * square + 3 * 4 * square);
  const double head = 2.0 * 32000 * 4096;
  EXPECT_DOUBLE_EQ(prefill_flops(notes_model(), 1), 4 * (layer + 4 * 4096) + head);
  const double pairs = 5050;
  EXPECT_DOUBLE_EQ(
      prefill_flops(notes_model(), 100),
      3 * (100 * layer + 4 * 4096 * pairs) + 99 * 2 * 2 * square + layer + 4 * 4096 * 100 + head);
}

}  // namespace
}  // namespace weir
