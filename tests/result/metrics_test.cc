#include "result/metrics.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/result/sample_timeline.h"

namespace weir {
namespace {

Breakdown breakdown_of(std::array<std::int64_t, 7> ns) {
  Breakdown breakdown;
  for (std::size_t c = 0; c < ns.size(); ++c) breakdown.times[c] = {ns[c]};
  return breakdown;
}

TEST(Metrics, FollowTheDefinitionsForLatencyAndThroughput) {
  const Metrics metrics = compute_metrics(sample_timeline());
  EXPECT_EQ(metrics.input_tokens, 9);
  EXPECT_EQ(metrics.output_tokens, 3);
  // First tokens after 52 - 0 and 52 - 2 ns.
  ASSERT_TRUE(metrics.ttft);
  EXPECT_EQ(metrics.ttft->count, 2);
  EXPECT_DOUBLE_EQ(metrics.ttft->mean.value, 51e-9);
  EXPECT_DOUBLE_EQ(metrics.ttft->p50.value, 50e-9);
  EXPECT_DOUBLE_EQ(metrics.ttft->p99.value, 52e-9);
  EXPECT_DOUBLE_EQ(metrics.ttft->max.value, 52e-9);
  // ((97 - 0) + (52 - 2)) / 3.
  ASSERT_TRUE(metrics.tpot);
  EXPECT_DOUBLE_EQ(metrics.tpot->value, 49e-9);
  // Only the first request has a second token: 97 - 52.
  ASSERT_TRUE(metrics.itl);
  EXPECT_EQ(metrics.itl->count, 1);
  EXPECT_DOUBLE_EQ(metrics.itl->mean.value, 45e-9);
  // (9 + 3) and 3 tokens in 100 ns.
  EXPECT_DOUBLE_EQ(metrics.tps.value(), 12 / 100e-9);
  EXPECT_DOUBLE_EQ(metrics.output_tps.value(), 3 / 100e-9);
  EXPECT_DOUBLE_EQ(metrics.prefill_steps.value().mean.value, 40e-9);
  EXPECT_DOUBLE_EQ(metrics.decode_steps.value().mean.value, 35e-9);
}

TEST(Metrics, CountEveryInstantOfADeviceOnce) {
  const Metrics metrics = compute_metrics(sample_timeline());
  ASSERT_EQ(metrics.devices.size(), 2);
  // gpu0: attention 10..20; the all-reduce waits from 18, but only 20..22 has no compute beside it;
  // it works 22..45, of which qkv_proj hides 25..40. Idle 45..50 and 70..95. Outside steps: 0..10,
  // 50..60, 95..100.
  EXPECT_EQ(metrics.devices[0].name, "gpu0");
  EXPECT_EQ(metrics.devices[0].breakdown, breakdown_of({10, 15, 10, 8, 2, 30, 25}));
  EXPECT_EQ(metrics.devices[0].waiting_for_others.ns, 4);
  EXPECT_DOUBLE_EQ(metrics.devices[0].utilisation.value(), 0.35);
  // gpu1: o_proj 10..22, all-reduce 22..44, idle 44..50, ffn_up 60..90, idle 90..95.
  EXPECT_EQ(metrics.devices[1].breakdown, breakdown_of({0, 42, 0, 22, 0, 11, 25}));
  EXPECT_DOUBLE_EQ(metrics.devices[1].utilisation.value(), 0.42);
  EXPECT_DOUBLE_EQ(metrics.utilisation.value(), 0.385);
}

TEST(Metrics, RoundTheMeanBreakdownSoThatItStillAddsUp) {
  const Metrics metrics = compute_metrics(sample_timeline());
  // Linear is 28.5 and idle 20.5; the one that comes first gets the missing nanosecond.
  EXPECT_EQ(metrics.breakdown.value(), breakdown_of({5, 29, 5, 15, 1, 20, 25}));
  EXPECT_EQ(metrics.breakdown->total(), metrics.total_time);
}

TEST(Metrics, SumWorkWhetherOverlappedOrNot) {
  const Metrics metrics = compute_metrics(sample_timeline());
  const WorkDone& comm = metrics.work[OpClass::communication];
  EXPECT_EQ(comm.tasks, 2);
  EXPECT_EQ(comm.time.ns, 23 + 22);
  EXPECT_EQ(comm.bytes, 96);
  const WorkDone& linear = metrics.work[OpClass::linear];
  EXPECT_EQ(linear.time.ns, 15 + 12 + 30);
  EXPECT_EQ(linear.flops, 14000);
  EXPECT_DOUBLE_EQ(linear.flops_per_second().value().value, 14000 / 57e-9);
  EXPECT_DOUBLE_EQ(linear.bytes_per_second().value().value, 1100 / 57e-9);
  EXPECT_EQ(metrics.work_by_kind.at(OpKind::qkv_proj).flops, 3000);
  EXPECT_FALSE(metrics.work_by_kind.contains(OpKind::embed));
}

TEST(Metrics, OfAnEmptyTimelineAreUndefinedAndNotInfinite) {
  const Metrics metrics = compute_metrics({});
  EXPECT_EQ(metrics, Metrics{});
  EXPECT_FALSE(metrics.tps);
  EXPECT_FALSE(WorkDone{}.flops_per_second());
}

TEST(Metrics, WithoutOutputTokensHaveThroughputButNoLatency) {
  Timeline timeline = sample_timeline();
  for (RequestRecord& request : timeline.requests) request.token_times.clear();
  const Metrics metrics = compute_metrics(timeline);
  EXPECT_FALSE(metrics.ttft);
  EXPECT_FALSE(metrics.tpot);
  EXPECT_FALSE(metrics.itl);
  EXPECT_DOUBLE_EQ(metrics.tps.value(), 9 / 100e-9);
  EXPECT_EQ(metrics.output_tps, 0);
}

TEST(Metrics, OfARunThatTookNoTimeHaveNoRates) {
  Timeline timeline{.devices = {"gpu0"},
                    .start = {5},
                    .end = {5},
                    .steps = {{.start = {5}, .end = {5}}},
                    .requests = {{.input_tokens = 1, .arrival = {5}, .token_times = {{5}}}},
                    .tasks = {{.start = {5}, .ready = {5}, .end = {5}, .flops = 1}}};
  const Metrics metrics = compute_metrics(timeline);
  EXPECT_FALSE(metrics.tps);
  EXPECT_FALSE(metrics.utilisation);
  EXPECT_FALSE(metrics.devices.at(0).utilisation);
  EXPECT_FALSE(metrics.work[OpClass::elementwise].flops_per_second());
  EXPECT_EQ(metrics.tpot.value().value, 0);
  EXPECT_EQ(metrics.breakdown.value().total().ns, 0);
}

TEST(Metrics, OfOneTokenHaveNoInterTokenLatency) {
  Timeline timeline = sample_timeline();
  timeline.requests = {{.input_tokens = 6, .arrival = {0}, .token_times = {{52}}}};
  const Metrics metrics = compute_metrics(timeline);
  EXPECT_FALSE(metrics.itl);
  EXPECT_EQ(metrics.tpot, metrics.ttft.value().mean);
}

TEST(Metrics, WithoutTasksSayNothingAboutDevices) {
  Timeline timeline = sample_timeline();
  timeline.tasks.clear();
  const Metrics metrics = compute_metrics(timeline);
  EXPECT_TRUE(metrics.tpot);
  EXPECT_EQ(metrics.num_devices, 2);
  EXPECT_TRUE(metrics.devices.empty());
  EXPECT_FALSE(metrics.breakdown);
  EXPECT_FALSE(metrics.utilisation);
}

TEST(Metrics, MergeStepsThatOverlap) {
  Timeline timeline = sample_timeline();
  timeline.steps[1].start = {40};  // Together 10..95: only 15 ns lie outside.
  const Metrics metrics = compute_metrics(timeline);
  EXPECT_EQ(metrics.devices[0].breakdown, breakdown_of({10, 15, 10, 8, 2, 40, 15}));
}

TEST(Metrics, TakePercentilesByNearestRank) {
  Timeline timeline;
  timeline.end = {1000};
  RequestRecord request;
  request.token_times = {{0}};
  for (std::int64_t gap = 1; gap <= 20; ++gap)  // Gaps of 1..20 ns.
    request.token_times.push_back(request.token_times.back() + SimTime{gap});
  timeline.requests = {request};
  const Distribution itl = compute_metrics(timeline).itl.value();
  EXPECT_EQ(itl.count, 20);
  EXPECT_DOUBLE_EQ(itl.p50.value, 10e-9);
  EXPECT_DOUBLE_EQ(itl.p99.value, 20e-9);
  EXPECT_DOUBLE_EQ(itl.mean.value, 10.5e-9);
}

TEST(Metrics, AreWrittenAsJsonWithNullForTheUndefined) {
  Timeline timeline = sample_timeline();
  timeline.requests[0].token_times.pop_back();
  const nlohmann::json json = metrics_to_json(compute_metrics(timeline));
  EXPECT_TRUE(json.at("itl").is_null());
  EXPECT_EQ(json.at("total_time_ns"), 100);
  EXPECT_DOUBLE_EQ(json.at("ttft").at("max_s").get<double>(), 52e-9);
  EXPECT_EQ(json.at("breakdown").at("synchronisation_ns"), 1);
  EXPECT_EQ(json.at("devices").at(1).at("breakdown").at("linear_ns"), 42);
  EXPECT_EQ(json.at("work").at("communication").at("bytes"), 96);
  EXPECT_TRUE(json.at("work_by_kind").contains("all_reduce"));
}

}  // namespace
}  // namespace weir
