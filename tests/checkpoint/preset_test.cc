#include "checkpoint/preset.h"

#include <array>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

TEST(Preset, FullSizesAreTheDimensionsOfTheNotes) {
  const auto pool = preset_model("fa-pool-4l", {});
  ASSERT_TRUE(pool);
  EXPECT_EQ(pool->num_layers, 4);
  EXPECT_EQ(pool->hidden_size, 4096);
  EXPECT_EQ(pool->num_q_heads, 32);
  EXPECT_EQ(pool->head_dim, 128);
  EXPECT_EQ(pool->intermediate_size, 16384);
  EXPECT_TRUE(pool->gated_ffn);
  EXPECT_EQ(pool->activation, Activation::gelu_erf);
  const auto two_level = preset_model("two-level-2l", {});
  ASSERT_TRUE(two_level);
  EXPECT_EQ(two_level->hidden_size, 8192);
  EXPECT_EQ(two_level->num_q_heads, 16);
  EXPECT_EQ(two_level->head_dim, 512);
  EXPECT_FALSE(two_level->gated_ffn);
}

TEST(Preset, CountsParametersThatTheNotesOverstate) {
  // 4 x 268.4e6 and two embeddings of 131e6, where the notes say 13e9.
  EXPECT_EQ(count_parameters(*preset_model("fa-pool-4l", {})).total, 1'335'922'688);
  EXPECT_EQ(count_parameters(*preset_model("two-level-2l", {})).total, 2'134'941'696);
  // 16 x 201.3e6 and two embeddings of 131e6, where the notes say 30e9.
  EXPECT_EQ(count_parameters(*preset_model("cache-16l", {})).total, 3'483'504'640);
}

TEST(Preset, ScaleHalvesHeadsFirstAndThenTheirSize) {
  const auto eighth = preset_model("fa-pool-4l", {.scale = 1.0 / 8});
  ASSERT_TRUE(eighth);
  EXPECT_EQ(eighth->num_q_heads, 4);
  EXPECT_EQ(eighth->head_dim, 128);
  EXPECT_EQ(eighth->hidden_size, 512);
  EXPECT_EQ(eighth->intermediate_size, 2048);
  const auto smallest = preset_model("fa-pool-4l", {.scale = 1.0 / 64});
  ASSERT_TRUE(smallest);
  EXPECT_EQ(smallest->num_kv_heads, 4);
  EXPECT_EQ(smallest->head_dim, 16);
  EXPECT_EQ(smallest->rope.rotary_dim, 16);
  EXPECT_EQ(smallest->hidden_size, 64);
  EXPECT_EQ(smallest->vocab_size, 32000);
  const auto twice = preset_model("tiny", {.scale = 2});
  ASSERT_TRUE(twice);
  EXPECT_EQ(twice->num_q_heads, 8);
  EXPECT_EQ(twice->num_kv_heads, 4);
  EXPECT_EQ(twice->hidden_size, 128);
}

TEST(Preset, RefusesScalesThatItCannotReach) {
  EXPECT_EQ(preset_model("fa-pool-4l", {.scale = 0.3}).error().message,
            "scale: found 0.3, allowed a power of two in 0.00390625..8 for fa-pool-4l");
  EXPECT_EQ(preset_model("fa-pool-4l", {.scale = 1.0 / 128}).error().message,
            "scale: found 0.0078125, allowed a power of two in 0.015625..8 for fa-pool-4l");
  EXPECT_EQ(preset_model("tiny", {.scale = 0.5}).error().message,
            "scale: found 0.5, allowed a power of two in 1..8 for tiny");
  EXPECT_FALSE(preset_model("tiny", {.scale = 0}));
  EXPECT_FALSE(preset_model("tiny", {.scale = 16}));
  EXPECT_FALSE(preset_model("tiny", {.scale = -1}));
}

TEST(Preset, TakesTheOptionsOfTheUser) {
  const auto model =
      preset_model("cache-16l", {.dtype = DType::bf16, .vocab_size = 512, .max_position = 100});
  ASSERT_TRUE(model);
  EXPECT_EQ(model->weight_dtype, DType::bf16);
  EXPECT_EQ(model->vocab_size, 512);
  EXPECT_EQ(model->max_position, 100);
}

TEST(Preset, RefusesOptionsThatCannotBe) {
  EXPECT_EQ(preset_model("tiny", {.vocab_size = 100}).error().message,
            "vocab_size: found 100, allowed 258..16777216");
  EXPECT_EQ(preset_model("tiny", {.max_position = 0}).error().message,
            "max_position: found 0, allowed 1..2147483648");
  EXPECT_EQ(preset_model("big", {}).error().message,
            "preset: found \"big\", allowed one of: tiny, fa-pool-4l, two-level-2l, cache-16l, "
            "recall");
  EXPECT_EQ(preset_model("recall", {.scale = 2}).error().message,
            "recall: found a scale, vocab_size or max_position, allowed none: its weights are "
            "constructed for one shape");
}

TEST(Preset, EveryPresetIsWrittenAndOpenedAtItsSmallest) {
  const std::array<std::pair<std::string, PresetOptions>, 5> smallest = {{
      {"tiny", {}},
      {"fa-pool-4l", {.scale = 1.0 / 64, .vocab_size = 320}},
      {"two-level-2l", {.scale = 1.0 / 128, .vocab_size = 320}},
      {"cache-16l", {.scale = 1.0 / 64, .vocab_size = 320}},
      {"recall", {}},
  }};
  ASSERT_EQ(presets().size(), smallest.size());
  const TestFolder folder;
  for (const auto& [name, options] : smallest) {
    const std::string path = folder.file(name);
    const auto written = write_preset_model(path, name, options);
    ASSERT_TRUE(written) << written.error().message;
    const auto model = load_model_spec(path);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ(*model, *preset_model(name, options));
    const auto checkpoint = Checkpoint::open(path, *model);
    EXPECT_TRUE(checkpoint) << checkpoint.error().message;
  }
}

}  // namespace
}  // namespace weir
