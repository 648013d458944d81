// What ranks that do not fit together say of each other before a run. Two ranks.

#include "app/rank_setup.h"

#include <span>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "app/version.h"
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

TEST(RankSetup, NamesTheRankOfAnotherBuild) {
  if (test_ranks().rank() != 0) {
    say(fmt::format(R"({{"version": "{}", "build": "another", "cpus": [0]}})", kVersion));
    (void)test_ranks().receive(0);
    return;
  }
  RankLeader leader(test_ranks());
  const Status all = leader.gather(invalid_input("no model is asked for"), {});
  ASSERT_FALSE(all);
  EXPECT_TRUE(all.error().message.starts_with("rank 1 on host ")) << all.error().message;
  EXPECT_NE(all.error().message.find("found another build of weir "), std::string::npos)
      << all.error().message;
}

// What rank 0 says of two ranks that say they are these.
std::string difference_between(const nlohmann::json& first, const nlohmann::json& second) {
  if (test_ranks().rank() != 0) {
    EXPECT_FALSE(await_go(test_ranks(), second, {}));
    return "";
  }
  RankLeader leader(test_ranks());
  const Status all = leader.gather(first, {});
  return all ? "nothing" : all.error().message;
}

TEST(RankSetup, SaysInWhatRanksDiffer) {
  const nlohmann::json run = {{"command", "run"}, {"model", {{"layers", 1}}}};
  nlohmann::json other = run;
  other["model"]["layers"] = 2;
  const std::string model = difference_between(run, other);
  other["command"] = "bench";
  const std::string command = difference_between(run, other);
  const std::string number = difference_between({{"command", "calibrate"}, {"--least-seconds", 1}},
                                                {{"command", "calibrate"}, {"--least-seconds", 2}});
  if (test_ranks().rank() != 0) return;
  EXPECT_TRUE(model.ends_with(": found another model than rank 0, allowed one model")) << model;
  EXPECT_TRUE(command.ends_with(": command: found \"bench\", allowed \"run\", that of rank 0"))
      << command;
  EXPECT_TRUE(number.ends_with(": --least-seconds: found 2, allowed 1, that of rank 0")) << number;
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
