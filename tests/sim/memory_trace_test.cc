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

TEST(MemoryShortage, NamesDeviceCategoryAndWhatWouldFit) {
  Plan plan = single_device_plan();
  plan.devices[0].memory_bytes = 1000;
  const DeviceMemory need{.weights = 400, .kv_cache = 800, .activations = 100};
  const StepLengths lengths = {{.q_len = 1, .kv_len = 80}};
  const auto shortage = find_shortage(plan, lengths, {need});
  ASSERT_TRUE(shortage.has_value());
  EXPECT_EQ(shortage->category, "kv_cache");
  EXPECT_EQ(shortage->missing, 300);
  EXPECT_EQ(shortage->positions_that_fit, 50);
  EXPECT_NE(describe(plan, *shortage).find("50 instead of 80 cached positions would fit"),
            std::string::npos);
}

TEST(MemoryShortage, SaysWhenNoLengthWouldFit) {
  Plan plan = single_device_plan();
  plan.devices[0].memory_bytes = 1000;
  const auto shortage = find_shortage(plan, {{.q_len = 1, .kv_len = 80}}, {{.weights = 2000}});
  ASSERT_TRUE(shortage.has_value());
  EXPECT_EQ(shortage->category, "weights");
  EXPECT_EQ(shortage->positions_that_fit, std::nullopt);
  EXPECT_NE(describe(plan, *shortage).find("2.0 times as many devices"), std::string::npos);
}

TEST(MemoryShortage, ThereIsNoneWhereEverythingFitsOrNothingIsKnown) {
  Plan plan = single_device_plan();
  EXPECT_FALSE(find_shortage(plan, plan.limits, {{.weights = 2000}}).has_value());
  plan.devices[0].memory_bytes = 2000;
  EXPECT_FALSE(find_shortage(plan, plan.limits, {{.weights = 2000}}).has_value());
}

}  // namespace
}  // namespace weir
