#include "plan/shape_text.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

TEST(ShapeText, LengthsAreShortWhereTheyCanBe) {
  const auto text = [](Bound begin, Bound end) {
    return length_text({.begin = begin, .end = end}, "q_len");
  };
  EXPECT_EQ(text({}, Bound::end()), "q_len");
  EXPECT_EQ(text(Bound::at(4), Bound::at(9)), "5");
  EXPECT_EQ(text(Bound::at(9), Bound::at(4)), "0");
  EXPECT_EQ(text(Bound::at(4096), Bound::end()), "q_len - 4096");
  EXPECT_EQ(text(Bound::before_end(1), Bound::end()), "1");
  EXPECT_EQ(text({}, Bound::block(1, 8)), "q_len/8");
  EXPECT_EQ(text(Bound::block(3, 8), Bound::block(4, 8)), "q_len/8");
  EXPECT_EQ(text(Bound::block(7, 8), Bound::end()), "q_len/8");
  EXPECT_EQ(text(Bound::block(2, 8), Bound::block(5, 8)), "3/8 q_len");
}

TEST(ShapeText, OddRangesAreShownAsTheyAre) {
  EXPECT_EQ(length_text({.begin = Bound::at(3), .end = Bound::block(1, 2)}, "kv_len"), "[3, 1/2)");
  EXPECT_EQ(length_text({.begin = Bound::block(1, 2), .end = Bound::block(2, 3)}, "kv_len"),
            "[1/2, 2/3)");
}

TEST(ShapeText, ShowsWhatOneDeviceHolds) {
  const Plan plan = tensor_parallel_plan();
  const auto attention = std::ranges::find(plan.nodes, OpKind::attention, &Node::kind);
  EXPECT_EQ(shape_text(plan, plan.at(attention->inputs[0])), "[q_len, 2, 8]");
  EXPECT_EQ(shape_text(plan, plan.at(attention->inputs[1])), "[kv_len, 1, 8]");
  EXPECT_EQ(shape_text(plan, plan.values[0]), "[q_len, 32]");
  EXPECT_EQ(shape_text(plan, plan.values.back()), "[q_len, 96]");
  PlanHeader header = tiny_header(1);
  header.logits = LogitsWanted::last;
  const Plan last = lower(header, tensor_parallel_layouts(header, device_range(0, 1)));
  EXPECT_EQ(shape_text(last, last.values.back()), "[1, 96]");
}

TEST(ShapeText, SeveralRequestsAreCounted) {
  const PlanHeader header = tiny_header(1, 1, 3);
  const Plan plan = lower(header, tensor_parallel_layouts(header, device_range(0, 1)));
  EXPECT_EQ(shape_text(plan, plan.values[0]), "[3 x q_len, 32]");
}

TEST(ShapeText, UnevenPartsAreListedAndADeviceHasItsOwn) {
  const Plan plan = tensor_parallel_plan(3);
  const auto up = std::ranges::find(plan.nodes, OpKind::ffn_up, &Node::kind);
  const Value& columns = plan.at(up->outputs[0]);
  EXPECT_EQ(shape_text(plan, columns), "[q_len, 22] | [q_len, 21]");
  EXPECT_EQ(shape_text(plan, columns, DeviceId{2}), "[q_len, 21]");
}

}  // namespace
}  // namespace weir
