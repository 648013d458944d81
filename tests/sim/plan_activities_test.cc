// Plans whose collectives are played message by message, beside the same plans as they are.
#include "sim/plan_activities.h"

#include <cmath>
#include <cstdlib>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "clusters_for_tests.h"
#include "random_cases.h"
#include "result/paths.h"
#include "result/timeline_check.h"
#include "sim/expand.h"
#include "sim/simulate.h"
#include "tests/plan/plans_for_tests.h"
#include "tests/strategies/planned_step.h"

namespace weir {
namespace {

constexpr std::uint64_t kActivityCases = 60;

SimulatedStep simulated(const RandomCase& made, bool expand,
                        SimulationMethod method = SimulationMethod::automatic) {
  auto step = simulate(made.plan, made.cluster, made.lengths,
                       {.method = method, .expand_collectives = expand});
  EXPECT_TRUE(step.has_value()) << step.error().message;
  return *std::move(step);
}

// By how much messages can be later than whole collectives, all on one path.
SimTime rounding_of(const RandomCase& made) {
  const Machine machine = Machine::make(made.cluster).value();
  SimTime sum;
  for (std::size_t n = 0; n < made.plan->nodes.size(); ++n) {
    const auto id = static_cast<NodeId>(n);
    const OpKind kind = made.plan->nodes[n].kind;
    if (queue_of(kind) == Queue::compute || kind == OpKind::copy || kind == OpKind::kv_copy)
      continue;
    SimTime most;
    for (const CollectiveShape& shape : collectives_of(made.plan.plan(), id, made.lengths)) {
      const CommCost cost = collective_cost(machine.topology(), shape).value();
      ActivityGraph graph;
      most = std::max(most, expansion_rounding(
                                expand_collective(machine.topology(), shape, cost, graph).value()));
    }
    sum += most;
  }
  return sum;
}

TEST(ExpandedPlans, TakeAsLongAsTheWholeButForRoundingWhereNothingIsShared) {
  int compared = 0;
  for (std::uint64_t seed = 0; seed < kActivityCases; ++seed) {
    const RandomCase made = random_case(seed, false);
    const SimulatedStep whole = simulated(made, false);
    const SimulatedStep messages = simulated(made, true);
    ASSERT_FALSE(whole.links_shared) << "seed " << seed;
    const SimTime rounding = rounding_of(made);
    compared += rounding.ns > 0 ? 1 : 0;
    EXPECT_LE(std::abs((messages.timeline.end - whole.timeline.end).ns), rounding.ns)
        << "seed " << seed;
  }
  EXPECT_GT(compared, 30);
}

TEST(ExpandedPlans, AreSoundRunsOfTheirPlans) {
  for (const bool shared : {false, true}) {
    for (std::uint64_t seed = 0; seed < kActivityCases; ++seed) {
      const RandomCase made = random_case(seed, shared);
      const Timeline timeline = simulated(made, true).timeline;
      EXPECT_EQ(problems_of(timeline), std::vector<std::string>{}) << "seed " << seed;
      EXPECT_EQ(problems_of(timeline, 0, made.plan.plan(), made.lengths),
                std::vector<std::string>{})
          << "seed " << seed;
    }
  }
}

TEST(ExpandedPlans, GiveTheEventLoopsAnswerWhicheverWayIsChosen) {
  int compared = 0;
  for (std::uint64_t seed = 0; seed < kActivityCases; ++seed) {
    const RandomCase made = random_case(seed, seed % 2 == 0);
    const SimulatedStep by_events = simulated(made, true, SimulationMethod::event_loop);
    if (!by_events.links_shared) ++compared;
    EXPECT_EQ(simulated(made, true).timeline, by_events.timeline) << "seed " << seed;
  }
  EXPECT_GT(compared, 20);
}

TEST(ExpandedPlans, ShareLinksMessageByMessage) {
  int slower = 0;
  for (std::uint64_t seed = 0; seed < kActivityCases; ++seed) {
    const RandomCase made = random_case(seed, true);
    const SimulatedStep step = simulated(made, true);
    const SimulatedStep alone = simulated(made, true, SimulationMethod::static_pass);
    EXPECT_GE(step.timeline.end, alone.timeline.end) << "seed " << seed;
    if (step.timeline.end > alone.timeline.end) ++slower;
  }
  EXPECT_GT(slower, 0);
}

TEST(ExpandedPlans, HaveTheSameTasksBytesAndEnergy) {
  const RandomCase made = random_case(3, false);
  const SimulatedStep whole = simulated(made, false);
  const SimulatedStep messages = simulated(made, true);
  ASSERT_EQ(whole.timeline.tasks.size(), messages.timeline.tasks.size());
  for (std::size_t i = 0; i < whole.timeline.tasks.size(); ++i) {
    EXPECT_EQ(whole.timeline.tasks[i].bytes, messages.timeline.tasks[i].bytes);
    EXPECT_EQ(whole.timeline.tasks[i].node, messages.timeline.tasks[i].node);
  }
  for (std::size_t d = 0; d < whole.joules.size(); ++d)
    EXPECT_NEAR(messages.joules[d] / whole.joules[d], 1, 1e-4);
}

// Every strategy, and so every collective that a plan can have.
std::vector<RandomCase> cases_of_all_strategies() {
  const std::pair<std::string, OptionValues> strategies[] = {
      {"single", {}},
      {"tp_pp", {{"tp", "4"}, {"pp", "2"}}},
      {"attention_pool", {{"tp", "2"}, {"pool", "6"}, {"kv_block", "300"}}},
      {"attention_pool",
       {{"tp", "2"}, {"pool", "6"}, {"pool_policy", "fixed"}, {"split", "query_blocks"}}},
      {"attention_pool",
       {{"tp", "2"}, {"pool", "4"}, {"pool_policy", "fixed"}, {"split", "heads"}}},
      {"two_level", {{"head_groups", "4"}, {"dim_slices", "2"}}},
      {"two_level", {{"scores", "reduce_scores"}, {"key_blocks", "3"}}},
      {"cache_fit", {{"devices", "4"}, {"tp", "2"}, {"capacity_kib", "1000000"}}},
      {"context_parallel", {{"cp", "4"}, {"exchange", "ring"}}},
      {"context_parallel", {{"cp", "4"}, {"exchange", "all_gather"}}},
      {"context_parallel", {{"cp", "4"}, {"exchange", "all_to_all"}}},
  };
  ModelSpec model = tiny_model(3);
  model.max_position = 1 << 16;
  std::vector<RandomCase> cases;
  for (const auto& [strategy, options] : strategies) {
    for (const std::int64_t q_len : {1, 512}) {
      const auto step = planned({.model = model,
                                 .strategy = strategy,
                                 .options = options,
                                 .step = {{.past_len = 6000, .q_len = q_len, .max_len = 8192}}});
      EXPECT_TRUE(step.has_value()) << strategy;
      const auto devices = static_cast<std::int64_t>(step->plan->devices.size());
      for (const ClusterSpec& cluster :
           {round_cluster(1, devices), round_cluster(devices, 1),
            round_cluster((devices + 1) / 2, 2),
            load_cluster(fmt::format("h100-sxm:{}", (devices + 7) / 8)).value()})
        cases.push_back({.plan = step->plan, .cluster = cluster, .lengths = step->lengths});
    }
  }
  return cases;
}

TEST(ExpandedPlans, AreSoundRunsOfEveryStrategy) {
  int compared = 0;
  for (const RandomCase& made : cases_of_all_strategies()) {
    const std::string name = made.plan->strategy + " on " + made.cluster.name;
    const SimulatedStep whole = simulated(made, false);
    const SimulatedStep messages = simulated(made, true);
    EXPECT_EQ(problems_of(messages.timeline), std::vector<std::string>{}) << name;
    EXPECT_EQ(problems_of(messages.timeline, 0, made.plan.plan(), made.lengths),
              std::vector<std::string>{})
        << name;
    EXPECT_EQ(simulated(made, true, SimulationMethod::event_loop).timeline, messages.timeline)
        << name;
    if (whole.links_shared) continue;
    ++compared;
    EXPECT_LE(std::abs((messages.timeline.end - whole.timeline.end).ns), rounding_of(made).ns)
        << name << " " << whole.timeline.end.ns;
  }
  EXPECT_GT(compared, 40);
}

}  // namespace
}  // namespace weir
