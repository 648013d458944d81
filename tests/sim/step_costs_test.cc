#include "sim/step_costs.h"

#include <string>
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

}  // namespace
}  // namespace weir
