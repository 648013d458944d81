#include "layout/box.h"

#include <vector>

#include <gtest/gtest.h>

namespace weir {
namespace {

std::vector<Bound> many_bounds() {
  std::vector<Bound> bounds;
  for (std::int32_t parts = 1; parts <= 4; ++parts) {
    for (std::int32_t index = 0; index <= parts; ++index) {
      for (std::int32_t offset = -3; offset <= 3; ++offset)
        bounds.push_back({.offset = offset, .index = index, .parts = parts});
    }
  }
  return bounds;
}

TEST(Bound, IsAConstantThatNeverLeavesTheAxis) {
  EXPECT_EQ(Bound::at(5).value(8), 5);
  EXPECT_EQ(Bound::at(5).value(3), 3);
  EXPECT_EQ(Bound::at(5).value(0), 0);
  EXPECT_TRUE(Bound::at(5).is_constant());
  EXPECT_FALSE(Bound::end().is_constant());
}

TEST(Bound, CountsBackFromTheEndButNotBeyondTheStart) {
  EXPECT_EQ(Bound::end().value(7), 7);
  EXPECT_EQ(Bound::before_end(1).value(7), 6);
  EXPECT_EQ(Bound::before_end(9).value(7), 0);
}

TEST(Bound, CutsAnAxisIntoBlocksOfTheCeiling) {
  EXPECT_EQ(Bound::block(1, 4).value(10), 3);
  EXPECT_EQ(Bound::block(3, 4).value(10), 9);
  EXPECT_EQ(Bound::block(4, 4), Bound::end());
  EXPECT_EQ(Bound::block(0, 4), Bound{});
  // Five tokens in four blocks of two: the last block is empty.
  EXPECT_EQ(resolve(Range::block(2, 4), 5), (Interval{.begin = 4, .end = 5}));
  EXPECT_TRUE(resolve(Range::block(3, 4), 5).empty());
}

TEST(Bound, BlocksCoverEveryExtentWithoutGaps) {
  for (std::int64_t extent = 0; extent <= 20; ++extent) {
    for (std::int64_t parts = 1; parts <= 7; ++parts) {
      std::int64_t next = 0;
      for (std::int64_t i = 0; i < parts; ++i) {
        const Interval block = resolve(Range::block(i, parts), extent);
        EXPECT_EQ(block.begin, next) << i << '/' << parts << " of " << extent;
        next = block.end;
      }
      EXPECT_EQ(next, extent) << parts << " blocks";
    }
  }
}

TEST(Bound, OrdersAreOnlyClaimedWhereTheyHoldForEveryExtent) {
  for (const Bound a : many_bounds()) {
    for (const Bound b : many_bounds()) {
      const auto order = compare_for_every_extent(a, b);
      if (!order) continue;
      for (std::int64_t extent = 0; extent <= 24; ++extent) {
        const std::int64_t x = a.value(extent);
        const std::int64_t y = b.value(extent);
        const bool holds = *order == std::weak_ordering::equivalent ? x == y
                           : *order == std::weak_ordering::less     ? x <= y
                                                                    : x >= y;
        ASSERT_TRUE(holds) << to_string(a) << " and " << to_string(b) << " of " << extent;
      }
    }
  }
}

TEST(Bound, OrderIsAntisymmetric) {
  for (const Bound a : many_bounds()) {
    for (const Bound b : many_bounds()) {
      const auto order = compare_for_every_extent(a, b);
      const auto reverse = compare_for_every_extent(b, a);
      ASSERT_EQ(order.has_value(), reverse.has_value());
      if (order) {
        ASSERT_EQ(*order<0, *reverse> 0) << to_string(a) << ' ' << to_string(b);
      }
    }
  }
}

TEST(Bound, OrdersWhatLayoutsUse) {
  const auto order = [](Bound a, Bound b) { return compare_for_every_extent(a, b); };
  EXPECT_EQ(order(Bound::at(3), Bound::at(5)), std::weak_ordering::less);
  EXPECT_EQ(order(Bound::at(5), Bound::end()), std::weak_ordering::less);
  EXPECT_EQ(order(Bound::before_end(1), Bound::end()), std::weak_ordering::less);
  EXPECT_EQ(order(Bound::block(3, 8), Bound::block(5, 8)), std::weak_ordering::less);
  EXPECT_EQ(order(Bound::end(), Bound{.index = 8, .parts = 8}), std::weak_ordering::equivalent);
  EXPECT_EQ(order(Bound::at(5), Bound::before_end(1)), std::nullopt);
  EXPECT_EQ(order(Bound::at(5), Bound::block(1, 2)), std::nullopt);
  EXPECT_EQ(order(Bound::block(1, 2), Bound::block(2, 3)), std::nullopt);
}

TEST(Interval, IntersectsAndContains) {
  const Interval a = {.begin = 2, .end = 6};
  EXPECT_EQ(intersect(a, {.begin = 4, .end = 9}), (Interval{.begin = 4, .end = 6}));
  EXPECT_TRUE(intersect(a, {.begin = 6, .end = 9}).empty());
  EXPECT_EQ((Interval{.begin = 7, .end = 3}).size(), 0);
  EXPECT_TRUE(a.contains({.begin = 2, .end = 6}));
  EXPECT_FALSE(a.contains({.begin = 1, .end = 3}));
  EXPECT_TRUE(a.contains({.begin = 9, .end = 9}));
}

TEST(Box, IsPrintedByTheAxesThatAreCut) {
  EXPECT_EQ(to_string(Box{}), "all");
  const Box box = {.token = Range::block(1, 8), .head = Range::of(0, 4)};
  EXPECT_EQ(to_string(box), "token [1/8, 2/8) head [0, 4)");
  const Box last = {.token = {.begin = Bound::before_end(1), .end = Bound::end()}};
  EXPECT_EQ(to_string(last), "token [end-1, end)");
}

TEST(Box, GivesItsRangesByAxis) {
  const Box box = {.request = Range::of(0, 1),
                   .token = Range::of(1, 2),
                   .head = Range::of(2, 3),
                   .dim = Range::of(3, 4)};
  EXPECT_EQ(box[Axis::request], Range::of(0, 1));
  EXPECT_EQ(box[Axis::token], Range::of(1, 2));
  EXPECT_EQ(box[Axis::head], Range::of(2, 3));
  EXPECT_EQ(box[Axis::dim], Range::of(3, 4));
}

}  // namespace
}  // namespace weir
