#include "engine/plan_cache.h"

#include <gtest/gtest.h>

#include "tests/engine/small_model.h"

namespace weir {
namespace {

// Layouts that depend on the length: one device up to 100 tokens, two beyond.
class GrowsAtHundred final : public Strategy {
 public:
  explicit GrowsAtHundred(const ModelSpec& model)
      : one_(std::move(make_strategy("tp_pp", {{"tp", "1"}}, model)->strategy)),
        two_(std::move(make_strategy("tp_pp", {{"tp", "2"}}, model)->strategy)) {}
  [[nodiscard]] std::int64_t num_devices() const override { return 2; }
  [[nodiscard]] StepLayouts layouts(const StepShape& step) const override {
    return (step[0].past_len + step[0].q_len > 100 ? two_ : one_)->layouts(step);
  }

 private:
  std::unique_ptr<Strategy> one_;
  std::unique_ptr<Strategy> two_;
};

class PlanCacheTest : public testing::Test {
 protected:
  PlanCacheTest() : strategy_(small_model_spec()), cache_(strategy_, header()) {}

  static PlanHeader header() {
    PlanHeader header;
    header.model = small_model_spec();
    header.strategy = "grows";
    header.devices = {{.name = "a", .memory_bytes = {}}, {.name = "b", .memory_bytes = {}}};
    return header;
  }
  static PlanRequest decode_at(std::int64_t past_len) {
    return {.shape = {{.past_len = past_len, .q_len = 1, .max_len = 200}},
            .limits = {{.q_len = 1, .kv_len = 200}},
            .logits = LogitsWanted::last};
  }

  GrowsAtHundred strategy_;
  PlanCache cache_;
};

TEST_F(PlanCacheTest, StepsThatDifferOnlyInLengthsShareAPlan) {
  const ValidPlan* first = cache_.find(decode_at(5)).value();
  for (std::int64_t past_len = 6; past_len < 100; ++past_len)
    EXPECT_EQ(cache_.find(decode_at(past_len)).value(), first);
  EXPECT_EQ(cache_.record().plans, 1);
  EXPECT_EQ(cache_.record().lookups, 95);
}

TEST_F(PlanCacheTest, OtherLayoutsHaveAnotherPlanAndBothStay) {
  const ValidPlan* small = cache_.find(decode_at(50)).value();
  const ValidPlan* large = cache_.find(decode_at(150)).value();
  EXPECT_NE(small, large);
  EXPECT_EQ(cache_.find(decode_at(60)).value(), small);
  EXPECT_EQ(cache_.find(decode_at(160)).value(), large);
  EXPECT_EQ(cache_.record().plans, 2);
}

TEST_F(PlanCacheTest, OtherLimitsOrLogitsHaveAnotherPlan) {
  PlanRequest request = decode_at(5);
  (void)cache_.find(request).value();
  request.logits = LogitsWanted::none;
  EXPECT_EQ(cache_.find(request).value()->plan().logits, LogitsWanted::none);
  request.limits[0].kv_len = 300;
  EXPECT_EQ(cache_.find(request).value()->plan().limits, request.limits);
  EXPECT_EQ(cache_.record().plans, 3);
}

TEST_F(PlanCacheTest, SaysWhyThereIsNoValidPlan) {
  PlanHeader small = header();
  small.devices[0].memory_bytes = 1000;
  PlanCache cache(strategy_, small);
  const auto plan = cache.find(decode_at(5));
  ASSERT_FALSE(plan);
  EXPECT_TRUE(plan.error().message.starts_with("grows: no valid plan: memory of device 0 (a)"))
      << plan.error().message;
}

}  // namespace
}  // namespace weir
