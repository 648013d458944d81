// Who does how much of the attention, how large pools are, and where K and V lie as a sequence
// grows.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "checkpoint/preset.h"
#include "plan/work.h"
#include "strategy/pool_policy.h"
#include "tests/strategies/planned_step.h"

namespace weir {
namespace {

// The busiest device's attention FLOPs over the mean of those that have any, for one prefill.
double imbalance(const std::string& strategy, const OptionValues& options, std::int64_t q_len) {
  const auto model = preset_model("fa-pool-4l", {});
  if (!model) return 0;
  const auto step = planned({.model = *model,
                             .strategy = strategy,
                             .options = options,
                             .step = {{.past_len = 0, .q_len = q_len, .max_len = q_len}}});
  if (!step) return 0;
  std::vector<double> flops;
  for (std::size_t device = 0; device < step->plan->devices.size(); ++device) {
    std::int64_t sum = 0;
    for (const NodeId node : step->plan->devices[device].compute) {
      if (class_of(step->plan->at(node).kind) != OpClass::attention) continue;
      sum += work_of(step->plan.plan(), step->plan->at(node), static_cast<DeviceId>(device),
                     step->lengths)
                 .flops;
    }
    if (sum > 0) flops.push_back(static_cast<double>(sum));
  }
  EXPECT_EQ(flops.size(), 8U);
  const double mean =
      std::accumulate(flops.begin(), flops.end(), 0.0) / static_cast<double>(flops.size());
  return *std::ranges::max_element(flops) / mean - 1;
}

OptionValues eight_pool_devices(const char* split) {
  return {{"tp", "8"}, {"pool", "8"}, {"pool_policy", "fixed"}, {"split", split}};
}

// One new token for three devices: two have nothing to multiply, and read no weights for it.
TEST(Balance, WhoHasNoTokensHasNoWorkOutsideAttention) {
  const auto model = preset_model("fa-pool-4l", {});
  ASSERT_TRUE(model);
  const auto step = planned({.model = *model,
                             .strategy = "context_parallel",
                             .options = {{"cp", "3"}},
                             .step = {{.past_len = 999, .q_len = 1, .max_len = 1024}}});
  ASSERT_TRUE(step);
  std::size_t busy = 0;
  for (std::size_t device = 0; device < 3; ++device) {
    std::int64_t bytes = 0;
    for (const NodeId node : step->plan->devices[device].compute) {
      const OpKind kind = step->plan->at(node).kind;
      if (kind == OpKind::qkv_proj || kind == OpKind::ffn_up || kind == OpKind::attn_norm)
        bytes += work_of(step->plan.plan(), step->plan->at(node), static_cast<DeviceId>(device),
                         step->lengths)
                     .bytes();
    }
    busy += bytes > 0 ? 1 : 0;
  }
  EXPECT_EQ(busy, 1U);
}

TEST(Balance, ContiguousQueryBlocksGiveTheLastOfEightDevicesAlmostTwiceTheMean) {
  for (const std::int64_t q_len : {8192, 10000, 32768}) {
    const double more = imbalance("attention_pool", eight_pool_devices("query_blocks"), q_len);
    EXPECT_GE(more, 0.80) << q_len;
    EXPECT_LE(more, 0.95) << q_len;
  }
}

TEST(Balance, BalancedQueryBlocksGiveNoDeviceFivePercentMoreThanTheMean) {
  for (const std::int64_t q_len : {8192, 10000, 32768}) {
    const double more =
        imbalance("attention_pool", eight_pool_devices("balanced_query_blocks"), q_len);
    EXPECT_GE(more, 0.0) << q_len;
    EXPECT_LE(more, 0.05) << q_len;
  }
}

TEST(Balance, ContextParallelBlocksAreAlikeWhateverTheExchange) {
  for (const char* exchange : {"ring", "all_gather"}) {
    const auto more = [&](const char* blocks) {
      return imbalance("context_parallel",
                       {{"cp", "8"}, {"exchange", exchange}, {"blocks", blocks}}, 8192);
    };
    EXPECT_LE(more("balanced"), 0.05) << exchange;
    EXPECT_GE(more("contiguous"), 0.80) << exchange;
    EXPECT_LE(more("contiguous"), 0.95) << exchange;
  }
}

TEST(Balance, AllToAllIsBalancedWhateverTheBlocks) {
  for (const char* blocks : {"balanced", "contiguous"}) {
    EXPECT_LE(imbalance("context_parallel",
                        {{"cp", "8"}, {"exchange", "all_to_all"}, {"blocks", blocks}}, 8192),
              0.001);
  }
}

std::vector<std::int64_t> sizes_at_the_notes_test_points(PoolPolicy policy) {
  std::vector<std::int64_t> sizes;
  for (const std::int64_t length : {512, 1024, 2048, 4096, 8192, 16384, 32768})
    sizes.push_back(pool_size({.policy = policy, .threshold = 4096, .p_max = 32}, length));
  return sizes;
}

TEST(PoolSizes, TheNotesContradictEachOtherAtTheirOwnTestPoints) {
  using Sizes = std::vector<std::int64_t>;
  EXPECT_EQ(sizes_at_the_notes_test_points(PoolPolicy::linear), (Sizes{0, 0, 0, 0, 8, 16, 32}));
  EXPECT_EQ(sizes_at_the_notes_test_points(PoolPolicy::results), (Sizes{0, 0, 8, 8, 16, 24, 32}));
  EXPECT_EQ(sizes_at_the_notes_test_points(PoolPolicy::assignment),
            (Sizes{0, 0, 0, 0, 10, 18, 24}));
  EXPECT_EQ(sizes_at_the_notes_test_points(PoolPolicy::fixed), (Sizes{0, 0, 0, 0, 32, 32, 32}));
}

TEST(PoolSizes, AssignmentFollowsTheRangesOfItsTable) {
  const auto size = [](std::int64_t length) {
    return pool_size({.policy = PoolPolicy::assignment, .threshold = 4096, .p_max = 32}, length);
  };
  const std::vector<std::pair<std::int64_t, std::int64_t>> ends = {
      {4096, 0}, {6144, 8}, {8192, 10}, {12288, 14}, {16384, 18}, {24576, 22}, {32768, 24}};
  for (std::size_t i = 0; i < ends.size(); ++i) {
    EXPECT_EQ(size(ends[i].first), ends[i].second);
    EXPECT_EQ(size(ends[i].first + 1), i + 1 < ends.size() ? ends[i + 1].second : 32);
  }
}

TEST(PoolSizes, NobodyIsInThePoolUpToTheCrestAndSomebodyAboveIt) {
  using enum PoolPolicy;
  for (const PoolPolicy policy : {linear, results, assignment, fixed}) {
    const PoolSizing sizing = {.policy = policy, .threshold = 4096, .p_max = 32};
    EXPECT_EQ(pool_size(sizing, 0), 0);
    EXPECT_EQ(pool_size(sizing, crest(sizing)), 0);
    EXPECT_GT(pool_size(sizing, crest(sizing) + 1), 0);
  }
}

TEST(PoolSizes, NeverFallAsASequenceGrowsNorExceedThePool) {
  using enum PoolPolicy;
  for (const PoolPolicy policy : {linear, results, assignment, fixed}) {
    for (const std::int64_t p_max : {0, 1, 7, 32}) {
      std::int64_t last = 0;
      for (std::int64_t length = 0; length < 70000; length += 13) {
        const std::int64_t size =
            pool_size({.policy = policy, .threshold = 4096, .p_max = p_max}, length);
        ASSERT_GE(size, last) << length;
        ASSERT_LE(size, p_max) << length;
        last = size;
      }
    }
  }
}

// Of one position of request 0: each device that has it, with its heads and dims.
struct Held {
  DeviceId device{};
  Interval head;
  Interval dim;
  bool operator==(const Held&) const = default;
};

std::vector<Held> holders(const Plan& plan, ValueId cache, std::int64_t position,
                          std::int64_t kv_len) {
  const TensorShape shape = shape_of(plan, plan.at(cache));
  std::vector<Held> held;
  for (const Buffer& buffer : buffers_of(plan.layout_of(cache))) {
    const ResolvedBox box = resolve(buffer.box, shape, 0, {.q_len = kv_len, .kv_len = kv_len});
    if (!box.token.contains({.begin = position, .end = position + 1})) continue;
    held.push_back({.device = buffer.device, .head = box.head, .dim = box.dim});
  }
  std::ranges::sort(held, {}, [](const Held& h) {
    return std::tuple(index_of(h.device), h.head.begin, h.dim.begin);
  });
  return held;
}

enum class Growth { none, replicas };

// Plans one token more than `past` and gives the caches of the last layer: K and V before, K and V
// after.
std::vector<ValueId> caches_of(const Plan& plan) {
  std::vector<ValueId> caches;
  for (const Node& node : plan.nodes) {
    if (!writes_state(node.kind) || node.layer + 1 != plan.model.num_layers) continue;
    caches = {node.inputs[2], node.inputs[3], node.outputs[0], node.outputs[1]};
  }
  return caches;
}

struct Layouts {
  std::string strategy;
  OptionValues options;
  Growth growth = Growth::none;  // Devices that join get copies of what is there.
};

std::vector<Layouts> all_strategies() {
  return {{"single", {}},
          {"tp_pp", {{"tp", "3"}, {"pp", "2"}}},
          {"attention_pool", {{"tp", "2"}, {"pool", "32"}}},
          {"attention_pool", {{"tp", "2"}, {"pool", "6"}, {"kv_block", "300"}}},
          {"attention_pool", {{"tp", "2"}, {"pool", "32"}, {"pool_policy", "results"}}},
          {"attention_pool", {{"tp", "2"}, {"pool", "32"}, {"pool_policy", "assignment"}}},
          {"attention_pool",
           {{"tp", "2"}, {"pool", "32"}, {"split", "query_blocks"}},
           Growth::replicas},
          {"attention_pool",
           {{"tp", "2"}, {"pool", "9"}, {"split", "balanced_query_blocks"}},
           Growth::replicas},
          {"attention_pool",
           {{"tp", "2"}, {"pool", "4"}, {"pool_policy", "fixed"}, {"split", "heads"}},
           Growth::replicas},
          {"two_level", {{"head_groups", "4"}, {"dim_slices", "4"}}},
          {"two_level", {{"scores", "reduce_scores"}, {"key_blocks", "3"}}},
          {"cache_fit", {{"devices", "4"}, {"tp", "2"}, {"capacity_kib", "1000000"}}},
          {"context_parallel", {{"cp", "3"}, {"exchange", "ring"}}},
          {"context_parallel", {{"cp", "3"}, {"exchange", "all_gather"}}},
          {"context_parallel", {{"cp", "3"}, {"exchange", "all_to_all"}}}};
}

ModelSpec grouped_query_model() {
  return {.name = "grouped",
          .num_layers = 2,
          .hidden_size = 64,
          .intermediate_size = 96,
          .vocab_size = 300,
          .num_q_heads = 8,
          .num_kv_heads = 4,
          .head_dim = 16,
          .max_position = 65536,
          .rope = {.rotary_dim = 16}};
}

constexpr std::int64_t kLengths[] = {1,    600,  4095, 4096, 4097,  5119,  5120, 5121,
                                     6145, 8191, 8193, 9000, 12289, 16385, 33000};

std::optional<PlannedStep> step_to(const Layouts& layouts, std::int64_t past, std::int64_t length) {
  return planned({.model = grouped_query_model(),
                  .strategy = layouts.strategy,
                  .options = layouts.options,
                  .step = {{.past_len = past, .q_len = length - past, .max_len = 40000}}});
}

TEST(LawAppendOnly, StateStaysWhereItWasWritten) {
  for (const Layouts& layouts : all_strategies()) {
    std::optional<PlannedStep> last;
    std::int64_t past = 0;
    for (const std::int64_t length : kLengths) {
      const auto step = step_to(layouts, past, length);
      ASSERT_TRUE(step);
      if (!last) last = step;
      const auto now = caches_of(step->plan.plan());
      const auto then = caches_of(last->plan.plan());
      for (const std::size_t cache : {2U, 3U}) {
        for (std::int64_t position = 0; position < past; position += 37) {
          const auto was = holders(last->plan.plan(), then[cache], position, past);
          auto is = holders(step->plan.plan(), now[cache], position, length);
          if (layouts.growth == Growth::replicas)
            std::erase_if(is,
                          [&](const Held& h) { return std::ranges::find(was, h) == was.end(); });
          ASSERT_EQ(was.size(), is.size())
              << layouts.strategy << " position " << position << " at " << past << ", " << length;
          ASSERT_TRUE(was == is) << layouts.strategy << " position " << position << " at " << past
                                 << ", " << length;
          ASSERT_FALSE(is.empty());
        }
      }
      last = step;
      past = length;
    }
  }
}

TEST(LawAppendOnly, AStepFindsTheStateWhereTheLastOneLeftIt) {
  for (const Layouts& layouts : all_strategies()) {
    std::optional<PlannedStep> last;
    std::int64_t past = 0;
    for (const std::int64_t length : kLengths) {
      const auto step = step_to(layouts, past, length);
      ASSERT_TRUE(step);
      for (std::size_t cache = 0; last && cache < 2; ++cache) {
        for (std::int64_t position = 0; position < past; position += 37) {
          ASSERT_TRUE(
              holders(step->plan.plan(), caches_of(step->plan.plan())[cache], position, past) ==
              holders(last->plan.plan(), caches_of(last->plan.plan())[2 + cache], position, past))
              << layouts.strategy << " position " << position << " at " << past << ", " << length;
        }
      }
      last = step;
      past = length;
    }
  }
}

}  // namespace
}  // namespace weir
