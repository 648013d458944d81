#include "measure/strategy_bench.h"

#include <gtest/gtest.h>

#include "checkpoint/preset.h"
#include "measure/model_on_disk.h"
#include "tests/sim/clusters_for_tests.h"

namespace weir {
namespace {

constexpr MemoryRates kCalibrated{.alone = 60e9, .together = 100e9};
constexpr MemoryRates kSlow{.alone = 60e9, .together = 55e9};
constexpr MemoryRates kSlowAlone{.alone = 40e9, .together = 100e9};
constexpr MemoryRates kABitFaster{.alone = 65e9, .together = 110e9};

// A tiny model on one device, benched for one length with three repetitions.
class WatchedBench : public testing::Test {
 protected:
  WatchedBench()
      : model_(*ModelOnDisk::make(*preset_model("tiny", {}))),
        strategy_(*make_strategy("single", {}, model_.spec())),
        header_{.model = model_.spec(),
                .strategy = strategy_.label,
                .limits = {},
                .devices = {{.name = "device", .memory_bytes = {}}}},
        executor_(
            *Executor::make(model_.checkpoint(), model_.spec(), {.devices = {{"device", {}}}})) {
    cluster_ = round_cluster(1, 1);
    cluster_.device_types.front().memory_bandwidth = BytesPerSecond{kCalibrated.alone};
    cluster_.node_types.front().host.memory_bandwidth = BytesPerSecond{kCalibrated.together};
  }

  std::vector<BenchPoint> points(const std::function<MemoryRates()>& memory_now,
                                 std::vector<std::int64_t> lengths = {8}) {
    const Machine machine = Machine::make(cluster_).value();
    auto result = bench_strategy(*executor_, *strategy_.strategy, header_, machine,
                                 {.lengths = std::move(lengths),
                                  .decode_steps = 2,
                                  .repetitions = 3,
                                  .memory_now = memory_now});
    EXPECT_TRUE(result.has_value()) << result.error().message;
    return *std::move(result);
  }

  ModelOnDisk model_;
  NamedStrategy strategy_;
  PlanHeader header_;
  std::unique_ptr<Executor> executor_;
  ClusterSpec cluster_;
};

TEST_F(WatchedBench, MeasuresAgainWhereMemoryIsNotAsCalibrated) {
  int looks = 0;
  // Slow during the first repetition and a half, then as it was.
  for (const BenchPoint& point : points([&] { return ++looks <= 3 ? kSlow : kABitFaster; })) {
    EXPECT_FALSE(point.other_memory.has_value());
    EXPECT_GT(point.measured.step, 0);
  }
  EXPECT_EQ(looks, 2 * (2 + 3)) << "two repetitions more";
}

TEST_F(WatchedBench, SaysWhereMemoryWasOtherwiseAllTheTime) {
  int looks = 0;
  for (const BenchPoint& point : points([&] {
         ++looks;
         return kSlow;
       })) {
    EXPECT_EQ(point.other_memory, kSlow);
    EXPECT_GT(point.measured.step, 0);
  }
  EXPECT_EQ(looks, 2 * 2 * 3) << "as many again";
}

TEST_F(WatchedBench, HasAllLengthsTakeTheirTurns) {
  // Each repetition is seen by what memory was before and after it; the last that was not as
  // calibrated is told.
  int looks = 0;
  const std::vector<BenchPoint> told =
      points([&] { return MemoryRates{.alone = 1e9 * ++looks, .together = 100e9}; }, {8, 9});
  ASSERT_EQ(told.size(), 4U);
  EXPECT_EQ(looks, 2 * 2 * 3 * 2);
  EXPECT_EQ(told.front().other_memory->alone, 21e9) << "prompts of 8 were the last but one";
  EXPECT_EQ(told.back().other_memory->alone, 23e9);
}

TEST_F(WatchedBench, NoticesThatADeviceAloneReadsAtAnotherRate) {
  for (const BenchPoint& point : points([] { return kSlowAlone; }))
    EXPECT_EQ(point.other_memory, kSlowAlone);
}

TEST_F(WatchedBench, WatchesNothingWhereNothingIsKnown) {
  cluster_.node_types.front().host.memory_bandwidth = {};
  int looks = 0;
  for (const BenchPoint& point : points([&] {
         ++looks;
         return kSlow;
       }))
    EXPECT_FALSE(point.other_memory.has_value());
  EXPECT_EQ(looks, 0);
}

}  // namespace
}  // namespace weir
