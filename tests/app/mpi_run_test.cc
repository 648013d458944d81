// `weir run` started by mpiexec: what it says.

#include <map>
#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "tests/app/mpi_program.h"
#include "tests/app/tiny_model_test.h"

namespace weir {
namespace {

using nlohmann::json;

using MpiRun = TinyModelTest;

TEST_F(MpiRun, SaysWhatOneProcessWithAsManyDevicesSays) {
  const Arguments arguments = {"run", "-m",    tiny(), "-p", "Once upon a time", "-n",    "12",
                               "-s",  "tp_pp", "--tp", "2",  "--check",          "--json"};
  const ProgramResult plain = run_weir(arguments);
  const ProgramResult ranks = run_ranks(2, arguments);
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  ASSERT_EQ(ranks.exit_code, 0) << ranks.err;
  const json one = parse_json(plain.out, "one process").value();
  const json two = parse_json(ranks.out, "two ranks").value();  // One document: printed once.
  EXPECT_EQ(two.at("requests"), one.at("requests"));
  EXPECT_EQ(two.at("strategy"), one.at("strategy"));
  EXPECT_EQ(two.at("devices"), one.at("devices"));
  EXPECT_EQ(two.at("planning").at("plans"), one.at("planning").at("plans"));
  EXPECT_TRUE(two.at("check").at("agrees").get<bool>());
  EXPECT_EQ(two.at("check").at("max_logit_difference"), one.at("check").at("max_logit_difference"));
  EXPECT_EQ(two.at("ranks").size(), 2U);
  EXPECT_EQ(one.at("ranks"), nullptr);
}

TEST_F(MpiRun, WritesOneTraceOfAllRanks) {
  const ProgramResult result =
      run_ranks(3, {"run", "-m", tiny(), "-p", "x", "-n", "3", "-s", "attention_pool", "--tp", "1",
                    "--pool", "2", "--threshold", "1", "--trace", file("trace.json")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto trace = read_json_file(file("trace.json"));
  ASSERT_TRUE(trace);
  std::map<std::string, int> events;
  for (const json& event : trace->at("traceEvents")) {
    if (event.value("ph", "") == "X") ++events[event.at("pid").dump() + event.at("tid").dump()];
  }
  EXPECT_GE(events.size(), 3U);
}

TEST_F(MpiRun, WantsOneRankPerDeviceAndSaysSoOnce) {
  const ProgramResult result =
      run_ranks(3, {"run", "-m", tiny(), "-p", "x", "-s", "tp_pp", "--tp", "2"});
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_EQ(count_of(result.err, "weir: "), 1U) << result.err;
  EXPECT_NE(result.err.find("ranks: found 3, allowed 2, one per device"), std::string::npos)
      << result.err;
  EXPECT_EQ(result.out, "");
}

TEST_F(MpiRun, SaysAWrongCommandLineOnce) {
  const ProgramResult result = run_ranks(2, {"run", "-m", tiny(), "--no-such-flag"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(count_of(result.err, "weir: "), 1U) << result.err;
  const ProgramResult other = run_ranks(2, {"plan", "-m", tiny()});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_EQ(count_of(other.err, "weir: plan: found 2 ranks, allowed 1"), 1U) << other.err;
}

}  // namespace
}  // namespace weir
