#include "checkpoint/random_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/preset.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

ModelSpec tiny() { return *preset_model("tiny", {}); }

std::string content_of(const std::string& path) { return *read_text_file(path); }

TEST(RandomModel, IsReadBackAsTheModelThatWasWritten) {
  const TestFolder folder;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    ModelSpec model = tiny();
    model.weight_dtype = dtype;
    const auto written = write_random_model(folder.file("tiny"), model, {.replace = true});
    ASSERT_TRUE(written) << written.error().message;
    const auto loaded = load_model_spec(folder.file("tiny"));
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(*loaded, model);
    const auto checkpoint = Checkpoint::open(folder.file("tiny"), *loaded);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    EXPECT_EQ(checkpoint->weight(WeightKind::down_proj, 1).dtype, dtype);
  }
}

TEST(RandomModel, SameSeedGivesTheSameBytes) {
  const TestFolder folder;
  ASSERT_TRUE(write_random_model(folder.file("a"), tiny(), {.seed = 7}));
  ASSERT_TRUE(write_random_model(folder.file("b"), tiny(), {.seed = 7}));
  ASSERT_TRUE(write_random_model(folder.file("c"), tiny(), {.seed = 8}));
  const std::string a = content_of(folder.file("a/model.safetensors"));
  EXPECT_EQ(a, content_of(folder.file("b/model.safetensors")));
  EXPECT_NE(a, content_of(folder.file("c/model.safetensors")));
  EXPECT_EQ(content_of(folder.file("a/tokenizer.json")),
            content_of(folder.file("b/tokenizer.json")));
}

TEST(RandomModel, MatricesKeepTheScaleOfTheirInput) {
  const TestFolder folder;
  const ModelSpec model = tiny();
  ASSERT_TRUE(write_random_model(folder.file("m"), model));
  const auto checkpoint = Checkpoint::open(folder.file("m"), model);
  ASSERT_TRUE(checkpoint);
  const StoredWeight weight = checkpoint->weight(WeightKind::down_proj, 0);
  const auto* values = static_cast<const float*>(weight.data);
  double sum = 0;
  double squares = 0;
  const std::int64_t count = weight.rows * weight.cols;
  for (std::int64_t i = 0; i < count; ++i) {
    sum += values[i];
    squares += static_cast<double>(values[i]) * values[i];
  }
  // Deviations of mean and variance of n samples: sigma / sqrt(n) and about sigma^2 sqrt(2 / n).
  const double variance = 1.0 / static_cast<double>(weight.cols);
  const double n = static_cast<double>(count);
  EXPECT_NEAR(sum / n, 0, 5 * std::sqrt(variance / n));
  EXPECT_NEAR(squares / n, variance, 5 * variance * std::sqrt(2 / n));
}

TEST(RandomModel, ReportsProgressUpToTheWholeModel) {
  const TestFolder folder;
  std::vector<std::int64_t> written;
  std::int64_t total = 0;
  const auto watch = [&](ModelProgress progress) {
    written.push_back(progress.written.value);
    total = progress.total.value;
  };
  ASSERT_TRUE(
      write_random_model(folder.file("m"), tiny(), {.max_shard = {100'000}, .progress = watch}));
  EXPECT_EQ(total, count_parameters(tiny()).total * 4);
  EXPECT_EQ(written.back(), total);
  EXPECT_TRUE(std::ranges::is_sorted(written));
}

TEST(RandomModel, LeavesAnExistingFolderAlone) {
  const TestFolder folder;
  ASSERT_TRUE(write_random_model(folder.file("m"), tiny(), {.seed = 1}));
  const std::string before = content_of(folder.file("m/model.safetensors"));
  const auto again = write_random_model(folder.file("m"), tiny(), {.seed = 2});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, ErrorKind::invalid_input);
  EXPECT_EQ(content_of(folder.file("m/model.safetensors")), before);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"m"});
}

TEST(RandomModel, RefusesAModelThatTheDiskCannotHoldBeforeItWrites) {
  const TestFolder folder;
  ModelSpec model = tiny();
  model.vocab_size = kMaxVocabSize;
  model.hidden_size = kMaxModelWidth;  // 2^24 * 2^20 * 4 bytes, twice: 128 TiB.
  const auto status = write_random_model(folder.file("m"), model);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("the weights need 14"), std::string::npos)
      << status.error().message;
  EXPECT_EQ(folder.names(), std::vector<std::string>{});
}

TEST(RandomModel, RefusesAVocabularyWithoutRoomForTheBytes) {
  ModelSpec model = tiny();
  model.vocab_size = 257;
  const TestFolder folder;
  const auto status = write_random_model(folder.file("m"), model);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message,
            "vocab_size: found 257, allowed at least 258 (the bytes and 2 special tokens)");
}

}  // namespace
}  // namespace weir
