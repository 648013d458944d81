#include "spec/model.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

using nlohmann::json;

// Shapes as in Llama 3.1 8B's published config.json.
json llama31() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256})");
}

json dense() {
  return json::parse(R"({
    "model_type": "weir_dense", "hidden_size": 64, "intermediate_size": 256, "vocab_size": 100,
    "num_attention_heads": 4, "num_hidden_layers": 2})");
}

json of_type(const char* model_type) {
  json config = dense();
  config["model_type"] = model_type;
  config["num_key_value_heads"] = 2;
  return config;
}

std::string config_error_of(const json& config) {
  const auto model = model_from_config(config, "m");
  return model ? "no error" : model.error().message;
}

TEST(ModelFromConfig, ReadsLlama31) {
  const auto model = model_from_config(llama31(), "Llama-3.1-8B");
  ASSERT_TRUE(model) << model.error().message;
  const ModelSpec expected{.name = "Llama-3.1-8B",
                           .architecture = Architecture::llama,
                           .num_layers = 32,
                           .hidden_size = 4096,
                           .intermediate_size = 14336,
                           .vocab_size = 128256,
                           .num_q_heads = 32,
                           .num_kv_heads = 8,
                           .head_dim = 128,
                           .max_position = 131072,
                           .rms_norm_eps = 1e-5,
                           .eos_token_ids = {128001, 128008, 128009},
                           .bos_token_id = 128000,
                           .rope = {.theta = 500000,
                                    .rotary_dim = 128,
                                    .scaling = Llama3Rope{.factor = 8,
                                                          .low_freq_factor = 1,
                                                          .high_freq_factor = 4,
                                                          .original_max_position = 8192}},
                           .weight_dtype = DType::bf16};
  EXPECT_EQ(*model, expected);
  EXPECT_EQ(count_parameters(*model).total, 8'030'261'248);  // The published count.
}

TEST(ModelFromConfig, ReadsTheSpellingOfTransformers5) {
  json config = llama31();
  config["dtype"] = config["torch_dtype"];
  config["rope_parameters"] = config["rope_scaling"];
  config["rope_parameters"]["rope_theta"] = config["rope_theta"];
  for (const char* key : {"torch_dtype", "rope_scaling", "rope_theta"}) config.erase(key);
  EXPECT_EQ(model_from_config(config, "m"), model_from_config(llama31(), "m"));
}

TEST(ModelFromConfig, GivesMissingKeysTheDefaultsOfTheirArchitecture) {
  json config = of_type("mistral");
  config["num_attention_heads"] = 16;
  config.erase("num_key_value_heads");
  const auto mistral = model_from_config(config, "m");
  ASSERT_TRUE(mistral) << mistral.error().message;
  EXPECT_EQ(mistral->num_kv_heads, 8);
  EXPECT_EQ(mistral->sliding_window, 4096);
  EXPECT_EQ(mistral->max_position, 131072);
  EXPECT_EQ(mistral->eos_token_ids, std::vector<std::int64_t>{2});
  config["num_key_value_heads"] = nullptr;
  config["sliding_window"] = nullptr;
  config["eos_token_id"] = nullptr;
  const auto without = model_from_config(config, "m");
  ASSERT_TRUE(without) << without.error().message;
  EXPECT_EQ(without->num_kv_heads, 16);
  EXPECT_EQ(without->sliding_window, std::nullopt);
  EXPECT_TRUE(without->eos_token_ids.empty());
}

TEST(ModelFromConfig, KnowsWhichBiasesAndNormsAreBuiltIn) {
  const auto qwen2 = model_from_config(of_type("qwen2"), "m");
  ASSERT_TRUE(qwen2) << qwen2.error().message;
  EXPECT_TRUE(qwen2->qkv_bias);
  EXPECT_FALSE(qwen2->o_bias);
  EXPECT_FALSE(qwen2->qk_norm);
  json config = of_type("qwen3");
  config["attention_bias"] = true;
  const auto qwen3 = model_from_config(config, "m");
  ASSERT_TRUE(qwen3) << qwen3.error().message;
  EXPECT_TRUE(qwen3->qkv_bias && qwen3->o_bias && qwen3->qk_norm);
  EXPECT_EQ(qwen3->head_dim, 128);
}

TEST(ModelFromConfig, ReadsPhi3WithLongRopeOnAPartOfTheHead) {
  json config = of_type("phi3");
  config["partial_rotary_factor"] = 0.75;
  config["max_position_embeddings"] = 131072;
  config["original_max_position_embeddings"] = 4096;
  config["rope_scaling"] = {
      {"type", "su"}, {"short_factor", {1, 1, 1, 1, 1, 2}}, {"long_factor", {1, 2, 3, 4, 5, 6}}};
  const auto model = model_from_config(config, "m");
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->rope.rotary_dim, 12);
  const auto& longrope = std::get<LongRope>(model->rope.scaling);
  EXPECT_EQ(longrope.original_max_position, 4096);
  EXPECT_EQ(longrope.long_factor, (std::vector<double>{1, 2, 3, 4, 5, 6}));
  EXPECT_NEAR(longrope.attention_factor, 1.1902380714238083, 1e-12);  // sqrt(1 + ln 32 / ln 4096)
}

TEST(ModelFromConfig, ReadsAWindowOnlyWhereAllLayersSlide) {
  json config = of_type("qwen2");
  config["sliding_window"] = 16;
  config["max_window_layers"] = 1;
  EXPECT_EQ(model_from_config(config, "m")->sliding_window, std::nullopt);
  config["use_sliding_window"] = true;
  EXPECT_EQ(config_error_of(config),
            "config.max_window_layers: found 1 of 2 layers, allowed 0 or all: Weir's layers all "
            "attend alike");
  config["max_window_layers"] = 2;
  EXPECT_EQ(model_from_config(config, "m")->sliding_window, std::nullopt);
  config["max_window_layers"] = 0;
  EXPECT_EQ(model_from_config(config, "m")->sliding_window, 16);
  config["layer_types"] = {"full_attention", "full_attention"};
  EXPECT_EQ(model_from_config(config, "m")->sliding_window, std::nullopt);
  config["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_EQ(config_error_of(config),
            "config.layer_types: found a mixture or an unknown type, allowed full_attention "
            "everywhere or sliding_attention everywhere");
  config["layer_types"] = {"sliding_attention"};
  EXPECT_EQ(config_error_of(config),
            "config.layer_types: found 1 entries, allowed one per layer (2)");
}

TEST(ModelFromConfig, ReadsEveryOptionOfTheDenseModel) {
  json config = dense();
  config.update(json::parse(R"({
    "gated_ffn": false, "hidden_act": "gelu", "qkv_bias": true, "o_bias": true, "ffn_bias": true,
    "qk_norm": true, "tie_word_embeddings": true, "head_dim": 32, "num_key_value_heads": 1,
    "partial_rotary_factor": 0.5, "sliding_window": 99, "max_position_embeddings": 128,
    "rope_theta": 777, "dtype": "float16", "bos_token_id": 1, "eos_token_id": 7})"));
  const auto model = model_from_config(config, "notes");
  ASSERT_TRUE(model) << model.error().message;
  const ModelSpec expected{.name = "notes",
                           .architecture = Architecture::dense,
                           .num_layers = 2,
                           .hidden_size = 64,
                           .intermediate_size = 256,
                           .vocab_size = 100,
                           .num_q_heads = 4,
                           .num_kv_heads = 1,
                           .head_dim = 32,
                           .max_position = 128,
                           .activation = Activation::gelu_erf,
                           .gated_ffn = false,
                           .qkv_bias = true,
                           .o_bias = true,
                           .ffn_bias = true,
                           .qk_norm = true,
                           .tied_embeddings = true,
                           .eos_token_ids = {7},
                           .bos_token_id = 1,
                           .rope = {.theta = 777, .rotary_dim = 16},
                           .sliding_window = 99,
                           .weight_dtype = DType::f16};
  EXPECT_EQ(*model, expected);
}

TEST(ModelFromConfig, ListsEveryProblemAtOnce) {
  json config = llama31();
  config.update(json::parse(R"({
    "num_hidden_layers": 1000000000000000000, "hidden_size": -4096, "num_attention_heads": 0,
    "num_key_value_heads": 3, "rms_norm_eps": "NaN", "hidden_act": "relu", "torch_dtype": "int4",
    "vocab_size": null, "tie_word_embeddings": 1, "eos_token_id": [-1]})"));
  EXPECT_EQ(config_error_of(config),
            "config.num_hidden_layers: found 1000000000000000000, allowed an integer in 1..4096; "
            "config.hidden_size: found -4096, allowed an integer in 1..1048576; "
            "config.vocab_size: missing, allowed an integer in 1..16777216; "
            "config.num_attention_heads: found 0, allowed an integer in 1..1048576; "
            "config.num_key_value_heads: found 3, allowed a divisor of num_attention_heads (1); "
            "config.rms_norm_eps: found \"NaN\", allowed a number in 0..1; "
            "config.tie_word_embeddings: found 1, allowed true or false; "
            "config.hidden_act: found \"relu\", allowed one of: silu, swish, gelu, gelu_python, "
            "gelu_pytorch_tanh, gelu_new, gelu_fast; "
            "config.torch_dtype: found \"int4\", allowed one of: float32, bfloat16, float16; "
            "config.eos_token_id[0]: found -1, allowed an integer in 0..16777215; "
            "config.partial_rotary_factor: found 1 of a head_dim of 1, allowed what leaves an even "
            "number "
            "of rotary dimensions, at least 2");
}

TEST(ModelFromConfig, RefusesHeadsThatDoNotDivide) {
  json config = dense();
  config["num_attention_heads"] = 6;
  config["num_key_value_heads"] = 4;
  EXPECT_EQ(config_error_of(config),
            "config.hidden_size: found 64, allowed a multiple of num_attention_heads (6) where "
            "head_dim is not given; config.num_key_value_heads: found 4, allowed a divisor of "
            "num_attention_heads (6)");
}

TEST(ModelFromConfig, RefusesSizesWhoseProductsOverflow) {
  json config = dense();
  config["num_attention_heads"] = 1048576;
  config["head_dim"] = 1048576;
  EXPECT_EQ(config_error_of(config),
            "config.head_dim: found 1048576 with 1048576 heads, allowed a product of at most "
            "1048576");
  config["head_dim"] = 2;
  config["num_attention_heads"] = 524288;
  config["max_position_embeddings"] = 2147483648;
  EXPECT_EQ(config_error_of(config),
            "config.max_position_embeddings: found 2147483648, too long to count the operations of "
            "524288 heads of 2");
}

TEST(ModelFromConfig, RefusesUnknownModelTypes) {
  json config = llama31();
  config["model_type"] = "mixtral";
  EXPECT_EQ(config_error_of(config),
            "config.model_type: found \"mixtral\", allowed one of: llama, mistral, qwen2, qwen3, "
            "phi3, weir_dense");
  config.erase("model_type");
  EXPECT_EQ(config_error_of(config),
            "config.model_type: found nothing, allowed one of: llama, mistral, qwen2, qwen3, phi3, "
            "weir_dense");
  EXPECT_EQ(config_error_of(json::array()).substr(0, 43),
            "config: found an array of 0, allowed an obj");
}

TEST(ModelFromConfig, RefusesWhatChangesTheComputationByName) {
  json config = llama31();
  config["quantization_config"] = {{"quant_method", "gptq"}};
  config["num_local_experts"] = 8;
  config["pretraining_tp"] = 2;
  config["final_logit_softcapping"] = 30.0;
  config["architectures"] = {"LlamaForSequenceClassification"};
  config["sliding_window"] = 4096;
  EXPECT_EQ(
      config_error_of(config),
      "config.sliding_window: found 4096, allowed null for llama; "
      "config.architectures: found \"LlamaForSequenceClassification\", allowed names that end "
      "in ForCausalLM; "
      "config.quantization_config: found an object, allowed nothing: Weir does not do "
      "quantized weights; "
      "config.num_local_experts: found 8, allowed nothing: Weir does not do mixture of "
      "experts; "
      "config.pretraining_tp: found 2, allowed nothing: Weir does not do sliced projections; "
      "config.final_logit_softcapping: found 30.0, allowed nothing: Weir does not do "
      "soft-capped logits");
}

TEST(ModelFromConfig, AcceptsUnsupportedKeysThatAreSwitchedOff) {
  json config = llama31();
  config["quantization_config"] = nullptr;
  config["num_local_experts"] = 0;
  config["is_encoder_decoder"] = false;
  config["logits_scaling"] = 1.0;
  config["attention_dropout"] = 0.1;  // Only training drops out.
  config["attn_implementation"] = "flash_attention_2";
  config["some_private_key"] = {1, 2, 3};
  EXPECT_EQ(config_error_of(config), "no error");
}

TEST(ModelFromConfig, RefusesUnknownKeysOfTheDenseModel) {
  json config = dense();
  config["use_cache"] = true;
  config["gated_fnn"] = true;
  config["mlp_bias"] = false;
  EXPECT_EQ(config_error_of(config), "config.gated_fnn: unknown key; config.mlp_bias: unknown key");
}

TEST(ModelFromConfig, RefusesFlagsAgainstTheArchitecture) {
  json config = of_type("qwen2");
  config["attention_bias"] = false;
  config["mlp_bias"] = true;
  EXPECT_EQ(config_error_of(config),
            "config.attention_bias: found false, allowed true for this model_type; "
            "config.mlp_bias: found true, allowed false for this model_type");
}

TEST(ModelFromConfig, RefusesRopeThatItDoesNotKnow) {
  json config = of_type("llama");
  config["partial_rotary_factor"] = 0.5;
  config["rope_scaling"] = {{"type", "proportional"}, {"mrope_section", {1, 2}}};
  EXPECT_EQ(
      config_error_of(config),
      "config.partial_rotary_factor: found 0.5, allowed 1 for llama; "
      "config.rope_scaling.rope_type: found \"proportional\", allowed one of: default, linear, "
      "dynamic, llama3, yarn, longrope; config.rope_scaling.mrope_section: unknown key");
  config = of_type("llama");
  config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2}};
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4}};
  EXPECT_EQ(config_error_of(config),
            "config.rope_scaling: found beside a different rope_parameters, allowed one of them");
}

TEST(ModelFromConfig, RefusesAbsurdRopeNumbers) {
  json config = of_type("llama");
  config["rope_theta"] = 1;
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 0},
                            {"low_freq_factor", 4},
                            {"high_freq_factor", 4},
                            {"original_max_position_embeddings", 1}};
  EXPECT_EQ(config_error_of(config),
            "config.rope_theta: found 1, allowed a number in 1.001..1000000000000000; "
            "config.rope_scaling.original_max_position_embeddings: found 1, allowed an integer in "
            "2..2147483648; "
            "config.rope_scaling.factor: found 0, allowed a number in 1..1000000; "
            "config.rope_scaling.high_freq_factor: found 4, allowed more than low_freq_factor (4)");
  config = of_type("phi3");
  config["rope_scaling"] = {{"type", "longrope"}, {"short_factor", {1, 2}}, {"long_factor", {0}}};
  EXPECT_EQ(config_error_of(config),
            "config.rope_scaling.short_factor: found 2 numbers, allowed one per rotary pair (8); "
            "config.rope_scaling.long_factor[0]: found 0, allowed a number in 1e-09..1000000000; "
            "config.rope_scaling.long_factor: found 1 numbers, allowed one per rotary pair (8)");
  config = dense();
  config["partial_rotary_factor"] = 0.2;
  EXPECT_EQ(config_error_of(config),
            "config.partial_rotary_factor: found 0.2 of a head_dim of 16, allowed what leaves an "
            "even number of rotary dimensions, at least 2");
}

TEST(ConfigOf, IsReadBackIntoAnEqualModel) {
  json phi3 = of_type("phi3");
  phi3["head_dim"] = 96;
  phi3["partial_rotary_factor"] = 70.9 / 96;  // Truncates to 70, which 70 / 96 of 96 might not.
  phi3["rope_scaling"] = {{"type", "longrope"},
                          {"short_factor", std::vector<double>(35, 1.1)},
                          {"long_factor", std::vector<double>(35, 2.2)}};
  json yarn = of_type("qwen2");
  yarn["use_sliding_window"] = true;
  yarn["max_window_layers"] = 0;
  yarn["rope_scaling"] = {{"type", "yarn"}, {"factor", 4}, {"truncate", false}};
  json dynamic = of_type("qwen3");
  dynamic["rope_scaling"] = {{"type", "dynamic"}, {"factor", 4}};
  json linear = dense();
  linear["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  linear["gated_ffn"] = false;
  linear["eos_token_id"] = {3, 4};
  for (const json& config : {llama31(), phi3, yarn, dynamic, linear, of_type("mistral")}) {
    const auto model = model_from_config(config, "m");
    ASSERT_TRUE(model) << model.error().message;
    const auto again = model_from_config(config_of(*model), "m");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(*again, *model) << config_of(*model);
  }
}

TEST(ConfigOf, EndsOnAModelThatItsArchitectureCannotBe) {
  ModelSpec model = *model_from_config(llama31(), "m");
  model.gated_ffn = false;
  EXPECT_DEATH(static_cast<void>(config_of(model)), "one that its architecture can be");
}

// A model folder that goes when the test ends.
class LoadModelSpec : public testing::Test {
 protected:
  LoadModelSpec() { std::filesystem::create_directories(folder_); }
  ~LoadModelSpec() override { std::filesystem::remove_all(folder_); }
  void write(const char* name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(LoadModelSpec, NamesTheModelAfterItsFolder) {
  write("config.json", llama31().dump());
  const auto model = load_model_spec(folder_.string() + "/");
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->name, "NamesTheModelAfterItsFolder");
  EXPECT_EQ(model->eos_token_ids, (std::vector<std::int64_t>{128001, 128008, 128009}));
}

TEST_F(LoadModelSpec, PrefersTheStopTokensOfTheGenerationConfig) {
  write("config.json", llama31().dump());
  write("generation_config.json", R"({"eos_token_id": [5, 6], "bos_token_id": 4, "top_k": 1})");
  const auto model = load_model_spec(folder_.string());
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->eos_token_ids, (std::vector<std::int64_t>{5, 6}));
  EXPECT_EQ(model->bos_token_id, 4);
}

TEST_F(LoadModelSpec, NamesTheFileThatIsWrong) {
  const std::string config_path = (folder_ / "config.json").string();
  EXPECT_EQ(load_model_spec(folder_.string()).error().message,
            config_path + ": cannot be opened for reading");
  json config = llama31();
  config["hidden_size"] = "big";
  config["num_attention_heads"] = 1;
  config["num_key_value_heads"] = 1;
  config["head_dim"] = 8;
  write("config.json", config.dump());
  EXPECT_EQ(load_model_spec(folder_.string()).error().message,
            config_path + ": config.hidden_size: found \"big\", allowed an integer in 1..1048576");
  write("config.json", llama31().dump());
  write("generation_config.json", R"({"eos_token_id": "</s>"})");
  EXPECT_EQ(load_model_spec(folder_.string()).error().message,
            (folder_ / "generation_config.json").string() +
                ": generation_config.eos_token_id: found \"</s>\", allowed an integer in "
                "0..16777215");
}

}  // namespace
}  // namespace weir
