#include "sim/steady_state.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "clusters_for_tests.h"
#include "random_cases.h"
#include "sim/plan_activities.h"
#include "sim/schedule.h"
#include "tests/plan/plans_for_tests.h"
#include "tests/strategies/planned_step.h"

namespace weir {
namespace {

constexpr std::uint64_t kSteadyStateCases = 40;

PlannedStep decode_step(const OptionValues& options) {
  auto step = planned({.model = tiny_model(4),
                       .strategy = "tp_pp",
                       .options = options,
                       .step = StepShape(4, {.past_len = 99, .q_len = 1, .max_len = 200})});
  EXPECT_TRUE(step.has_value());
  return *std::move(step);
}

SteadyState steady(const PlannedStep& step, const ClusterSpec& cluster, SimTime between = {}) {
  const auto state =
      simulate_steady_state(step.plan, Machine::make(cluster).value(), step.lengths, between);
  EXPECT_TRUE(state.has_value()) << state.error().message;
  return *state;
}

double step_seconds(const PlannedStep& step, const ClusterSpec& cluster) {
  return to_seconds(simulate(step.plan, cluster, step.lengths)->timeline.end);
}

// Of the device with the most compute in a step.
double busiest_seconds(const ValidPlan& plan, const ClusterSpec& cluster,
                       const StepLengths& lengths) {
  const Timeline timeline = simulate(plan, cluster, lengths)->timeline;
  std::vector<SimTime> busy(timeline.devices.size());
  for (const TaskRecord& task : timeline.tasks) {
    if (queue_of(task.kind) == Queue::compute) busy[index_of(task.device)] += task.end - task.ready;
  }
  return to_seconds(std::ranges::max(busy));
}

TEST(SteadyState, OfOneMicrobatchIsStepAfterStep) {
  const ClusterSpec cluster = round_cluster(1, 2);
  for (const OptionValues& options : {OptionValues{{"tp", "1"}, {"pp", "2"}}, {{"tp", "2"}}}) {
    const PlannedStep step = decode_step(options);
    const SteadyState state = steady(step, cluster, SimTime{5000});
    EXPECT_TRUE(state.settled);
    EXPECT_NEAR(state.period.value, step_seconds(step, cluster) + 5e-6, 1e-12);
  }
}

TEST(SteadyState, KeepsBothStagesBusyWhereStepsWouldDrain) {
  const ClusterSpec cluster = round_cluster(1, 2);
  const PlannedStep step = decode_step({{"tp", "1"}, {"pp", "2"}, {"microbatches", "4"}});
  const SteadyState state = steady(step, cluster);
  EXPECT_TRUE(state.settled);
  const double busiest = busiest_seconds(step.plan, cluster, step.lengths);
  // Four microbatches are more than two stages and a message need: the busier stage never waits.
  EXPECT_NEAR(state.period.value / busiest, 1, 1e-6);
  EXPECT_LT(state.period.value, 0.95 * step_seconds(step, cluster));
  EXPECT_GT(state.utilisation, 0.8);
  EXPECT_LE(state.utilisation, 1);
}

TEST(SteadyState, HostTimeHidesBehindOtherMicrobatches) {
  const ClusterSpec cluster = round_cluster(1, 2);
  const PlannedStep step = decode_step({{"tp", "1"}, {"pp", "2"}, {"microbatches", "4"}});
  const double without = steady(step, cluster).period.value;
  EXPECT_NEAR(steady(step, cluster, SimTime{1000}).period.value, without, 1e-9);
  const double hour = 3600;
  EXPECT_GT(steady(step, cluster, SimTime{3600 * std::int64_t{1'000'000'000}}).period.value, hour);
}

TEST(SteadyState, IsNeverFasterThanTheBusiestDeviceNorSlowerThanStepAfterStep) {
  for (const bool shared : {false, true}) {
    for (std::uint64_t seed = 0; seed < kSteadyStateCases; ++seed) {
      const RandomCase made = random_case(seed, shared);
      const auto state =
          simulate_steady_state(made.plan, Machine::make(made.cluster).value(), made.lengths, {});
      ASSERT_TRUE(state.has_value()) << state.error().message;
      const double busiest = busiest_seconds(made.plan, made.cluster, made.lengths);
      EXPECT_GE(state->period.value, busiest * (1 - 1e-3)) << "seed " << seed;
      if (shared) continue;  // Steps that meet may slow each other.
      const SimulatedStep step = *simulate(made.plan, made.cluster, made.lengths);
      EXPECT_LE(state->period.value, to_seconds(step.timeline.end) * (1 + 1e-3)) << "seed " << seed;
    }
  }
}

TEST(SteadyState, BeginsWithTheStepByItself) {
  for (std::uint64_t seed = 0; seed < kSteadyStateCases; ++seed) {
    const RandomCase made = random_case(seed, false);
    const Machine machine = Machine::make(made.cluster).value();
    const auto costs = StepCosts::make(made.plan, machine, made.lengths, {});
    const PlanActivities repeated = to_repeated_activities(made.plan, *costs, 3, SimTime{7});
    const ActivityTimes times = run_in_order(repeated.graph);
    const Schedule alone = schedule_statically(made.plan, *costs);
    ASSERT_EQ(repeated.ends.size(), 3 * alone.tasks.size());
    for (std::size_t task = 0; task < alone.tasks.size(); ++task)
      ASSERT_EQ(times.ends[repeated.ends[task]], alone.tasks[task].end) << "seed " << seed;
  }
}

TEST(SteadyState, RefusesLengthsBeyondThePlan) {
  PlannedStep step = decode_step({{"tp", "2"}});
  step.lengths[1].kv_len = 100000;
  const auto state = simulate_steady_state(step.plan, Machine::make(round_cluster(1, 2)).value(),
                                           step.lengths, {});
  ASSERT_FALSE(state.has_value());
  EXPECT_NE(state.error().message.find("lengths[1].kv_len: found 100000"), std::string::npos);
}

}  // namespace
}  // namespace weir
