#include "sim/step_costs.h"

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include <gtest/gtest.h>

#include "clusters_for_tests.h"
#include "plan/work.h"
#include "strategy/strategy.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

// Costs are worked out once for neighbours that do alike; work_of() knows nothing of that.
TEST(StepCosts, TasksDoTheWorkOfTheirOwnPieces) {
  const std::pair<const char*, OptionValues> strategies[] = {
      {"tp_pp", {{"tp", "3"}, {"pp", "2"}, {"microbatches", "2"}}},
      {"tp_pp", {{"tp", "3"}, {"sequence_parallel", "1"}}},
      {"attention_pool",
       {{"tp", "2"}, {"pool", "3"}, {"pool_policy", "fixed"}, {"threshold", "16"}}},
      {"attention_pool",
       {{"pool", "3"}, {"pool_policy", "fixed"}, {"threshold", "16"}, {"kv_block", "16"}}},
      {"attention_pool",
       {{"pool", "3"}, {"pool_policy", "fixed"}, {"threshold", "16"}, {"split", "query_blocks"}}},
      {"two_level", {{"head_groups", "2"}, {"dim_slices", "2"}, {"scores", "reduce_scores"}}},
      {"two_level", {{"head_groups", "3"}, {"dim_slices", "1"}}},
      {"context_parallel", {{"cp", "3"}, {"kv_block", "16"}}},
      {"context_parallel", {{"cp", "2"}, {"exchange", "all_to_all"}}}};
  for (const auto& [name, options] : strategies) {
    ModelSpec model = tiny_model();
    const auto named = make_strategy(name, options, model);
    ASSERT_TRUE(named.has_value()) << name << ": " << named.error().message;
    PlanHeader header = tiny_header(named->strategy->num_devices(), 2, 3);
    const StepShape shape(3, {.past_len = 48, .q_len = 16, .max_len = 64});
    const auto plan = validate(lower(header, named->strategy->layouts(shape)));
    ASSERT_TRUE(plan.has_value()) << named->label << ": " << join_problems(plan.error());
    const StepLengths lengths = {{.q_len = 16, .kv_len = 60}, {.q_len = 1, .kv_len = 33}, {}};
    const auto machine = Machine::make(round_cluster(1, named->strategy->num_devices()));
    const auto costs = StepCosts::make(*plan, *machine, lengths, {});
    ASSERT_TRUE(costs.has_value()) << costs.error().message;
    for (std::size_t n = 0; n < (*plan)->nodes.size(); ++n) {
      const Node& node = (*plan)->nodes[n];
      if (queue_of(node.kind) == Queue::comm) continue;
      const std::vector<DeviceId>& members = (*plan)->at(node.devices);
      for (std::size_t place = 0; place < members.size(); ++place) {
        const Work work = work_of(plan->plan(), node, members[place], lengths);
        const TaskCost& cost = costs->of(static_cast<NodeId>(n)).tasks[place];
        EXPECT_EQ(cost.flops, work.flops) << named->label << " " << to_string(node.kind);
        EXPECT_EQ(cost.bytes, work.bytes()) << named->label << " " << to_string(node.kind);
      }
    }
  }
}

TEST(StepCosts, RefusesRatesAtWhichAStepTakesWeeks) {
  const auto named = make_strategy("tp_pp", {{"tp", "2"}}, tiny_model());
  ASSERT_TRUE(named.has_value()) << named.error().message;
  const StepShape shape(3, {.past_len = 0, .q_len = 16, .max_len = 64});
  const auto plan = validate(lower(tiny_header(2, 2, 3), named->strategy->layouts(shape)));
  ASSERT_TRUE(plan.has_value()) << join_problems(plan.error());
  const StepLengths lengths(3, {.q_len = 16, .kv_len = 16});
  ClusterSpec cluster = round_cluster(1, 2);
  for (const double rate : {1e-3, 1e-30}) {
    cluster.node_types[0].fabrics[0].bandwidth = BytesPerSecond{rate};
    const auto machine = Machine::make(cluster);
    ASSERT_TRUE(machine.has_value());
    const auto costs = StepCosts::make(*plan, *machine, lengths, {});
    ASSERT_FALSE(costs.has_value());
    EXPECT_EQ(costs.error().message,
              "cluster " + cluster.name +
                  ": found rates at which a step may take 13 days, allowed higher ones");
  }
}

// Devices with round kernels: 1 ps for a weight that lies in L3, 100 for one in memory; 4 and 10 ps
// to copy a byte.
ClusterSpec measured_cluster(std::int64_t devices, std::int64_t l3) {
  ClusterSpec cluster = round_cluster(1, devices);
  DeviceType& type = cluster.device_types[0];
  type.l2 = Bytes{1 << 10};
  type.l3 = Bytes{l3};
  type.launch_latency = Seconds{0};
  MeasuredKernels kernels;
  for (const auto& [level, linear, copy] :
       {std::tuple(CacheLevel::l3, 1.0, 4.0), std::tuple(CacheLevel::memory, 100.0, 10.0)}) {
    kernels.linear.push_back({.weight = DType::f32,
                              .level = level,
                              .devices = 1,
                              .costs = {{.rows = 1, .ps_per_weight = linear}}});
    kernels.stream.push_back(
        {.kind = StreamKind::copy, .level = level, .devices = 1, .ps_per_byte = copy});
  }
  kernels.attention = {
      {.kv = DType::f32,
       .level = CacheLevel::memory,
       .devices = 1,
       .costs = {{.rows = 1, .ps_per_key = 100, .ps_per_value = 1, .ps_to_begin = 1000}}}};
  type.kernels = std::move(kernels);
  return cluster;
}

ValidPlan decode_plan(const char* strategy, const OptionValues& options, std::int64_t q_len = 1) {
  const auto named = make_strategy(strategy, options, tiny_model());
  EXPECT_TRUE(named.has_value());
  PlanHeader header = tiny_header(named->strategy->num_devices(), 2, 1);
  header.limits = {{.q_len = q_len, .kv_len = 64}};
  auto plan = validate(lower(
      header, named->strategy->layouts({{.past_len = 64 - q_len, .q_len = q_len, .max_len = 64}})));
  EXPECT_TRUE(plan.has_value());
  return *std::move(plan);
}

const NodeClass& first_of(const ValidPlan& plan, const StepCosts& costs, OpKind kind) {
  std::size_t n = 0;
  while (plan->nodes[n].kind != kind) ++n;
  return costs.of(static_cast<NodeId>(n));
}

// One device may fill the part of another that does nothing; two that stream may not.
TEST(StepCosts, AnL3ThatDevicesShareHoldsWhatTheyStreamTogether) {
  const StepLengths lengths = {{.q_len = 1, .kv_len = 64}};
  const auto feed_forward = [&](const ValidPlan& plan, ClusterSpec cluster, std::int64_t sharing) {
    if (sharing > 1) cluster.device_types[0].l3_devices = sharing;
    const auto machine = Machine::make(cluster);
    const auto costs = StepCosts::make(plan, *machine, lengths, {});
    return first_of(plan, *costs, OpKind::ffn_down).tasks[0].time;
  };
  const ValidPlan alone = decode_plan("tp_pp", {{"tp", "1"}});
  const std::int64_t streamed = alone.memory()[0].weights + alone.memory()[0].kv_cache;
  const ClusterSpec large = measured_cluster(2, streamed);
  const ClusterSpec small = measured_cluster(2, streamed * 3 / 5);
  EXPECT_LT(feed_forward(alone, large, 1), feed_forward(alone, small, 1));
  EXPECT_EQ(feed_forward(alone, small, 2), feed_forward(alone, large, 1));

  // The first device has a layer and the embedding, the second a layer and lm_head.
  const ValidPlan both = decode_plan("tp_pp", {{"tp", "1"}, {"pp", "2"}});
  std::int64_t together = 0;
  for (const DeviceMemory& memory : both.memory()) together += memory.weights + memory.kv_cache;
  const ClusterSpec for_each = measured_cluster(2, together * 2 / 5);
  EXPECT_GT(feed_forward(both, for_each, 2), feed_forward(both, measured_cluster(2, together), 2));
}

// Out of the sender's memory into a buffer that stays in L3 from layer to layer, and from there to
// the receiver.
TEST(StepCosts, KeysAndValuesOfOthersAreCopiedOutOfTheirCacheFirst) {
  const ValidPlan plan = decode_plan("context_parallel", {{"cp", "2"}, {"kv_block", "16"}}, 2);
  const auto cost_of_copy = [&](std::int64_t l3) {
    ClusterSpec cluster = measured_cluster(2, l3);
    cluster.node_types[0].fabrics[0].transfers =
        MeasuredTransfers{.messages = {{.bytes = 1024, .us = 2}}};
    const auto machine = Machine::make(cluster);
    const auto costs = StepCosts::make(plan, *machine, {{.q_len = 1, .kv_len = 64}}, {});
    const NodeClass& copy = first_of(plan, *costs, OpKind::copy);
    return std::pair(copy.tasks[0].bytes, copy.tasks[0].time);
  };
  // A layer and the buffers, but not both layers.
  const std::int64_t layer = plan.memory()[0].weights / 2;
  const auto [bytes, time] = cost_of_copy(layer * 3 / 2);
  ASSERT_EQ(bytes, 32 * 2 * 8 * 2);  // Half of the keys, two heads of 8, bf16.
  EXPECT_EQ(time.ns, 2000 + (10 + 4) * 1024 / 1000 + 1);
  // Where no cache holds them, the receiver's memory is no slower than the link.
  const auto [same_bytes, from_memory] = cost_of_copy(layer / 2);
  EXPECT_EQ(same_bytes, bytes);
  EXPECT_EQ(from_memory.ns, 2000 + (10 + 10) * 1024 / 1000 + 1);
}

}  // namespace
}  // namespace weir
