#include "result/timeline_check.h"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/result/sample_timeline.h"

namespace weir {
namespace {

using Problems = std::vector<std::string>;

Problems problems_after(const std::function<void(Timeline&)>& change) {
  Timeline timeline = sample_timeline();
  change(timeline);
  return problems_of(timeline);
}

TEST(TimelineCheck, AcceptsSoundAndEmptyTimelines) {
  EXPECT_EQ(problems_of(sample_timeline()), Problems());
  EXPECT_EQ(problems_of(Timeline{}), Problems());
}

TEST(TimelineCheck, AcceptsTasksThatTouchAndTasksOfNoTime) {
  EXPECT_EQ(problems_after([](Timeline& t) {
              t.tasks.push_back({.step = 0,
                                 .node = NodeId{9},
                                 .device = DeviceId{0},
                                 .kind = OpKind::rope,
                                 .start = {20},
                                 .ready = {20},
                                 .end = {25}});
              t.tasks.push_back({.step = 0,
                                 .node = NodeId{10},
                                 .device = DeviceId{0},
                                 .kind = OpKind::slice,
                                 .start = {25},
                                 .ready = {25},
                                 .end = {25}});
            }),
            Problems());
}

TEST(TimelineCheck, RejectsARunThatEndsBeforeItStarts) {
  EXPECT_EQ(problems_of(Timeline{
                .devices = {}, .start = {5}, .end = {4}, .steps = {}, .requests = {}, .tasks = {}}),
            Problems({"end: found 4 ns, allowed at least the start of 5 ns"}));
}

TEST(TimelineCheck, RejectsInstantsOutOfOrder) {
  EXPECT_EQ(problems_after([](Timeline& t) { t.tasks[2].ready = {46}; }),
            Problems({"tasks[2] (all_reduce on gpu0): found start 18, ready 46, end 45 ns, allowed "
                      "start <= ready <= end"}));
  EXPECT_EQ(problems_after([](Timeline& t) { t.tasks[1].ready = {12}; }),
            Problems({"tasks[1] (attention on gpu0).ready: found 12 ns, allowed the start of "
                      "10 ns: compute waits for nobody"}));
}

TEST(TimelineCheck, RejectsTasksOutsideTheirStep) {
  EXPECT_EQ(problems_after([](Timeline& t) { t.steps[0].end = {44}; }),
            Problems({"tasks[2] (all_reduce on gpu0): found 18..45 ns, allowed within the "
                      "10..44 ns of step 0"}));
  EXPECT_EQ(problems_after([](Timeline& t) { t.tasks[0].step = 2; }),
            Problems({"tasks[0] (ffn_up on gpu1).step: found 2, allowed at least 0 and below 2"}));
}

TEST(TimelineCheck, RejectsTasksOfOneQueueAtTheSameTime) {
  EXPECT_EQ(problems_after([](Timeline& t) {
              t.tasks[4].start = {19};
              t.tasks[4].ready = {19};
            }),
            Problems({"tasks[4] (qkv_proj on gpu0): found the start at 19 ns, allowed at least "
                      "20 ns, the end of tasks[1] (attention on gpu0)"}));
}

TEST(TimelineCheck, RejectsDevicesThatAreNotThere) {
  EXPECT_EQ(
      problems_after([](Timeline& t) { t.tasks[1].device = DeviceId{2}; }),
      Problems({"tasks[1] (attention on an unknown device).device: found 2, allowed below 2"}));
}

TEST(TimelineCheck, RejectsANodeThatRanTwiceOnADevice) {
  EXPECT_EQ(problems_after([](Timeline& t) { t.tasks[4].node = NodeId{0}; }),
            Problems({"tasks[4] (qkv_proj on gpu0): found node 0 of step 0 a second time on "
                      "its device, first as tasks[1] (attention on gpu0)"}));
}

TEST(TimelineCheck, RejectsNegativeAmounts) {
  EXPECT_EQ(problems_after([](Timeline& t) {
              t.tasks[0].flops = -1;
              t.tasks[0].bytes = -2;
              t.steps[0].new_tokens = -3;
              t.requests[0].input_tokens = -4;
            }),
            Problems({"steps[0].new_tokens: found -3, allowed at least 0",
                      "requests[0].input_tokens: found -4, allowed at least 0",
                      "tasks[0] (ffn_up on gpu1).flops: found -1, allowed at least 0",
                      "tasks[0] (ffn_up on gpu1).bytes: found -2, allowed at least 0"}));
}

TEST(TimelineCheck, RejectsTokensBeforeTheirTime) {
  EXPECT_EQ(
      problems_after([](Timeline& t) {
        t.requests[0].token_times = {{52}, {51}, {101}};
      }),
      Problems({"requests[0].token_times[1]: found 51 ns, allowed 52..100 ns (after the arrival "
                "and the token before)",
                "requests[0].token_times[2]: found 101 ns, allowed 52..100 ns (after the arrival "
                "and the token before)"}));
}

TEST(TimelineCheck, RejectsStepsOutsideTheRun) {
  EXPECT_EQ(problems_after([](Timeline& t) { t.end = {97}, t.steps[1].end = {98}; }),
            Problems({"steps[1]: found 60..98 ns, allowed within the run's 0..97 ns"}));
}

}  // namespace
}  // namespace weir
