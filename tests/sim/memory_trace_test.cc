#include "sim/memory_trace.h"

#include <gtest/gtest.h>

#include "clusters_for_tests.h"
#include "sim/simulate.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

TEST(MemoryTrace, OneDevicePeaksWhereThePlanSays) {
  const auto plan = validate(single_device_plan());
  ASSERT_TRUE(plan.has_value());
  const auto step = simulate(*plan, round_cluster(1, 1), (*plan)->limits);
  ASSERT_TRUE(step.has_value());
  const MemoryTrace trace = trace_memory(step->timeline, 0, plan->plan(), (*plan)->limits);
  EXPECT_EQ(trace.peak(DeviceId{0}).memory, plan->memory()[0]);
  EXPECT_EQ(trace.devices[0].front().time, SimTime{});
  for (std::size_t i = 1; i < trace.devices[0].size(); ++i)
    EXPECT_LT(trace.devices[0][i - 1].time, trace.devices[0][i].time);
}

using Devices = std::vector<PlanHeader::Device>;

TEST(MemoryShortage, NamesTheFirstDeviceThatIsTooSmallAndTheLargestCategory) {
  const Devices devices = {{.name = "a", .memory_bytes = 2'000'000'000},
                           {.name = "b", .memory_bytes = 1'000'000'000}};
  const DeviceMemory need{
      .weights = 400'000'000, .kv_cache = 800'000'000, .activations = 100'000'000};
  const auto shortage = find_shortage(devices, {need, need});
  ASSERT_TRUE(shortage.has_value());
  EXPECT_EQ(shortage->device, DeviceId{1});
  EXPECT_EQ(shortage->category, "kv_cache");
  EXPECT_EQ(shortage->missing, 300'000'000);
  EXPECT_EQ(describe(devices, *shortage),
            "device b needs 1.30 GB and has 1.00 GB; the largest part is kv_cache, 0.80 GB");
}

TEST(MemoryShortage, ThereIsNoneWhereEverythingFitsOrNothingIsKnown) {
  const std::vector<DeviceMemory> need = {{.weights = 2000}};
  EXPECT_FALSE(find_shortage(Devices{{.name = "a", .memory_bytes = {}}}, need).has_value());
  EXPECT_FALSE(find_shortage(Devices{{.name = "a", .memory_bytes = 2000}}, need).has_value());
  EXPECT_TRUE(find_shortage(Devices{{.name = "a", .memory_bytes = 1999}}, need).has_value());
}

}  // namespace
}  // namespace weir
