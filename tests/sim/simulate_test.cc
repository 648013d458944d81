#include "sim/simulate.h"

#include <string>

#include <gtest/gtest.h>

#include "clusters_for_tests.h"
#include "result/paths.h"
#include "result/timeline_check.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

ValidPlan valid(Plan plan) {
  auto checked = validate(std::move(plan));
  EXPECT_TRUE(checked.has_value()) << join_problems(checked.error());
  return *std::move(checked);
}

SimulatedStep simulated(const ValidPlan& plan, const ClusterSpec& cluster,
                        const SimulateOptions& options = {}) {
  auto step = simulate(plan, cluster, plan->limits, options);
  EXPECT_TRUE(step.has_value()) << step.error().message;
  return *std::move(step);
}

SimTime time_of_kind(const Timeline& timeline, OpKind kind) {
  SimTime sum;
  for (const TaskRecord& task : timeline.tasks) {
    if (task.kind == kind) sum += task.end - task.ready;
  }
  return sum;
}

TEST(Simulate, ASingleDeviceDoesOneTaskAfterTheOther) {
  const ValidPlan plan = valid(single_device_plan());
  const Timeline timeline = simulated(plan, round_cluster(1, 1)).timeline;
  EXPECT_EQ(problems_of(timeline), std::vector<std::string>{});
  SimTime sum;
  for (const TaskRecord& task : timeline.tasks) sum += task.end - task.start;
  EXPECT_EQ(timeline.end, sum);
  EXPECT_EQ(timeline.tasks.size(), plan->nodes.size());
}

TEST(Simulate, TensorParallelTasksObeyThePlan) {
  const ValidPlan plan = valid(tensor_parallel_plan());
  const Timeline timeline = simulated(plan, round_cluster(1, 2)).timeline;
  EXPECT_EQ(problems_of(timeline), std::vector<std::string>{});
  EXPECT_EQ(problems_of(timeline, 0, plan.plan(), plan->limits), std::vector<std::string>{});
  EXPECT_GT(time_of_kind(timeline, OpKind::all_reduce).ns, 0);
}

TEST(Simulate, ASlowerFabricTakesLongerByItsTransfersOnly) {
  const ValidPlan plan = valid(tensor_parallel_plan());
  ClusterSpec cluster = round_cluster(1, 2);
  const Timeline fast = simulated(plan, cluster).timeline;
  cluster.node_types[0].fabrics[0].latency = Seconds{100e-6};
  const Timeline slow = simulated(plan, cluster).timeline;
  EXPECT_GT(slow.end, fast.end);
  EXPECT_EQ(time_of_kind(slow, OpKind::ffn_up), time_of_kind(fast, OpKind::ffn_up));
}

TEST(Simulate, StagesOnDifferentNodesSendOverTheirCards) {
  const ValidPlan plan = valid(two_stage_plan());
  const Timeline near = simulated(plan, round_cluster(1, 4)).timeline;
  const Timeline far = simulated(plan, round_cluster(2, 2)).timeline;
  EXPECT_GT(far.end.ns, near.end.ns + 9000) << "a card's latency is 10 us, a port's 1 us";
}

TEST(Simulate, EnergyIsRestingPowerAndTheTasksOwn) {
  const ValidPlan plan = valid(single_device_plan());
  const SimulatedStep step = simulated(plan, round_cluster(1, 1));
  // 10 W at rest, 50 W more at work, and the only device is always at work.
  EXPECT_NEAR(step.joules[0], 60 * to_seconds(step.timeline.end), 1e-3 * step.joules[0]);
  EXPECT_NEAR(step.usd, 3.6 / 3600 * to_seconds(step.timeline.end), 1e-15);
}

TEST(Simulate, WithoutTasksTheTimesAreTheSame) {
  const ValidPlan plan = valid(tensor_parallel_plan());
  SimulateOptions options;
  options.record_tasks = false;
  const SimulatedStep step = simulated(plan, round_cluster(1, 2), options);
  EXPECT_TRUE(step.timeline.tasks.empty());
  EXPECT_EQ(step.timeline.end, simulated(plan, round_cluster(1, 2)).timeline.end);
}

TEST(Simulate, RefusesLengthsBeyondThePlan) {
  const ValidPlan plan = valid(single_device_plan());
  const ClusterSpec cluster = round_cluster(1, 1);
  EXPECT_EQ(simulate(plan, cluster, {}).error().message,
            "lengths: found 0 requests, allowed 1 as in the plan");
  EXPECT_EQ(simulate(plan, cluster, {{.q_len = 17, .kv_len = 20}}).error().message,
            "lengths[0].q_len: found 17, allowed 0..16");
  EXPECT_EQ(simulate(plan, cluster, {{.q_len = -1, .kv_len = 20}}).error().message,
            "lengths[0].q_len: found -1, allowed 0..16");
  EXPECT_EQ(simulate(plan, cluster, {{.q_len = 4, .kv_len = 3}}).error().message,
            "lengths[0].kv_len: found 3, allowed 4..64");
}

TEST(Simulate, RefusesClustersThatLackDevicesLinksOrFigures) {
  const ValidPlan plan = valid(tensor_parallel_plan());
  EXPECT_EQ(simulate(plan, round_cluster(1, 1), plan->limits).error().message,
            "cluster round: found 1 devices, allowed at least 2 as planned");
  ClusterSpec unjoined = round_cluster(1, 2);
  unjoined.node_types[0].fabrics.clear();
  EXPECT_NE(simulate(plan, unjoined, plan->limits).error().message.find("neither a fabric"),
            std::string::npos);
  ClusterSpec slow = round_cluster(1, 2);
  slow.device_types[0].memory_bandwidth = BytesPerSecond{0};
  EXPECT_NE(simulate(plan, slow, plan->limits).error().message.find("memory_gb_per_s"),
            std::string::npos);
}

TEST(Simulate, EveryCatalogueClusterIsComplete) {
  const ValidPlan plan = valid(two_stage_plan());
  for (const std::string_view name : cluster_catalogue()) {
    const auto cluster = load_cluster(std::string(name) + ":2x2");
    ASSERT_TRUE(cluster.has_value()) << name;
    EXPECT_TRUE(simulate(plan, *cluster, plan->limits).has_value()) << name;
  }
}

}  // namespace
}  // namespace weir
