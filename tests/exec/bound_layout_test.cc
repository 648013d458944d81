#include "exec/bound_layout.h"

#include <vector>

#include <gtest/gtest.h>

namespace weir {
namespace {

// Two devices hold query heads [0, 3) and [3, 4) of three requests; device 1 a block of the first
// request's tokens besides.
Plan plan_of(LayoutKind kind, std::vector<Piece> pieces) {
  Plan plan;
  plan.model.num_q_heads = 4;
  plan.model.num_kv_heads = 2;
  plan.model.head_dim = 8;
  plan.limits = {{8, 16}, {8, 16}, {8, 16}};
  plan.microbatches = {{.begin = 0, .end = 3}};
  plan.devices.resize(2);
  plan.layouts = {{.kind = kind, .pieces = std::move(pieces)}};
  plan.values = {{.role = Role::attention, .layer = 0}};
  return plan;
}
BoundLayout bound(const Plan& plan, const StepLengths& lengths) {
  return bind(plan, plan.values[0], lengths);
}

TEST(BoundLayout, PutsRequestsBelowEachOtherAndLeavesOutThoseWithoutRows) {
  const Plan plan = plan_of(LayoutKind::whole, {{.device = DeviceId{1}, .box = {}, .over = {}}});
  const BoundLayout layout = bound(plan, {{2, 5}, {0, 3}, {7, 7}});
  ASSERT_EQ(layout.buffers.size(), 1U);
  const BoundBuffer& buffer = layout.buffers[0];
  EXPECT_EQ(buffer.rows, 9);
  EXPECT_EQ(buffer.width(), 32);
  EXPECT_EQ(buffer.elements, 288);
  ASSERT_EQ(buffer.spans.size(), 2U);
  EXPECT_EQ(buffer.spans[0].request, 0);
  EXPECT_EQ(buffer.spans[1].request, 2);
  EXPECT_EQ(buffer.spans[1].first_row, 2);
  EXPECT_EQ(buffer.row_of(2, 6), 8);
}

TEST(BoundLayout, TakesTokenBlocksOfEachRequestsOwnLength) {
  const Plan plan =
      plan_of(LayoutKind::whole,
              {{.device = DeviceId{0}, .box = {.token = Range::block(0, 2)}, .over = {}},
               {.device = DeviceId{1}, .box = {.token = Range::block(1, 2)}, .over = {}}});
  const BoundLayout layout = bound(plan, {{5, 5}, {1, 1}, {4, 9}});
  EXPECT_EQ(layout.buffers[0].rows, 3 + 1 + 2);
  EXPECT_EQ(layout.buffers[1].rows, 2 + 0 + 2);
  EXPECT_EQ(layout.buffers[1].row_of(0, 3), 0);
  EXPECT_EQ(layout.buffers[1].row_of(2, 3), 3);
}

TEST(BoundLayout, ServesOnlyTheRequestsOfItsBox) {
  const Plan plan =
      plan_of(LayoutKind::whole,
              {{.device = DeviceId{0}, .box = {.request = Range::of(1, 3)}, .over = {}}});
  const BoundLayout layout = bound(plan, {{5, 5}, {1, 1}, {4, 9}});
  EXPECT_EQ(layout.buffers[0].rows, 5);
  EXPECT_EQ(layout.buffers[0].row_of(1, 0), 0);
}

TEST(BoundLayout, IndexesTheBuffersOfEachDevice) {
  const Box low = {.head = Range::of(0, 3)};
  const Box high = {.head = Range::of(3, 4), .dim = Range::of(2, 6)};
  const Plan plan = plan_of(LayoutKind::whole, {{.device = DeviceId{1}, .box = low, .over = {}},
                                                {.device = DeviceId{0}, .box = low, .over = {}},
                                                {.device = DeviceId{1}, .box = high, .over = {}}});
  const BoundLayout layout = bound(plan, {{1, 1}, {1, 1}, {1, 1}});
  EXPECT_EQ(layout.by_device[0], std::vector<std::uint32_t>({1}));
  EXPECT_EQ(layout.by_device[1], std::vector<std::uint32_t>({0, 2}));
  EXPECT_EQ(layout.buffers[2].width(), 4);
}

TEST(BoundLayout, GathersTheKeyRangesOfOneBufferOfPartials) {
  const Range first = Range::of(0, 4);
  const Range last = {.begin = Bound::at(9), .end = Bound::end()};
  const Plan plan = plan_of(LayoutKind::softmax,
                            {{.device = DeviceId{0}, .box = {}, .over = {.token = first}},
                             {.device = DeviceId{1}, .box = {}, .over = {.token = Range::of(4, 9)}},
                             {.device = DeviceId{0}, .box = {}, .over = {.token = last}}});
  const BoundLayout layout = bound(plan, {{1, 12}, {1, 1}, {1, 1}});
  ASSERT_EQ(layout.buffers.size(), 2U);
  EXPECT_EQ(layout.buffers[0].key_ranges, std::vector<Range>({first, last}));
}

}  // namespace
}  // namespace weir
