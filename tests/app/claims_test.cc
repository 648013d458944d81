// weir claims from outside.

#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/app/program.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

using nlohmann::json;

TEST(ClaimsCommand, JudgesANoteAsJsonAndTheSameWayTwice) {
  const ProgramResult result = run_weir({"claims", "--note", "cache-fit", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(result.out);
  ASSERT_EQ(document["notes"].size(), 1U);
  EXPECT_EQ(document["notes"][0]["findings"].size(), 14U);
  EXPECT_EQ(document["notes"][0]["findings"][0]["id"], "model.parameters");
  EXPECT_EQ(document["notes"][0]["findings"][0]["claimed_low"], 30.0);
  EXPECT_EQ(document["notes"][0]["findings"][0]["verdict"], "does not hold");
  EXPECT_EQ(run_weir({"claims", "--note", "cache-fit", "--json"}).out, result.out);
}

TEST(ClaimsCommand, PrintsAssumptionsFiguresAndTheCount) {
  const ProgramResult result =
      run_weir({"claims", "--note", "cache-fit", "--batch-size", "16", "--dtype", "f32"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"batch_size    16", "as given", "claimed/computed", "at most 0 layers",
                           "does not hold  impossible"}) {
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
  }
}

TEST(ClaimsCommand, JudgesANoteOfOnesOwn) {
  TestFolder folder;
  std::ofstream(folder.file("mine.json"))
      << R"json({"name": "mine", "title": "Mine", "model": "tiny", "assumptions": {}, "setups": {},
                 "tables": [{"name": "t", "title": "T", "claims": [
                   {"name": "heads", "unit": "heads", "claimed": 4, "compute": "num_heads"}]}]})json";
  const ProgramResult result = run_weir({"claims", "--file", folder.file("mine.json"), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(result.out);
  ASSERT_EQ(document["notes"].size(), 1U);
  EXPECT_EQ(document["notes"][0]["verdicts"]["holds"], 1);
}

TEST(ClaimsCommand, RefusesWhatThereIsNotInOneLine) {
  const auto refused = [](std::vector<std::string> arguments, std::string_view part) {
    const ProgramResult result = run_weir(std::move(arguments));
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
  };
  refused({"claims", "--note", "nine"}, "--note: found nine, allowed fa-pool-1, fa-pool-2");
  refused({"claims", "--batch-size", "0"}, "batch_size: found 0, allowed 1..4096");
  refused({"claims", "--note", "two-level", "--cluster", "moon"}, "cluster: ");
  refused({"claims", "--file", "nowhere.json"}, "nowhere.json");
}

}  // namespace
}  // namespace weir
