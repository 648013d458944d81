// What ranks that do not fit together say of each other before a run. Two ranks.

#include "app/rank_setup.h"

#include <span>
#include <string>

#include <gtest/gtest.h>

#include "tests/comm/rank_tests.h"

namespace weir {
namespace {

void say(const std::string& text) { test_ranks().send(0, std::as_bytes(std::span(text))); }

TEST(RankSetup, NamesTheRankOfAnotherVersion) {
  if (test_ranks().rank() != 0) {
    say(R"({"version": "0.0.1", "cpus": [0]})");
    const auto bytes = test_ranks().receive(0);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
              R"({"go":false})");
    return;
  }
  RankLeader leader(test_ranks());
  const Status all = leader.gather(invalid_input("no model is asked for"), {});
  ASSERT_FALSE(all);
  EXPECT_TRUE(all.error().message.starts_with("rank 1 on host ")) << all.error().message;
  EXPECT_NE(all.error().message.find("found weir \"0.0.1\", allowed "), std::string::npos)
      << all.error().message;
}

TEST(RankSetup, NamesTheRankThatCannotTakePart) {
  if (test_ranks().rank() != 0) {
    EXPECT_FALSE(await_go(test_ranks(), invalid_input("the disk is gone"), {}));
    return;
  }
  RankLeader leader(test_ranks());
  const Status all = leader.gather(nlohmann::json::object(), {});
  ASSERT_FALSE(all);
  EXPECT_NE(all.error().message.find("rank 1 on host "), std::string::npos);
  EXPECT_NE(all.error().message.find("the disk is gone"), std::string::npos);
}

}  // namespace
}  // namespace weir
