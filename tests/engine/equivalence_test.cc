// Law 1: executing any strategy's plan gives the single-device answer, within a tolerance derived
// from dtype and length. Random models, options and batches; a strategy that is added to
// strategies() is covered without a change here.
//
// WEIR_LAW1_SEED and WEIR_LAW1_CASES choose other cases and more of them, WEIR_LAW1_STRATEGY those
// of one strategy.

#include <cstdlib>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "tests/engine/equivalence_case.h"
#include "tests/engine/equivalence_run.h"
#include "tests/engine/small_model.h"

namespace weir {
namespace {

std::uint64_t from_environment(const char* name, std::uint64_t usual) {
  const char* text = std::getenv(name);
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}

TEST(Law1Equivalence, AnyStrategyGivesTheSingleDeviceAnswer) {
  const std::uint64_t seed = from_environment("WEIR_LAW1_SEED", 1);
  const std::uint64_t cases = from_environment("WEIR_LAW1_CASES", 100);
  const char* const only = std::getenv("WEIR_LAW1_STRATEGY");
  std::set<std::string> covered;
  for (std::uint64_t i = 0; i < cases; ++i) {
    Random random(Random(seed + i).next());
    const auto instance = draw_case(random, only == nullptr ? "" : only);
    ASSERT_TRUE(instance) << "seed " << seed + i;
    covered.insert(instance->strategy);
    if (!problem_of(*instance)) continue;
    const EquivalenceCase smallest =
        shrink(*instance, [](const EquivalenceCase& c) { return problem_of(c).has_value(); });
    FAIL() << "WEIR_LAW1_SEED=" << seed + i << " WEIR_LAW1_CASES=1\n"
           << to_string(smallest) << "\n"
           << problem_of(smallest).value_or("passes when run again");
  }
  if (cases < 100 || only != nullptr) return;
  for (const StrategyEntry& strategy : strategies()) {
    EXPECT_TRUE(strategy.name == "single" || covered.contains(std::string(strategy.name)))
        << strategy.name << " was never drawn";
  }
}

// The engine keeps a plan for as long as the strategy says that the layouts stay the same.
TEST(Law1Equivalence, StepsWithTheSameLayoutsHaveThem) {
  const std::uint64_t seed = from_environment("WEIR_LAW1_SEED", 1);
  int same = 0;
  for (std::uint64_t i = 0; i < 500; ++i) {
    Random random(seed + i);
    const EquivalenceCase instance = draw_case(random).value();
    const auto strategy =
        make_strategy(instance.strategy, instance.options, instance.model, kCaseDevices);
    const auto draw_step = [&] {
      StepShape step(static_cast<std::size_t>(random.integer(1, 3)));
      for (RequestShape& request : step) {
        request = {.past_len = random.integer(0, 60), .q_len = random.integer(1, 8), .max_len = 80};
      }
      return step;
    };
    const StepShape a = draw_step();
    const StepShape b = draw_step();
    if (!strategy->strategy->same_layouts(a, b)) continue;
    ++same;
    EXPECT_EQ(strategy->strategy->layouts(a), strategy->strategy->layouts(b)) << strategy->label;
  }
  EXPECT_GT(same, 20);
}

// What random cases are too short for: requests on both sides of the threshold, pools of different
// sizes in one batch, and decoding that crosses the threshold and then the next pool size.
TEST(Law1Equivalence, HoldsWhilePoolsOfDifferentSizesGrow) {
  EquivalenceCase instance;
  instance.model = small_model_spec();
  instance.model.max_position = 4096;
  instance.model.rope.scaling = {};
  instance.strategy = "attention_pool";
  instance.prefill_chunk = 700;
  instance.requests = {
      {.prompt_len = 1, .new_tokens = 3},    {.prompt_len = 99, .new_tokens = 4},
      {.prompt_len = 100, .new_tokens = 2},  {.prompt_len = 101, .new_tokens = 2},
      {.prompt_len = 1023, .new_tokens = 4}, {.prompt_len = 3100, .new_tokens = 3}};
  for (const char* split : {"query_blocks", "balanced_query_blocks", "kv_blocks", "heads"}) {
    for (const char* reduction : {"flat", "hierarchical"}) {
      instance.options = {{"tp", "3"},         {"pool", "4"},        {"threshold", "100"},
                          {"kv_block", "256"}, {"split", split},     {"reduction", reduction},
                          {"pp", "2"},         {"microbatches", "2"}};
      EXPECT_EQ(problem_of(instance), std::nullopt) << split << ", " << reduction;
    }
  }
}

TEST(Law1Equivalence, ShrinkingKeepsWhatFailsAndDropsTheRest) {
  Random random(1);
  EquivalenceCase large = draw_case(random).value();
  large.requests = {{.prompt_len = 9, .new_tokens = 3}, {.prompt_len = 40, .new_tokens = 2}};
  const auto fails = [](const EquivalenceCase& c) {
    return std::ranges::any_of(c.requests, [](const RequestCase& r) { return r.prompt_len >= 7; });
  };
  const EquivalenceCase smallest = shrink(large, fails);
  EXPECT_EQ(smallest.requests, (std::vector<RequestCase>{{.prompt_len = 7, .new_tokens = 0}}));
  EXPECT_EQ(smallest.model.num_layers, 1);
  EXPECT_EQ(smallest.model.architecture, Architecture::llama);
}

}  // namespace
}  // namespace weir
