#include "measure/kernel_costs.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

namespace weir {
namespace {

// A machine with a small second cache and none beyond, so that little memory is touched.
MeasuredKernels measured(std::optional<Bytes> l3 = {}) {
  const std::vector<std::vector<int>> cores(2);
  const DeviceType type{.name = "cores",
                        .kind = DeviceKind::cpu,
                        .memory = {1 << 30},
                        .l2 = Bytes{1 << 20},
                        .l3 = l3};
  return measure_kernels(cores, type, 0, [](std::string_view) {});
}

TEST(MeasureKernels, HasACurveForEveryDtypeAndLevelAloneAndTogether) {
  const MeasuredKernels kernels = measured();
  std::set<std::tuple<DType, CacheLevel, std::int64_t>> linear;
  for (const LinearCurve& curve : kernels.linear) {
    linear.emplace(curve.weight, curve.level, curve.devices);
    EXPECT_TRUE(std::ranges::is_sorted(curve.costs, {}, &LinearCost::rows));
    for (const LinearCost& cost : curve.costs) EXPECT_GT(cost.ps_per_weight, 0);
    // 1,024 rows against one: far beyond any disturbance.
    EXPECT_GT(curve.costs.back().ps_per_weight, curve.costs.front().ps_per_weight);
  }
  std::set<std::tuple<DType, CacheLevel, std::int64_t>> attention;
  for (const AttentionCurve& curve : kernels.attention) {
    attention.emplace(curve.kv, curve.level, curve.devices);
    for (const AttentionCost& cost : curve.costs)
      EXPECT_GT(cost.ps_per_key + cost.ps_per_value + cost.ps_to_begin, 0);
  }
  // L2 alone, memory alone and together.
  EXPECT_EQ(linear.size(), 9U);
  EXPECT_EQ(attention, linear);
  EXPECT_TRUE(linear.contains({DType::bf16, CacheLevel::memory, 2}));
  EXPECT_FALSE(linear.contains({DType::bf16, CacheLevel::l2, 2}));
  std::set<StreamKind> kinds;
  for (const StreamCost& cost : kernels.stream) {
    kinds.insert(cost.kind);
    EXPECT_GT(cost.ps_per_byte, 0);
  }
  EXPECT_EQ(kinds.size(), 8U);
}

// Whatever the machine's caches are: shares fall from all to nothing as sets grow, to those that
// are served from beyond the cache, which may be hardly larger.
TEST(MeasureKernels, TellsWhatACacheServesOfLargerAndLargerSets) {
  for (const std::optional<Bytes> l3 : {std::optional<Bytes>{}, std::optional(Bytes{5 << 20})}) {
    for (const ServedCurve& curve : measured(l3).served) {
      EXPECT_TRUE(curve.level != CacheLevel::l2 || curve.devices == 1);
      ASSERT_GE(curve.shares.size(), 2U);
      EXPECT_EQ(curve.shares.front().share, 1);
      EXPECT_EQ(curve.shares.back().share, 0);
      for (std::size_t i = 1; i < curve.shares.size(); ++i) {
        EXPECT_GT(curve.shares[i].bytes, curve.shares[i - 1].bytes);
        EXPECT_LE(curve.shares[i].share, curve.shares[i - 1].share);
      }
    }
  }
}

}  // namespace
}  // namespace weir
