#include "comm/watch_words.h"

#include <string>

#include <gtest/gtest.h>

namespace weir {
namespace {

using Heard = WatchEar::Heard;

TEST(WatchWords, OfARankThatRunsSayNothing) {
  WatchEar ear;
  EXPECT_EQ(ear.hear("bbb"), Heard::nothing);
  EXPECT_EQ(ear.hear("what?"), Heard::nothing);
  EXPECT_EQ(ear.hear(""), Heard::nothing);
}

TEST(WatchWords, EndWithTheFirstThatIsNoBeat) {
  WatchEar leaves;
  EXPECT_EQ(leaves.hear("bgbe"), Heard::goodbye);
  EXPECT_EQ(leaves.hear("e"), Heard::goodbye);
  WatchEar ends;
  EXPECT_EQ(ends.hear("beg"), Heard::end);
}

TEST(WatchWords, PutACauseTogetherFromItsPieces) {
  WatchEar ear;
  const std::string line = cause_line("out of\nmemory, e.g. of the bench");
  EXPECT_EQ(ear.hear(line.substr(0, 5)), Heard::nothing);
  EXPECT_EQ(ear.hear(line.substr(5, line.size() - 6)), Heard::nothing);
  EXPECT_EQ(ear.hear("\n"), Heard::cause);
  EXPECT_EQ(ear.cause(), "out of memory, e.g. of the bench");
}

TEST(WatchWords, KeepNoMoreOfACauseThanIsAllowed) {
  WatchEar ear;
  EXPECT_EQ(ear.hear("c" + std::string(3 * kLongestCause, 'x')), Heard::nothing);
  EXPECT_EQ(ear.hear("\n"), Heard::cause);
  EXPECT_EQ(ear.cause(), std::string(kLongestCause, 'x'));
  EXPECT_EQ(cause_line(std::string(3 * kLongestCause, 'x')).size(), kLongestCause + 2);
}

}  // namespace
}  // namespace weir
