#include "sim/generation.h"

#include <cmath>

#include <gtest/gtest.h>

#include "clusters_for_tests.h"
#include "result/metrics.h"
#include "result/timeline_check.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

class GenerationOnTwoDevices : public testing::Test {
 protected:
  GenerationOnTwoDevices()
      : plan_(*validate(long_plan())), machine_(*Machine::make(round_cluster(1, 2))) {}

  static Plan long_plan() {
    PlanHeader header = tiny_header(2);
    header.limits = {{.q_len = 4096, .kv_len = 8192}};
    return lower(header, tensor_parallel_layouts(header, device_range(0, 2)));
  }
  PlanOf plan_of() const {
    return [this](const StepLengths&) -> Result<const ValidPlan*> { return &plan_; };
  }
  GenerationPrediction predicted(const GenerationShape& shape,
                                 const GenerationSimOptions& options = {}) const {
    auto prediction = simulate_generation(plan_of(), machine_, shape, options);
    EXPECT_TRUE(prediction.has_value()) << prediction.error().message;
    return *std::move(prediction);
  }

  ValidPlan plan_;
  Machine machine_;
};
using Generation = GenerationOnTwoDevices;

TEST_F(Generation, FewStepsAreSimulatedAndTheirSumIsThatOfAll) {
  const GenerationShape shape{.prompt_lens = {100}, .output_len = 1000};
  const GenerationPrediction prediction = predicted(shape);
  EXPECT_LT(prediction.simulated_steps, 100);
  std::int64_t all = simulate(plan_, machine_, {{.q_len = 100, .kv_len = 100}})->timeline.end.ns;
  for (std::int64_t i = 1; i < 1000; ++i)
    all += simulate(plan_, machine_, {{.q_len = 1, .kv_len = 100 + i}})->timeline.end.ns;
  const auto sum = static_cast<double>(prediction.timeline.end.ns);
  EXPECT_NEAR(sum / static_cast<double>(all), 1, 1e-3);
}

TEST_F(Generation, ShowsEveryStepThatItSimulates) {
  std::vector<std::int64_t> kv_lens;
  const GenerationPrediction prediction =
      predicted({.prompt_lens = {100}, .output_len = 1000},
                {.on_step = [&](const SimulatedStep& step, const StepLengths& lengths) {
                  EXPECT_EQ(step.timeline.end, simulate(plan_, machine_, lengths)->timeline.end);
                  kv_lens.push_back(lengths.front().kv_len);
                  return Status();
                }});
  EXPECT_EQ(std::ssize(kv_lens), prediction.simulated_steps);
  EXPECT_EQ(kv_lens[0], 100);
  EXPECT_EQ(kv_lens[1], 101);
  EXPECT_EQ(kv_lens[2], 1099);
  EXPECT_GT(kv_lens.size(), 3U);

  const auto refused = simulate_generation(
      plan_of(), machine_, {.prompt_lens = {100}, .output_len = 9},
      {.on_step = [](const SimulatedStep&, const StepLengths& lengths) -> Status {
        if (lengths.front().q_len > 1) return {};
        return run_failed("not this one");
      }});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().message, "not this one");
}

TEST_F(Generation, ItsTimelineHasEveryStepAndToken) {
  const GenerationPrediction prediction =
      predicted({.prompt_lens = {100}, .output_len = 20}, {.between_steps = SimTime{500}});
  EXPECT_EQ(problems_of(prediction.timeline), std::vector<std::string>{});
  EXPECT_EQ(prediction.timeline.steps.size(), 20U);
  EXPECT_EQ(prediction.timeline.requests[0].token_times.size(), 20U);
  const Metrics metrics = compute_metrics(prediction.timeline);
  EXPECT_TRUE(metrics.ttft.has_value());
  EXPECT_TRUE(metrics.tpot.has_value());
  EXPECT_EQ(prediction.timeline.steps[0].start.ns, 500);
  EXPECT_EQ(prediction.timeline.steps[1].start.ns - prediction.timeline.steps[0].end.ns, 500);
}

TEST_F(Generation, ShortStepsWaitLessForTheHost) {
  ClusterSpec cluster = round_cluster(1, 2);
  Host& host = cluster.node_types[0].host;
  host.step_latency = Seconds{60e-6};
  host.short_step_latency = Seconds{2e-6};
  host.short_step = Seconds{1e-3};
  const Machine machine = *Machine::make(cluster);
  EXPECT_EQ(host_time(machine, {}, SimTime{1'000'000}).ns, 2'000);
  EXPECT_EQ(host_time(machine, {}, SimTime{1'000'001}).ns, 60'000);
  EXPECT_EQ(host_time(machine, {.between_steps = SimTime{500}}, SimTime{1}).ns, 500);
  cluster.node_types[0].host.short_step.reset();
  EXPECT_EQ(host_time(*Machine::make(cluster), {}, SimTime{1}).ns, 60'000);
}

TEST_F(Generation, WhatDevicesDidIsTheSumOverAllSteps) {
  const GenerationShape shape{.prompt_lens = {100}, .output_len = 300};
  const GenerationPrediction prediction = predicted(shape, {.between_steps = SimTime{500}});
  double attention_ns = 0;
  double flops = 0;
  std::int64_t tasks = 0;
  for (std::int64_t i = 0; i < 300; ++i) {
    const std::int64_t q_len = i == 0 ? 100 : 1;
    const auto step = simulate(plan_, machine_, {{.q_len = q_len, .kv_len = 100 + i}});
    const Metrics metrics = compute_metrics(step->timeline);
    attention_ns += static_cast<double>(metrics.devices[1].breakdown[TimeClass::attention].ns);
    flops += metrics.devices[1].work[OpClass::attention].flops;
    tasks += metrics.devices[1].work[OpClass::linear].tasks;
  }
  ASSERT_EQ(prediction.devices.size(), 2U);
  const DeviceMetrics& device = prediction.devices[1];
  EXPECT_EQ(device.name, prediction.timeline.devices[1]);
  EXPECT_EQ(device.breakdown.total(), prediction.timeline.end);
  EXPECT_EQ(device.breakdown[TimeClass::resource_management].ns, 300 * 500);
  EXPECT_NEAR(static_cast<double>(device.breakdown[TimeClass::attention].ns) / attention_ns, 1,
              1e-3);
  EXPECT_NEAR(device.work[OpClass::attention].flops / flops, 1, 1e-12);
  EXPECT_EQ(device.work[OpClass::linear].tasks, tasks);
  const Metrics metrics = metrics_of(prediction);
  EXPECT_EQ(metrics.breakdown->total(), metrics.total_time);
  EXPECT_EQ(metrics.work[OpClass::linear].tasks, 2 * tasks);
}

TEST_F(Generation, WithoutTasksSaysNothingOfDevices) {
  const GenerationPrediction prediction =
      predicted({.prompt_lens = {100}, .output_len = 20}, {.step = {.record_tasks = false}});
  EXPECT_TRUE(prediction.devices.empty());
  EXPECT_FALSE(metrics_of(prediction).breakdown.has_value());
}

TEST_F(Generation, EnergyAndPriceArePerToken) {
  const GenerationPrediction prediction = predicted({.prompt_lens = {100}, .output_len = 20});
  const double seconds = to_seconds(prediction.timeline.end);
  EXPECT_NEAR(prediction.usd, 2 * 3.6 / 3600 * seconds, 1e-12);
  EXPECT_NEAR(prediction.usd_per_million_tokens(), prediction.usd / 20 * 1e6, 1e-9);
  EXPECT_GT(prediction.joules, 2 * 10 * seconds);
  EXPECT_LT(prediction.joules, 2 * 60 * seconds);
  EXPECT_NEAR(prediction.resting_joules, 2 * 10 * seconds, 1e-9);
  EXPECT_NEAR(prediction.joules_per_token(), prediction.joules / 20, 1e-12);
}

TEST_F(Generation, OneTokenIsAPrefillOnly) {
  const GenerationPrediction prediction = predicted({.prompt_lens = {100}, .output_len = 1});
  EXPECT_EQ(prediction.simulated_steps, 1);
  EXPECT_EQ(prediction.timeline.end, prediction.prefill.timeline.end);
}

TEST_F(Generation, RefusesLengthsThatAreNone) {
  const auto message = [&](const GenerationShape& shape) {
    return simulate_generation(plan_of(), machine_, shape).error().message;
  };
  EXPECT_EQ(message({.prompt_lens = {}, .output_len = 1}),
            "prompt_lens: found none, allowed at least one");
  EXPECT_EQ(message({.prompt_lens = {0}, .output_len = 1}),
            "prompt_lens: found 0, allowed at least 1");
  EXPECT_EQ(message({.prompt_lens = {1}, .output_len = 0}),
            "output_len: found 0, allowed at least 1");
  EXPECT_EQ(message({.prompt_lens = std::vector<std::int64_t>(4096, 1), .output_len = 1 << 20}),
            "output_len: found 1048576 for each of 4096 requests, allowed 16384");
  EXPECT_EQ(message({.prompt_lens = {5000}, .output_len = 2}),
            "lengths[0].q_len: found 5000, allowed 0..4096");
}

TEST_F(Generation, ServersPrefillWhatComesNextBetweenDecodeSteps) {
  const auto alone = simulate_serving(plan_of(), machine_,
                                      {.prompt_len = 100, .output_len = 50, .concurrency = 1});
  ASSERT_TRUE(alone.has_value()) << alone.error().message;
  EXPECT_EQ(alone->tpot, alone->decode_step);
  const GenerationPrediction generation = predicted({.prompt_lens = {100}, .output_len = 50});
  EXPECT_NEAR(alone->output_tps, 50 / to_seconds(generation.timeline.end),
              1e-6 * alone->output_tps);

  PlanHeader header = tiny_header(2, 2, 4);
  header.limits.assign(4, {.q_len = 4096, .kv_len = 8192});
  const auto batch = validate(lower(header, tensor_parallel_layouts(header, device_range(0, 2))));
  ASSERT_TRUE(batch.has_value());
  const PlanOf plan_of_either = [&](const StepLengths& lengths) -> Result<const ValidPlan*> {
    return lengths.size() == 1 ? &plan_ : &*batch;
  };
  const auto four = simulate_serving(plan_of_either, machine_,
                                     {.prompt_len = 100, .output_len = 50, .concurrency = 4});
  ASSERT_TRUE(four.has_value()) << four.error().message;
  EXPECT_NEAR(four->tpot.value, four->decode_step.value + 3.0 / 50 * four->prefill.value, 1e-12);
  EXPECT_GT(four->output_tps, alone->output_tps);
}

TEST_F(Generation, ServersNeedARequest) {
  EXPECT_EQ(simulate_serving(plan_of(), machine_, {.concurrency = 0}).error().message,
            "concurrency: found 0, allowed at least 1");
}

}  // namespace
}  // namespace weir
