#include "app/stop_filter.h"

#include <gtest/gtest.h>

namespace weir {
namespace {

TEST(StopFilter, PassesOnWhatCannotBecomeAStop) {
  StopFilter filter({"<end>"});
  EXPECT_EQ(filter.push("a < b "), "a < b ");
  EXPECT_EQ(filter.push("<en"), "");
  EXPECT_EQ(filter.push("try>"), "<entry>");
  EXPECT_FALSE(filter.stopped());
}

TEST(StopFilter, CutsAtTheFirstStop) {
  StopFilter filter({"two", "one"});
  EXPECT_EQ(filter.push("zero on"), "zero ");
  EXPECT_EQ(filter.push("e two"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("more"), "");
  EXPECT_EQ(filter.flush(), "");
}

TEST(StopFilter, GivesBackWhatItHeldAtTheEnd) {
  StopFilter filter({"abab"});
  EXPECT_EQ(filter.push("xaba"), "x");
  EXPECT_EQ(filter.push("a"), "aba");
  EXPECT_EQ(filter.flush(), "a");
}

TEST(StopFilter, WithoutStopsHoldsNothing) {
  StopFilter filter({});
  EXPECT_EQ(filter.push("anything"), "anything");
  EXPECT_EQ(filter.flush(), "");
}

}  // namespace
}  // namespace weir
