// The demo, as somebody sees it who has just built the program.

#include <algorithm>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "app/demo_text.h"
#include "base/json.h"
#include "strategy/strategy.h"
#include "tests/app/program.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

TEST(Demo, HasEnoughPlainText) {
  EXPECT_GT(demo_text().size(), 16384U);
  for (const char c : demo_text()) ASSERT_TRUE(c == '\n' || (c >= ' ' && c <= '~')) << c;
}

TEST(Demo, FindsEveryAnswerUnderEveryStrategy) {
  const TestFolder folder;
  const std::string trace = folder.file("trace.json");
  // Long enough for the pool to grow, which it does from 4,096 tokens on.
  const ProgramResult result = run_weir({"demo", "--tokens", "6144", "--trace", trace, "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json demo = parse_json(result.out, "stdout").value();
  for (const StrategyEntry& strategy : strategies()) {
    const bool shown = std::ranges::any_of(demo["runs"], [&](const nlohmann::json& run) {
      return run["strategy"].get<std::string>().starts_with(strategy.name);
    });
    EXPECT_TRUE(shown) << strategy.name;
  }
  for (const nlohmann::json& run : demo["runs"]) {
    EXPECT_EQ(run["matches"], true) << run["strategy"];
    ASSERT_EQ(run["answers"].size(), 3U);
    EXPECT_GE(run["answers"][0]["prompt_tokens"], 6144);
    for (const nlohmann::json& answer : run["answers"])
      EXPECT_EQ(answer["answer"], answer["expected"]);
  }
  EXPECT_TRUE(parse_json(read_text_file(trace).value(), trace));
}

TEST(Demo, RefusesDocumentsTooShortToHideKeysIn) {
  const ProgramResult result = run_weir({"demo", "--tokens", "1023"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.err, "weir: --tokens: found 1023, allowed an integer in 1024..1000000\n");
}

TEST(Demo, EndsCleanlyWhenInterrupted) {
  const TestFolder folder;
  const std::string trace = folder.file("trace.json");
  const ProgramResult result =
      run_weir({"demo", "--trace", trace, "--keep", folder.file("recall")}, {.interrupt_after = 1});
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_TRUE(std::filesystem::exists(folder.file("recall/config.json")));
}

}  // namespace
}  // namespace weir
