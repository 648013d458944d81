#include "base/patience.h"

#include <gtest/gtest.h>

namespace weir {
namespace {

// However busy the machine is, the looks come first and the end comes.
TEST(Patience, LooksWithoutAPauseThenWaitsThenEnds) {
  const std::chrono::milliseconds longest(3);
  Patience patience(3, longest);
  for (int look = 0; look < 3; ++look) {
    EXPECT_TRUE(patience.pause());
    EXPECT_EQ(patience.waited(), Patience::Clock::duration::zero());
  }
  while (patience.pause()) EXPECT_LT(patience.waited(), longest);
  EXPECT_GE(patience.waited(), longest);
}

}  // namespace
}  // namespace weir
