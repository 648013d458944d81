// How the cost of playing a plan grows with the plan: counted in steps and in bytes, which do not
// depend on the machine. What is allocated is counted
// (counting_allocator.h), so this binary is one of its own.

#include <algorithm>
#include <cmath>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "clusters_for_tests.h"
#include "counting_allocator.h"
#include "sim/plan_activities.h"
#include "sim/simulate.h"
#include "strategy/strategy.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

// The most that is allocated while `run` runs, beyond what is allocated before.
template <class Run>
double peak_bytes(const Run& run) {
  begin_counting();
  run();
  return static_cast<double>(peak_of_counting());
}

constexpr std::int64_t kMicrobatches = 4;

struct Sizes {
  std::int64_t layers = 1;
  std::int64_t tp = 1;
  std::int64_t pp = 1;
};

struct Prepared {
  ValidPlan plan;
  Machine machine;
  StepCosts costs;
};

// On nodes of 8 whose devices share a bus and one card, so that stages meet on both.
Prepared prepared(const Sizes& sizes) {
  const std::int64_t devices = sizes.tp * sizes.pp;
  const PlanHeader header = tiny_header(devices, sizes.layers, kMicrobatches);
  const auto named = make_strategy("tp_pp",
                                   {{"tp", fmt::format("{}", sizes.tp)},
                                    {"pp", fmt::format("{}", sizes.pp)},
                                    {"microbatches", fmt::format("{}", kMicrobatches)}},
                                   header.model);
  EXPECT_TRUE(named.has_value());
  const StepShape shape(kMicrobatches, {.past_len = 48, .q_len = 16, .max_len = 64});
  auto plan = validate(lower(header, named->strategy->layouts(shape)));
  EXPECT_TRUE(plan.has_value());
  ClusterSpec cluster = round_cluster((devices + 7) / 8, std::min<std::int64_t>(devices, 8));
  NodeType& node = cluster.node_types[0];
  node.fabrics[0].latency = Seconds{1e-7};
  node.fabrics[0].bandwidth = BytesPerSecond{1e8};
  node.fabrics[0].shared_bandwidth = BytesPerSecond{2e8};
  node.nics->owner = NicOwner::node;
  auto machine = Machine::make(cluster);
  EXPECT_TRUE(machine.has_value());
  auto costs = StepCosts::make(*plan, *machine, (*plan)->limits, {});
  EXPECT_TRUE(costs.has_value()) << costs.error().message;
  return {.plan = *std::move(plan), .machine = *std::move(machine), .costs = *std::move(costs)};
}

PlanActivities expanded(const Prepared& made) {
  auto activities =
      to_expanded_activities(made.plan, made.costs, made.machine, made.plan->limits, {});
  EXPECT_TRUE(activities.has_value()) << activities.error().message;
  return *std::move(activities);
}

struct Counted {
  double activities = 0;
  double operations = 0;
};

Counted counted(const Sizes& sizes) {
  const Prepared made = prepared(sizes);
  const PlanActivities activities = expanded(made);
  const ActivityTimes run = run_by_events(activities.graph, made.machine.topology().capacities());
  EXPECT_TRUE(run.has_slowed) << "links are shared";
  return {.activities = static_cast<double>(activities.graph.size()),
          .operations = static_cast<double>(run.operations)};
}

// What n log n allows for the larger, from what the smaller took.
void expect_no_worse_than_n_log_n(const Counted& small, const Counted& large) {
  const double n_log_n = large.activities * std::log2(large.activities) /
                         (small.activities * std::log2(small.activities));
  EXPECT_GT(large.activities, 1.9 * small.activities);
  EXPECT_LE(large.operations, small.operations * n_log_n * 1.02)
      << small.activities << " to " << large.activities;
}

TEST(ActivityCost, GrowsNoFasterThanNLogNInTheLayers) {
  const Counted once = counted({.layers = 8, .tp = 4, .pp = 2});
  const Counted twice = counted({.layers = 16, .tp = 4, .pp = 2});
  const Counted four_times = counted({.layers = 32, .tp = 4, .pp = 2});
  expect_no_worse_than_n_log_n(once, twice);
  expect_no_worse_than_n_log_n(twice, four_times);
}

TEST(ActivityCost, GrowsNoFasterThanNLogNInTheDevices) {
  const Counted once = counted({.layers = 16, .tp = 4, .pp = 2});
  const Counted twice = counted({.layers = 32, .tp = 4, .pp = 4});
  const Counted four_times = counted({.layers = 64, .tp = 4, .pp = 8});
  expect_no_worse_than_n_log_n(once, twice);
  expect_no_worse_than_n_log_n(twice, four_times);
}

// The graph and what a run needs beside it, all at once.
TEST(ActivityCost, AnActivityOfAnExpandedPlanTakesNoMoreThan64Bytes) {
  const Prepared made = prepared({.layers = 64, .tp = 4, .pp = 2});
  std::size_t activities = 0;
  const double bytes = peak_bytes([&] {
    const PlanActivities all = expanded(made);
    const ActivityTimes run = run_by_events(all.graph, made.machine.topology().capacities());
    EXPECT_TRUE(run.has_slowed);
    activities = all.graph.size();
  });
  EXPECT_GT(activities, 20'000U);
  EXPECT_LE(bytes / static_cast<double>(activities), 64) << activities;
  RecordProperty("bytes_per_activity",
                 fmt::format("{:.1f}", bytes / static_cast<double>(activities)));
}

TEST(ActivityCost, ATaskTakesNoMoreThan64BytesInOnePassAndByEvents) {
  const Prepared made = prepared({.layers = 64, .tp = 4, .pp = 2});
  std::size_t tasks = 0;
  const double in_one_pass =
      peak_bytes([&] { tasks = schedule_statically(made.plan, made.costs).tasks.size(); });
  const double by_events = peak_bytes([&] {
    tasks = schedule_by_events(made.plan, made.costs, made.machine.topology()).tasks.size();
  });
  EXPECT_LE(in_one_pass / static_cast<double>(tasks), 64) << tasks;
  EXPECT_LE(by_events / static_cast<double>(tasks), 64) << tasks;
  RecordProperty("bytes_per_task_in_one_pass",
                 fmt::format("{:.1f}", in_one_pass / static_cast<double>(tasks)));
  RecordProperty("bytes_per_task_by_events",
                 fmt::format("{:.1f}", by_events / static_cast<double>(tasks)));
}

TEST(ActivityCost, AWholeSimulationTakesNoMoreThan64BytesForEachTaskOrMessage) {
  const Prepared made = prepared({.layers = 128, .tp = 4, .pp = 2});
  const auto tasks = static_cast<double>(to_activities(made.plan, made.costs).ends.size());
  const auto messages = static_cast<double>(expanded(made).graph.size());
  for (const bool expand : {false, true}) {
    const double bytes = peak_bytes([&] {
      const auto step = simulate(made.plan, made.machine, made.plan->limits,
                                 {.method = SimulationMethod::event_loop,
                                  .expand_collectives = expand,
                                  .record_tasks = false});
      EXPECT_TRUE(step.has_value());
    });
    EXPECT_LE(bytes / (expand ? messages : tasks), 64) << (expand ? "messages" : "tasks");
    RecordProperty(expand ? "bytes_per_message" : "bytes_per_task",
                   fmt::format("{:.1f}", bytes / (expand ? messages : tasks)));
  }
}

}  // namespace
}  // namespace weir
