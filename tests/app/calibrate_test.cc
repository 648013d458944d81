// weir calibrate and weir bench from outside: what they measure is not judged here, only that one
// reads what the other writes.

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/app/program.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

using nlohmann::json;

TEST(CalibrateCommand, WritesAClusterThatTheSimulatorAndTheBenchRead) {
  TestFolder folder;
  const std::string file = folder.file("here.json");
  const ProgramResult calibrated =
      run_weir({"calibrate", "--out", file, "--devices", "2", "--least-seconds", "0", "--json"});
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  const json cluster = json::parse(calibrated.out);
  EXPECT_GT(cluster["device_types"]["cores"]["memory_gb_per_s"], 0.0);
  EXPECT_GE(cluster["node_types"][0]["host"]["step_latency_us"], 0.0);  // 0 on a busy machine.

  const ProgramResult simulated = run_weir({"simulate", "-m", "tiny", "-c", file, "--json"});
  ASSERT_EQ(simulated.exit_code, 0) << simulated.err;

  const std::string model = folder.file("model");
  ASSERT_EQ(run_weir({"model", "new", "--preset", "tiny", "--out", model}).exit_code, 0);
  const ProgramResult benched = run_weir({"bench", "-c", file, "-m", model, "-s", "single", "-s",
                                          "tp_pp tp=1 pp=2", "--length", "9", "--length", "33",
                                          "--decode-steps", "3", "--repetitions", "1", "--json"});
  ASSERT_EQ(benched.exit_code, 0) << benched.err;
  const json result = json::parse(benched.out);
  ASSERT_EQ(result["points"].size(), 8U);
  for (const json& point : result["points"]) {
    EXPECT_GT(point["measured"]["step_s"], 0.0);
    EXPECT_GT(point["predicted"]["step_s"], 0.0);
    EXPECT_GT(point["measured"]["linear_s"], 0.0);
  }
}

TEST(CalibrateCommand, RefusesAFileThatCannotBe) {
  const ProgramResult result = run_weir({"calibrate", "--out", "/no/such/folder/here.json"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("--out"), std::string::npos) << result.err;
}

TEST(BenchCommand, NamesWhatIsWrongWithItsInput) {
  const auto error_of = [](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"bench", "-c", "h100-sxm"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = run_weir(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    return result.err;
  };
  EXPECT_NE(error_of({"--length", "0"}).find("--length: found 0, allowed an integer in 1.."),
            std::string::npos);
  EXPECT_NE(error_of({"--length", "x"}).find("--length: found x"), std::string::npos);
}

}  // namespace
}  // namespace weir
