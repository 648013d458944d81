#include "report/comparison.h"

#include <gtest/gtest.h>

#include "tests/report/golden.h"
#include "tests/result/sample_timeline.h"

namespace weir {
namespace {

// The sample, and as if everything took half of the time without the second device.
std::vector<RunSummary> sample_runs() {
  Timeline fast = sample_timeline();
  const auto halve = [](SimTime& time) { time.ns /= 2; };
  halve(fast.end);
  for (StepRecord& step : fast.steps) halve(step.start), halve(step.end);
  for (RequestRecord& request : fast.requests) {
    halve(request.arrival);
    for (SimTime& time : request.token_times) halve(time);
  }
  fast.devices.pop_back();
  std::erase_if(fast.tasks, [](const TaskRecord& task) { return task.device == DeviceId{1}; });
  for (TaskRecord& task : fast.tasks) halve(task.start), halve(task.ready), halve(task.end);
  return {{.name = "tp_pp(tp=2)",
           .metrics = compute_metrics(sample_timeline()),
           .bytes_moved = {},
           .peak_memory = Bytes{65'000'000'000},
           .answers_match = true},
          {.name = "single",
           .metrics = compute_metrics(fast),
           .bytes_moved = Bytes{0},
           .peak_memory = {},
           .answers_match = false}};
}

TEST(Comparison, IsAsKept) {
  expect_golden("comparison.txt", render(comparison_of(sample_runs())));
}

TEST(Comparison, IsAsKeptInMarkdown) {
  expect_golden("comparison.md",
                render_markdown(comparison_of(sample_runs(), {.breakdown = true})));
}

TEST(Comparison, LeavesOutColumnsThatNoRunCanFill) {
  Metrics metrics;
  metrics.num_devices = 4;
  const std::vector<RunSummary> runs = {
      {.name = "a", .metrics = metrics, .bytes_moved = {}, .peak_memory = {}, .answers_match = {}}};
  EXPECT_EQ(render(comparison_of(runs)),
            "run  devices\n"
            "────────────\n"
            "a          4\n");
}

TEST(Comparison, OfNothingHasNoRows) { EXPECT_TRUE(comparison_of({}).rows.empty()); }

}  // namespace
}  // namespace weir
