// Plans whose collectives are played message by message, beside the same plans as they are.
#include "sim/plan_activities.h"

#include <cmath>
#include <cstdlib>

#include <gtest/gtest.h>

#include "clusters_for_tests.h"
#include "random_cases.h"
#include "result/paths.h"
#include "result/timeline_check.h"
#include "sim/expand.h"
#include "sim/simulate.h"

namespace weir {
namespace {

constexpr std::uint64_t kCases = 60;

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
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
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
    for (std::uint64_t seed = 0; seed < kCases; ++seed) {
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
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    const RandomCase made = random_case(seed, seed % 2 == 0);
    const SimulatedStep by_events = simulated(made, true, SimulationMethod::event_loop);
    if (!by_events.links_shared) ++compared;
    EXPECT_EQ(simulated(made, true).timeline, by_events.timeline) << "seed " << seed;
  }
  EXPECT_GT(compared, 20);
}

TEST(ExpandedPlans, ShareLinksMessageByMessage) {
  int slower = 0;
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
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

}  // namespace
}  // namespace weir
