// What same_layouts promises, held against the layouts themselves.

#include <map>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

ModelSpec model() {
  return {.name = "tiny",
          .num_layers = 2,
          .hidden_size = 32,
          .intermediate_size = 64,
          .vocab_size = 96,
          .num_q_heads = 8,
          .num_kv_heads = 2,
          .head_dim = 4,
          .max_position = 1 << 20,
          .rope = {.rotary_dim = 4}};
}

constexpr DeviceFacts kSmallCaches = {.l2_bytes = 1 << 16, .l3_bytes = 1 << 20};

std::unique_ptr<Strategy> made(std::string_view name, const OptionValues& values) {
  auto named = make_strategy(name, values, model(), kSmallCaches);
  EXPECT_TRUE(named.has_value()) << named.error().message;
  return std::move(named->strategy);
}

StepShape decode(const std::vector<std::int64_t>& past_lens) {
  StepShape step;
  for (const std::int64_t past_len : past_lens)
    step.push_back({.past_len = past_len, .q_len = 1, .max_len = past_len + 100});
  return step;
}

// Every choice of every option of a strategy, with small numbers so that lengths cross thresholds.
std::vector<OptionValues> settings_of(const StrategyEntry& entry) {
  std::vector<OptionValues> settings = {{}};
  for (const OptionSpec& option : entry.options) {
    std::vector<OptionValues> wider;
    for (const OptionValues& values : settings) {
      if (option.choices.empty()) {
        wider.push_back(values);
        continue;
      }
      for (const std::string_view choice : option.choices) {
        wider.push_back(values);
        wider.back()[std::string(option.name)] = choice;
      }
    }
    settings = std::move(wider);
  }
  const std::map<std::string_view, const char*> numbers = {
      {"threshold", "1500"}, {"kv_block", "700"}, {"pool", "12"},
      {"microbatches", "2"}, {"cp", "3"},         {"sequence_parallel", "600"}};
  for (OptionValues& values : settings) {
    for (const OptionSpec& option : entry.options) {
      if (const auto number = numbers.find(option.name); number != numbers.end())
        values[std::string(option.name)] = number->second;
    }
  }
  return settings;
}

// Lengths from one token to beyond all thresholds, and steps that differ by little.
StepShape random_step(Random& random) {
  StepShape step(static_cast<std::size_t>(random.integer(1, 3)));
  for (RequestShape& request : step) {
    request.past_len =
        random.integer(0, 1) == 0 ? random.integer(0, 3000) : random.integer(0, 40000);
    request.q_len = random.integer(0, 2) == 0 ? random.integer(0, 3000) : 1;
    request.max_len = request.past_len + request.q_len + random.integer(0, 100);
  }
  return step;
}

StepShape nearby(const StepShape& step, Random& random) {
  StepShape other = step;
  for (RequestShape& request : other) {
    request.past_len += random.integer(0, 1) == 0 ? random.integer(0, 2) : random.integer(0, 900);
    request.max_len = request.past_len + request.q_len;
  }
  return other;
}

TEST(SameLayouts, AreNeverPromisedWhereLayoutsDiffer) {
  for (const StrategyEntry& entry : strategies()) {
    std::uint64_t seed = 0;
    int promised = 0;
    int kept_apart = 0;
    for (const OptionValues& values : settings_of(entry)) {
      const auto strategy = made(entry.name, values);
      Random random(++seed);
      for (int i = 0; i < 24; ++i) {
        const StepShape a = random_step(random);
        const StepShape b = i % 4 == 0 ? random_step(random) : nearby(a, random);
        const bool equal = strategy->layouts(a) == strategy->layouts(b);
        const bool same = strategy->same_layouts(a, b);
        EXPECT_EQ(same, strategy->same_layouts(b, a)) << entry.name << " seed " << seed;
        EXPECT_TRUE(equal || !same) << entry.name << " seed " << seed << " step " << i;
        promised += same ? 1 : 0;
        kept_apart += equal ? 0 : 1;
      }
    }
    EXPECT_GT(promised, 5) << entry.name;
    EXPECT_GT(kept_apart, 1) << entry.name;
  }
}

TEST(SameLayouts, OfAPoolHoldUntilABlockIsFull) {
  const auto pool =
      made("attention_pool", {{"pool", "8"}, {"threshold", "4096"}, {"kv_block", "1024"}});
  EXPECT_TRUE(pool->same_layouts(decode({100}), decode({4095})));
  EXPECT_FALSE(pool->same_layouts(decode({4095}), decode({4096}))) << "the crest is crossed";
  EXPECT_TRUE(pool->same_layouts(decode({4096}), decode({5119})));
  EXPECT_FALSE(pool->same_layouts(decode({5119}), decode({5120}))) << "a second block begins";
  EXPECT_FALSE(pool->same_layouts(decode({5000, 6000}), decode({5000})));
}

TEST(SameLayouts, OfAReplicatedPoolHoldWhileItsSizeStays) {
  const auto pool = made("attention_pool", {{"pool", "8"}, {"split", "query_blocks"}});
  EXPECT_TRUE(pool->same_layouts(decode({4200}), decode({5119})));
  EXPECT_FALSE(pool->same_layouts(decode({5119}), decode({5120}))) << "a sixth device joins";
  // Before the step of the newcomer's first token it had nothing.
  EXPECT_FALSE(pool->same_layouts(decode({5120}), decode({5121})));
  EXPECT_TRUE(pool->same_layouts(decode({9000}), decode({90000}))) << "the pool is at its most";
}

TEST(SameLayouts, OfSequenceParallelStepsHoldWhileTokensPerRequestAreManyOrFew) {
  const auto split = made("tp_pp", {{"tp", "2"}, {"sequence_parallel", "100"}});
  const auto step = [](std::int64_t first, std::int64_t second) {
    return StepShape{{.past_len = 0, .q_len = first, .max_len = 400},
                     {.past_len = 0, .q_len = second, .max_len = 400}};
  };
  EXPECT_TRUE(split->same_layouts(step(199, 1), step(300, 300)));
  EXPECT_FALSE(split->same_layouts(step(198, 1), step(199, 1)));
  EXPECT_TRUE(split->same_layouts(step(99, 0), step(1, 1)));
  EXPECT_TRUE(split->same_layouts(step(100, 0), step(300, 300))) << "who brings none counts not";
  EXPECT_TRUE(split->same_layouts(step(0, 0), step(1, 1)));
  const auto never = made("tp_pp", {{"tp", "2"}});
  EXPECT_TRUE(never->same_layouts(step(300, 300), step(1, 1)));
}

TEST(SameLayouts, OfARingHoldUntilTheLongestFillsABlock) {
  const auto ring = made("context_parallel", {{"exchange", "ring"}, {"kv_block", "256"}});
  EXPECT_TRUE(ring->same_layouts(decode({300, 10}), decode({511, 200})));
  EXPECT_FALSE(ring->same_layouts(decode({511, 10}), decode({512, 10})));
  EXPECT_FALSE(ring->same_layouts(decode({511}), {{.past_len = 510, .q_len = 2, .max_len = 600}}))
      << "in a step of one token the queries go to the keys";
  const auto gather = made("context_parallel", {{"exchange", "all_gather"}});
  EXPECT_TRUE(gather->same_layouts(decode({1}), decode({100000})));
}

}  // namespace
}  // namespace weir
