#include <array>
#include <cmath>
#include <cstdint>

#include <gtest/gtest.h>

#include "base/random.h"
#include "result/metrics.h"

namespace weir {
namespace {

constexpr std::int64_t kRunNs = 150;
constexpr std::array kKinds = {OpKind::attention, OpKind::ffn_up, OpKind::add, OpKind::all_reduce,
                               OpKind::copy};

SimTime instant(Random& random, SimTime from) { return {random.integer(from.ns, kRunNs + 5)}; }

// Steps and tasks anywhere, even outside of the run and of each other: the sweep must hold up.
Timeline random_timeline(Random& random) {
  Timeline timeline;
  timeline.devices = {"a", "b", "c"};
  timeline.start = {3};
  timeline.end = {kRunNs};
  for (std::int64_t i = random.integer(1, 3); i > 0; --i) {
    StepRecord step;
    step.start = instant(random, {0});
    step.end = instant(random, step.start);
    timeline.steps.push_back(step);
  }
  for (std::int64_t i = random.integer(1, 20); i > 0; --i) {
    TaskRecord task;
    task.node = static_cast<NodeId>(i);
    task.device = static_cast<DeviceId>(random.integer(0, 2));
    task.kind = kKinds[static_cast<std::size_t>(random.integer(0, std::ssize(kKinds) - 1))];
    task.start = instant(random, {0});
    const bool waits = queue_of(task.kind) == Queue::comm && random.uniform() < 0.7;
    task.ready = waits ? instant(random, task.start) : task.start;
    task.end = instant(random, task.ready);
    timeline.tasks.push_back(task);
  }
  return timeline;
}

TimeClass compute_class(OpKind kind) {
  if (kind == OpKind::attention) return TimeClass::attention;
  return kind == OpKind::ffn_up ? TimeClass::linear : TimeClass::elementwise;
}

// What the device does in the nanosecond after `now`, by looking at everything.
TimeClass class_at(const Timeline& timeline, DeviceId device, SimTime now) {
  TimeClass found = TimeClass::resource_management;
  for (const StepRecord& step : timeline.steps) {
    if (step.start <= now && now < step.end) found = std::min(found, TimeClass::idle);
  }
  for (const TaskRecord& task : timeline.tasks) {
    if (task.device != device || now < task.start || now >= task.end) continue;
    const bool comm = queue_of(task.kind) == Queue::comm;
    const TimeClass comm_class =
        now < task.ready ? TimeClass::synchronisation : TimeClass::exposed_comm;
    found = std::min(found, comm ? comm_class : compute_class(task.kind));
  }
  return found;
}

Breakdown counted(const Timeline& timeline, DeviceId device) {
  Breakdown breakdown;
  for (SimTime now = timeline.start; now < timeline.end; now += {1})
    breakdown[class_at(timeline, device, now)] += {1};
  return breakdown;
}

class RandomTimelines : public testing::TestWithParam<std::uint64_t> {};

TEST_P(RandomTimelines, AreBrokenDownAsByCountingEveryNanosecond) {
  Random random(GetParam());
  for (int i = 0; i < 50; ++i) {
    const Timeline timeline = random_timeline(random);
    const Metrics metrics = compute_metrics(timeline);
    ASSERT_EQ(metrics.devices.size(), 3);
    for (std::uint32_t d = 0; d < 3; ++d)
      EXPECT_EQ(metrics.devices[d].breakdown, counted(timeline, DeviceId{d})) << "device " << d;
  }
}

TEST_P(RandomTimelines, AddUpToTheTotalOnEveryDeviceAndInTheMean) {
  Random random(GetParam());
  for (int i = 0; i < 50; ++i) {
    const Metrics metrics = compute_metrics(random_timeline(random));
    for (const DeviceMetrics& device : metrics.devices)
      EXPECT_EQ(device.breakdown.total(), metrics.total_time);
    ASSERT_TRUE(metrics.breakdown);
    EXPECT_EQ(metrics.breakdown->total(), metrics.total_time);
    for (const TimeClass c : kTimeClasses) {
      double exact = 0;
      for (const DeviceMetrics& device : metrics.devices)
        exact += static_cast<double>(device.breakdown[c].ns) / 3;
      EXPECT_LT(std::abs(static_cast<double>((*metrics.breakdown)[c].ns) - exact), 1)
          << to_string(c);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomTimelines, testing::Range<std::uint64_t>(1, 9));

}  // namespace
}  // namespace weir
