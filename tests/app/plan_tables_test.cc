#include "app/plan_tables.h"

#include <string>

#include <gtest/gtest.h>

#include "checkpoint/preset.h"
#include "plan/transfers.h"
#include "plan/work.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

const StepLengths kLengths = {{.q_len = 7, .kv_len = 30}};

// Of the preset `tiny`: 2 layers of 4 query heads.
Plan plan_of(std::int64_t tp, std::int64_t pp) {
  PlanHeader header;
  header.model = preset_model("tiny", {}).value();
  header.limits = kLengths;
  for (std::int64_t i = 0; i < tp * pp; ++i)
    header.devices.push_back({.name = "device", .memory_bytes = {}});
  const auto strategy = make_strategy(
      "tp_pp", {{"tp", std::to_string(tp)}, {"pp", std::to_string(pp)}}, header.model);
  return lower(header, strategy->strategy->layouts({{.past_len = 23, .q_len = 7, .max_len = 30}}));
}

std::int64_t sent_by_all(const std::vector<DeviceShare>& shares) {
  std::int64_t sum = 0;
  for (const DeviceShare& share : shares) sum += share.bytes_sent;
  return sum;
}

TEST(PlanTables, DevicesShareAllThatThePlanSends) {
  for (const Plan& plan : {plan_of(4, 1), plan_of(2, 2), plan_of(1, 2), plan_of(1, 1)}) {
    std::int64_t expected = 0;
    for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
      if (queue_of(plan.nodes[i].kind) == Queue::comm)
        expected += bytes_sent(plan, static_cast<NodeId>(i), kLengths);
    }
    EXPECT_EQ(sent_by_all(shares_of(plan, kLengths)), expected);
  }
}

TEST(PlanTables, DevicesShareLayersAndHeads) {
  const std::vector<DeviceShare> tensor = shares_of(plan_of(2, 1), kLengths);
  EXPECT_EQ(tensor[0].q_heads, (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(tensor[1].q_heads, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(tensor[1].layers, (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(tensor[0].flops, tensor[1].flops);
}

TEST(PlanTables, EqualLayersAreShownOnce) {
  const ValidPlan plan = validate(plan_of(2, 1)).value();
  const std::string text = layer_tables(plan, kLengths);
  EXPECT_NE(text.find("before the layers\n"), std::string::npos);
  const auto count = [&](std::string_view part) {
    int n = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count("embed "), 1);
  EXPECT_EQ(count("lm_head"), 1);
}

}  // namespace
}  // namespace weir
