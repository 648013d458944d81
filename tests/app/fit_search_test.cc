#include "app/fit_search.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "checkpoint/preset.h"

namespace weir {
namespace {

PredictionInput input_on(const std::string& cluster, StrategyChoice strategy,
                         RequestOptions requests) {
  return {.model = preset_model("fa-pool-4l", {}).value(),
          .setup = {.strategy = std::move(strategy), .cluster = cluster},
          .requests = requests};
}

std::vector<std::string> flags_of(const std::vector<FittingChange>& changes) {
  std::vector<std::string> flags;
  for (const FittingChange& change : changes) flags.push_back(change.flags);
  return flags;
}

bool contains(const std::vector<std::string>& flags, const std::string& wanted) {
  return std::ranges::find(flags, wanted) != flags.end();
}

TEST(FitSearch, NamesTheLargestBatchAndThePromptThatFit) {
  const RequestOptions requests = {.batch_size = 32, .prompt_len = 8192, .output_len = 8};
  PredictionInput input = input_on("a100-sxm-80gb", {}, requests);
  ASSERT_TRUE(judge_memory(input)->shortage.has_value());
  std::int64_t batch = 0;
  std::int64_t prompt = 0;
  for (const FittingChange& change : find_fitting_changes(input)) {
    if (change.flags.starts_with("--batch ")) batch = std::stoll(change.flags.substr(8));
    if (change.flags.starts_with("--prompt-len ")) prompt = std::stoll(change.flags.substr(13));
  }
  const auto fits = [&](std::int64_t batch_size, std::int64_t prompt_len) {
    input.requests.batch_size = batch_size;
    input.requests.prompt_len = prompt_len;
    return !judge_memory(input)->shortage;
  };
  EXPECT_TRUE(fits(batch, 8192));
  EXPECT_FALSE(fits(batch + 1, 8192));
  EXPECT_TRUE(fits(32, prompt));
  EXPECT_FALSE(fits(32, prompt + 1));
}

TEST(FitSearch, GrowsTheClusterWhereItHasTooFewDevices) {
  const RequestOptions requests = {.batch_size = 32, .prompt_len = 8192, .output_len = 8};
  const auto changes = find_fitting_changes(input_on("a100-sxm-80gb:1x1", {}, requests));
  const auto flags = flags_of(changes);
  EXPECT_TRUE(contains(flags, "-s tp_pp --tp 2 -c a100-sxm-80gb:2x1"))
      << fitting_changes_text(changes);
  EXPECT_TRUE(contains(flags, "-c h200-sxm:1x1")) << fitting_changes_text(changes);
}

TEST(FitSearch, ListsWhatNeedsNoMoreDevicesFirst) {
  const RequestOptions requests = {.batch_size = 40, .prompt_len = 10000, .output_len = 8};
  const auto changes = find_fitting_changes(input_on(
      "h100-sxm",
      {.name = "attention_pool", .values = {{"tp", "1"}, {"pool", "1"}, {"pool_policy", "fixed"}}},
      requests));
  const auto flags = flags_of(changes);
  const auto place = [&](const std::string& wanted) {
    return std::ranges::find(flags, wanted) - flags.begin();
  };
  EXPECT_TRUE(contains(flags, "--microbatches 2")) << fitting_changes_text(changes);
  EXPECT_TRUE(contains(flags, "--tp 2")) << fitting_changes_text(changes);
  EXPECT_LT(place("--microbatches 2"), place("--tp 2"));
  EXPECT_EQ(changes[static_cast<std::size_t>(place("--tp 2"))].num_devices, 3);
}

TEST(FitSearch, SaysSoWhereNoSingleChangeSuffices) {
  // The FFN's weights alone are more than all devices that heads and layers allow hold.
  PredictionInput input = input_on("h100-sxm", {.name = "tp_pp", .values = {{"tp", "32"}}},
                                   {.batch_size = 2, .prompt_len = 60000, .output_len = 8});
  input.setup.cluster = "h100-sxm:4x8";
  input.model.intermediate_size = std::int64_t{1} << 29;
  const auto verdict = judge_memory(input);
  ASSERT_TRUE(verdict.has_value()) << verdict.error().message;
  ASSERT_TRUE(verdict->shortage.has_value());
  const auto changes = find_fitting_changes(input);
  EXPECT_TRUE(changes.empty()) << fitting_changes_text(changes);
  EXPECT_EQ(fitting_changes_text(changes),
            "no single change of dtypes, requests, lengths or devices makes it fit\n");
  EXPECT_TRUE(fitting_changes_to_json(changes).empty());
}

}  // namespace
}  // namespace weir
