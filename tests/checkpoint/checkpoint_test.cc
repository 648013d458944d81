#include "checkpoint/checkpoint.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>

#include "checkpoint/model_tensors.h"
#include "checkpoint/random_model.h"
#include "checkpoint/safetensors_writer.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

ModelSpec small_model(Architecture architecture) {
  return {.architecture = architecture,
          .num_layers = 2,
          .hidden_size = 8,
          .intermediate_size = 12,
          .vocab_size = 300,
          .num_q_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 4,
          .max_position = 64,
          .qkv_bias = architecture == Architecture::qwen2,
          .qk_norm = architecture == Architecture::qwen3,
          .rope = {.rotary_dim = 4}};
}

// Every tensor holds 1000 * its index + the index of the element.
std::vector<TensorSource> numbered_tensors(const ModelSpec& model) {
  std::vector<TensorSource> sources;
  float first = 0;
  for (const ModelTensor& tensor : model_tensors(model)) {
    sources.push_back({.name = tensor.name,
                       .dtype = DType::f32,
                       .shape = tensor.shape,
                       .fill = [next = first](std::span<float> out) mutable {
                         for (float& value : out) value = next++;
                       }});
    first += 1000;
  }
  return sources;
}

// Opens a folder with the model's tensors after `change` has been at them.
Result<Checkpoint> open_changed(const ModelSpec& model,
                                const std::function<void(std::vector<TensorSource>&)>& change) {
  const TestFolder folder;
  std::vector<TensorSource> tensors = numbered_tensors(model);
  change(tensors);
  if (auto written = write_safetensors(folder.file("model.safetensors"), tensors); !written) {
    return tl::unexpected(written.error());
  }
  return Checkpoint::open(folder.path(), model).map_error([&](Error error) {
    EXPECT_TRUE(error.message.starts_with(folder.path() + ": "));
    error.message = error.message.substr(folder.path().size() + 2);
    return error;
  });
}

void unchanged(std::vector<TensorSource>&) {}

float element(const StoredWeight& weight, std::int64_t row, std::int64_t col) {
  float value = 0;
  std::memcpy(&value, static_cast<const float*>(weight.data) + row * weight.row_stride + col,
              sizeof(value));
  return value;
}

TEST(Checkpoint, FindsEveryWeightOfEveryArchitecture) {
  for (const Architecture architecture :
       {Architecture::llama, Architecture::mistral, Architecture::qwen2, Architecture::qwen3,
        Architecture::phi3, Architecture::dense}) {
    const ModelSpec model = small_model(architecture);
    const auto checkpoint = open_changed(model, unchanged);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    for (const WeightKind kind : kAllWeightKinds) {
      if (!has_weight(model, kind)) continue;
      const StoredWeight weight = checkpoint->weight(kind, 1);
      EXPECT_EQ((WeightShape{.rows = weight.rows, .cols = weight.cols}), shape_of(model, kind))
          << to_string(architecture) << " " << to_string(kind);
      EXPECT_EQ(weight.dtype, DType::f32);
    }
  }
}

TEST(Checkpoint, PointsAtTheLayerThatWasAskedFor) {
  const auto checkpoint = open_changed(small_model(Architecture::llama), unchanged);
  ASSERT_TRUE(checkpoint);
  // Tensors: embedding, 9 per layer, final norm, head.
  EXPECT_EQ(element(checkpoint->weight(WeightKind::q_proj, 0), 1, 2), 2000 + 8 + 2);
  EXPECT_EQ(element(checkpoint->weight(WeightKind::q_proj, 1), 1, 2), 11000 + 8 + 2);
  EXPECT_EQ(element(checkpoint->weight(WeightKind::lm_head, 1), 0, 0), 20000);
}

TEST(Checkpoint, FindsRowRangesOfFusedTensors) {
  const auto checkpoint = open_changed(small_model(Architecture::phi3), unchanged);
  ASSERT_TRUE(checkpoint);
  // q has 16 rows of 8, k and v have 8 each; gate and up have 12 rows of 8 each.
  EXPECT_EQ(element(checkpoint->weight(WeightKind::q_proj, 0), 0, 0), 2000);
  EXPECT_EQ(element(checkpoint->weight(WeightKind::k_proj, 0), 0, 0), 2000 + 16 * 8);
  EXPECT_EQ(element(checkpoint->weight(WeightKind::v_proj, 0), 7, 7), 2000 + 32 * 8 - 1);
  EXPECT_EQ(element(checkpoint->weight(WeightKind::gate_proj, 0), 11, 7), 5000 + 12 * 8 - 1);
  EXPECT_EQ(element(checkpoint->weight(WeightKind::up_proj, 0), 0, 0), 5000 + 12 * 8);
}

TEST(Checkpoint, ATiedHeadIsTheEmbedding) {
  ModelSpec model = small_model(Architecture::llama);
  model.tied_embeddings = true;
  const auto checkpoint = open_changed(model, unchanged);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->weight(WeightKind::lm_head, 0).data,
            checkpoint->weight(WeightKind::embedding, 0).data);
}

TEST(Checkpoint, IgnoresTablesThatItComputesItself) {
  const auto checkpoint =
      open_changed(small_model(Architecture::llama), [](std::vector<TensorSource>& tensors) {
        tensors.push_back({.name = "model.layers.0.self_attn.rotary_emb.inv_freq",
                           .shape = {1},
                           .fill = [](std::span<float>) {}});
      });
  EXPECT_TRUE(checkpoint) << checkpoint.error().message;
}

TEST(Checkpoint, NamesEveryMissingUnexpectedAndMisshapenTensorAtOnce) {
  const auto checkpoint =
      open_changed(small_model(Architecture::llama), [](std::vector<TensorSource>& tensors) {
        tensors.erase(tensors.begin() + 2);
        tensors[2].shape = {2, 32};
        tensors.back().name = "head";
      });
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().message,
            "tensors of llama: missing model.layers.0.self_attn.q_proj.weight [16, 8]; "
            "model.layers.0.self_attn.k_proj.weight: found shape [2, 32], config.json wants [8, "
            "8]; missing lm_head.weight [300, 8]; unexpected \"head\"");
}

TEST(Checkpoint, RefusesABiasThatTheConfigDoesNotKnow) {
  const auto checkpoint =
      open_changed(small_model(Architecture::llama), [](std::vector<TensorSource>& tensors) {
        tensors.push_back({.name = "model.layers.0.self_attn.q_proj.bias",
                           .shape = {16},
                           .fill = [](std::span<float>) {}});
      });
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().message,
            "tensors of llama: unexpected \"model.layers.0.self_attn.q_proj.bias\"");
}

// A sharded llama whose index and shards can be spoiled.
class ShardedCheckpoint : public testing::Test {
 protected:
  void SetUp() override {
    const auto written = write_random_model(folder_.file("m"), model_, {.max_shard = {12'000}});
    ASSERT_TRUE(written) << written.error().message;
    ASSERT_TRUE(std::filesystem::exists(shard(3)));
  }
  [[nodiscard]] std::string shard(int number) const {
    return folder_.file("m/model-0000" + std::to_string(number) + "-of-00003.safetensors");
  }
  [[nodiscard]] std::string index() const { return folder_.file("m/model.safetensors.index.json"); }
  [[nodiscard]] std::string refusal() const {
    const auto checkpoint = Checkpoint::open(folder_.file("m"), model_);
    return checkpoint ? "accepted" : checkpoint.error().message;
  }
  void replace_in_index(const std::string& from, const std::string& to) const {
    std::ifstream in(index());
    std::string text(std::istreambuf_iterator<char>(in), {});
    const auto at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    std::ofstream(index()) << text.replace(at, from.size(), to);
  }

  TestFolder folder_;
  ModelSpec model_ = small_model(Architecture::llama);
};

TEST_F(ShardedCheckpoint, ReadsTheSameWeightsAsOneFile) {
  ASSERT_TRUE(write_random_model(folder_.file("one"), model_));
  const auto sharded = Checkpoint::open(folder_.file("m"), model_);
  const auto single = Checkpoint::open(folder_.file("one"), model_);
  ASSERT_TRUE(sharded) << sharded.error().message;
  ASSERT_TRUE(single);
  for (const WeightKind kind : kAllWeightKinds) {
    if (!has_weight(model_, kind)) continue;
    const StoredWeight a = sharded->weight(kind, 1);
    const StoredWeight b = single->weight(kind, 1);
    EXPECT_EQ(std::memcmp(a.data, b.data, static_cast<std::size_t>(a.rows * a.cols) * 4), 0)
        << to_string(kind);
  }
  EXPECT_EQ(sharded->fingerprint(), single->fingerprint());
}

TEST_F(ShardedCheckpoint, OfOtherWeightsHasAnotherFingerprint) {
  ASSERT_TRUE(write_random_model(folder_.file("other"), model_, {.seed = 1}));
  const auto one = Checkpoint::open(folder_.file("m"), model_);
  const auto other = Checkpoint::open(folder_.file("other"), model_);
  ASSERT_TRUE(one && other);
  EXPECT_NE(one->fingerprint(), other->fingerprint());
}

TEST_F(ShardedCheckpoint, NamesAMissingShard) {
  std::filesystem::remove(shard(2));
  EXPECT_EQ(refusal(), index() + ": " + shard(2) + ": cannot be opened: No such file or directory");
}

TEST_F(ShardedCheckpoint, NamesATruncatedShard) {
  const auto size = std::filesystem::file_size(shard(2));
  std::filesystem::resize_file(shard(2), size - 1);
  EXPECT_TRUE(refusal().starts_with(index() + ": " + shard(2) + ": tensor ")) << refusal();
}

TEST_F(ShardedCheckpoint, RefusesAnIndexThatPlacesATensorElsewhere) {
  replace_in_index("\"model.norm.weight\": \"model-00002", "\"model.norm.weight\": \"model-00001");
  EXPECT_EQ(refusal(),
            index() +
                ": model-00002-of-00003.safetensors: found tensor \"model.norm.weight\", which the "
                "index places in model-00001-of-00003.safetensors; "
                "model-00001-of-00003.safetensors: lacks tensor \"model.norm.weight\", which the "
                "index places there");
}

TEST_F(ShardedCheckpoint, RefusesAnIndexThatLeavesTheFolder) {
  replace_in_index("\"model-00001", "\"../model-00001");
  EXPECT_NE(refusal().find("allowed the plain name of a .safetensors file in the same folder"),
            std::string::npos)
      << refusal();
}

TEST(Checkpoint, RefusesAFolderWithoutWeights) {
  const TestFolder folder;
  const ModelSpec model = small_model(Architecture::llama);
  EXPECT_EQ(Checkpoint::open(folder.path(), model).error().message,
            folder.path() + ": found neither model.safetensors nor model.safetensors.index.json");
  std::ofstream(folder.file("pytorch_model.bin")) << "x";
  EXPECT_EQ(Checkpoint::open(folder.path(), model).error().message,
            folder.path() +
                ": found neither model.safetensors nor model.safetensors.index.json "
                "(pytorch_model.bin is not read: convert it)");
  EXPECT_EQ(Checkpoint::open("/nonexistent", model).error().message,
            "/nonexistent: is not a folder");
}

}  // namespace
}  // namespace weir
