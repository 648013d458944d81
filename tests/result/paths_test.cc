#include "result/paths.h"

#include <array>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace weir {
namespace {

using Problems = std::vector<std::string>;

// attention on both devices -> all_reduce -> o_proj on both; device 0 then embeds something that
// nobody waits for.
Plan sample_plan() {
  Plan plan;
  plan.groups = {{DeviceId{0}, DeviceId{1}}, {DeviceId{0}}};
  plan.layouts = {
      {.kind = LayoutKind::sum,
       .pieces = {{.device = DeviceId{0}, .box = {}, .over = {.head = Range::of(0, 1)}},
                  {.device = DeviceId{1}, .box = {}, .over = {.head = Range::of(1, 2)}}}},
      {.kind = LayoutKind::whole,
       .pieces = {{.device = DeviceId{0}, .box = {}, .over = {}},
                  {.device = DeviceId{1}, .box = {}, .over = {}}}}};
  plan.values.resize(4);
  for (Value& value : plan.values) value.layout = LayoutId{1};
  plan.values[0].layout = LayoutId{0};
  plan.nodes = {
      {.kind = OpKind::attention, .devices = GroupId{0}, .inputs = {}, .outputs = {ValueId{0}}},
      {.kind = OpKind::all_reduce,
       .devices = GroupId{0},
       .inputs = {ValueId{0}},
       .outputs = {ValueId{1}}},
      {.kind = OpKind::o_proj,
       .devices = GroupId{0},
       .inputs = {ValueId{1}},
       .outputs = {ValueId{2}}},
      {.kind = OpKind::embed, .devices = GroupId{1}, .inputs = {}, .outputs = {ValueId{3}}}};
  plan.devices.resize(2);
  plan.devices[0].compute = {NodeId{0}, NodeId{2}, NodeId{3}};
  plan.devices[1].compute = {NodeId{0}, NodeId{2}};
  for (PlanDevice& device : plan.devices) device.comm = {NodeId{1}};
  return plan;
}

// In the plan's order of nodes and devices. The embed starts 2 ns late.
Timeline sample_run() {
  Timeline timeline;
  timeline.devices = {"a", "b"};
  timeline.end = {60};
  timeline.steps = {{.start = {0}, .end = {60}}};
  const auto add = [&](std::uint32_t node, std::uint32_t device, OpKind kind,
                       std::array<std::int64_t, 3> times) {
    timeline.tasks.push_back({.node = NodeId{node},
                              .device = DeviceId{device},
                              .kind = kind,
                              .start = {times[0]},
                              .ready = {times[1]},
                              .end = {times[2]}});
  };
  add(0, 0, OpKind::attention, {0, 0, 10});
  add(0, 1, OpKind::attention, {0, 0, 30});
  add(1, 0, OpKind::all_reduce, {10, 30, 35});
  add(1, 1, OpKind::all_reduce, {30, 30, 36});
  add(2, 0, OpKind::o_proj, {35, 35, 45});
  add(2, 1, OpKind::o_proj, {36, 36, 40});
  add(3, 0, OpKind::embed, {47, 47, 52});
  return timeline;
}

Problems run_problems_after(const std::function<void(Timeline&)>& change) {
  Timeline timeline = sample_run();
  change(timeline);
  return problems_of(timeline, 0, sample_plan(), {});
}

TEST(Paths, AreLongestChainsOfWork) {
  const Result<PathSummary> paths = summarize_paths(sample_run(), 0, sample_plan(), {});
  ASSERT_TRUE(paths) << paths.error().message;
  // Attention on b (30), its all-reduce seen from a (5), o_proj on a (10).
  EXPECT_EQ(paths->data_path.ns, 45);
  // The queue of a puts the embed (5) behind that.
  EXPECT_EQ(paths->critical_path.ns, 50);
  EXPECT_EQ(paths->makespan.ns, 52);
  // 10 + 30, max(5, 6), 10 + 4, 5.
  EXPECT_EQ(paths->serial_sum.ns, 65);
}

TEST(Paths, AcceptARunThatObeyedItsPlan) {
  EXPECT_EQ(problems_of(sample_run(), 0, sample_plan(), {}), Problems());
}

TEST(Paths, NameATaskThatDidNotWaitForItsInputs) {
  EXPECT_EQ(run_problems_after([](Timeline& t) { t.tasks[5].start = {33}; }),
            Problems({"node 2 (o_proj) on device 1: found the start at 33 ns, allowed at least "
                      "36 ns, the end of node 1 (all_reduce) on device 1 (whose output it "
                      "reads)"}));
}

TEST(Paths, NameATaskThatJumpedItsQueue) {
  EXPECT_EQ(run_problems_after([](Timeline& t) { t.tasks[6].start = {40}; }),
            Problems({"node 3 (embed) on device 0: found the start at 40 ns, allowed at least "
                      "45 ns, the end of node 2 (o_proj) on device 0 (before it in its "
                      "queue)"}));
}

TEST(Paths, NameACommunicationThatBeganWithoutAMember) {
  EXPECT_EQ(run_problems_after([](Timeline& t) { t.tasks[2].ready = {29}; }),
            Problems({"node 1 (all_reduce) on device 0: found it ready at 29 ns, allowed at "
                      "least 30 ns, when its last partner arrived"}));
}

TEST(Paths, NameTasksThatAreMissingOrInvented) {
  EXPECT_EQ(run_problems_after([](Timeline& t) {
              t.tasks[6].device = DeviceId{1};
              t.tasks[5].kind = OpKind::ffn_up;
              t.tasks.push_back(t.tasks[0]);
              t.tasks.emplace_back().node = NodeId{7};
            }),
            Problems({"node 0 (attention) on device 0: found more than once",
                      "node 2 (ffn_up) on device 1: found ffn_up, allowed o_proj as planned",
                      "node 3 (embed) on device 1: found on a device where it has no task",
                      "node 7 (embed) on device 0: found no such node, allowed below 4",
                      "node 3 (embed) on device 0: missing"}));
}

TEST(Paths, CannotBeSummarizedForARunOfAnotherPlan) {
  Timeline timeline = sample_run();
  timeline.tasks.pop_back();
  const Result<PathSummary> paths = summarize_paths(timeline, 0, sample_plan(), {});
  ASSERT_FALSE(paths);
  EXPECT_EQ(paths.error().message, "step 0: node 3 (embed) on device 0: missing");
}

TEST(Paths, RefuseACycleThatTasksOfNoTimeHide) {
  Plan plan = sample_plan();
  plan.nodes[0].inputs = {ValueId{2}};
  Timeline timeline = sample_run();
  for (TaskRecord& task : timeline.tasks) task.start = task.ready = task.end = {7};
  const Result<PathSummary> paths = summarize_paths(timeline, 0, plan, {});
  ASSERT_FALSE(paths);
  EXPECT_EQ(paths.error().message, "step 0: the plan's edges form a cycle");
}

// Halves of the residual go from device 0 to 2 and from 1 to 3, each pair by itself.
struct TwoPairs {
  Plan plan;
  Timeline timeline;
  StepLengths lengths = {{.q_len = 1, .kv_len = 1}};
};
TwoPairs two_pairs() {
  TwoPairs pairs;
  Plan& plan = pairs.plan;
  plan.model.hidden_size = 8;
  plan.limits = pairs.lengths;
  plan.microbatches = {{.begin = 0, .end = 1}};
  for (const std::uint32_t first : {0U, 2U}) {
    Layout& halves = plan.layouts.emplace_back();
    for (const std::uint32_t half : {0U, 1U}) {
      halves.pieces.push_back({.device = DeviceId{first + half},
                               .box = {.dim = Range::of(4 * half, 4 * half + 4)},
                               .over = {}});
    }
  }
  plan.groups = {{DeviceId{0}, DeviceId{1}, DeviceId{2}, DeviceId{3}}};
  plan.values = {{.layout = LayoutId{0}}, {.layout = LayoutId{1}}};
  plan.nodes = {{.kind = OpKind::copy,
                 .devices = GroupId{0},
                 .inputs = {ValueId{0}},
                 .outputs = {ValueId{1}}}};
  plan.devices.resize(4);
  for (PlanDevice& device : plan.devices) device.comm = {NodeId{0}};
  // The first pair is through before the second begins.
  const std::int64_t times[4][3] = {{0, 2, 7}, {50, 50, 59}, {2, 2, 8}, {41, 50, 57}};
  for (std::uint32_t device = 0; device < 4; ++device) {
    pairs.timeline.tasks.push_back({.device = DeviceId{device},
                                    .kind = OpKind::copy,
                                    .start = {times[device][0]},
                                    .ready = {times[device][1]},
                                    .end = {times[device][2]}});
  }
  return pairs;
}

TEST(Paths, LetMembersThatExchangeNothingGoTheirOwnWays) {
  const TwoPairs pairs = two_pairs();
  EXPECT_EQ(problems_of(pairs.timeline, 0, pairs.plan, pairs.lengths), Problems());
  const auto paths = summarize_paths(pairs.timeline, 0, pairs.plan, pairs.lengths);
  ASSERT_TRUE(paths);
  EXPECT_EQ(paths->critical_path.ns, 9);
}

TEST(Paths, NameASenderThatDidNotWaitForItsReader) {
  TwoPairs pairs = two_pairs();
  pairs.timeline.tasks[0].ready = {1};
  EXPECT_EQ(problems_of(pairs.timeline, 0, pairs.plan, pairs.lengths),
            Problems({"node 0 (copy) on device 0: found it ready at 1 ns, allowed at least 2 ns, "
                      "when its last partner arrived"}));
}

TEST(Paths, OfAnEmptyPlanAreZero) {
  const Result<PathSummary> paths = summarize_paths({}, 0, {}, {});
  ASSERT_TRUE(paths);
  EXPECT_EQ(*paths, PathSummary{});
}

}  // namespace
}  // namespace weir
