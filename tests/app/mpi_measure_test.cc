// `weir calibrate` and `weir bench` started by mpiexec: what they measure is not judged here, only
// that one reads what the other writes.

#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "tests/app/mpi_program.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

using nlohmann::json;

TEST(MpiMeasure, CalibratesTheRanksThatTheBenchRunsOn) {
  const TestFolder folder;
  const std::string file = folder.file("ranks.json");
  const ProgramResult calibrated =
      run_ranks(2, {"calibrate", "--least-seconds", "0", "--out", file, "--json"});
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  const json cluster = parse_json(calibrated.out, "stdout").value();
  EXPECT_GT(cluster["node_types"][0]["fabrics"][0]["gb_per_s"], 0.0);
  EXPECT_GT(cluster["node_types"][0]["fabrics"][0]["latency_us"], 0.0);
  // From a decode step's 2 kB up to a prefill's 2 MB, which are exchanged half and half.
  const json& transfers = cluster["node_types"][0]["fabrics"][0]["transfers"];
  const json& exchange = transfers["exchanges"].at(0);
  EXPECT_EQ(exchange["members"], 2);
  EXPECT_EQ(exchange["times"].front()["bytes"], 2048);
  EXPECT_EQ(exchange["times"].back()["bytes"], 1 << 20);
  for (const char* collective : {"all_reduces", "reduce_scatters", "all_gathers"})
    EXPECT_EQ(transfers[collective].at(0)["times"].back()["bytes"], 2 << 20) << collective;

  const std::string model = folder.file("model");
  ASSERT_EQ(run_weir({"model", "new", "--preset", "tiny", "--out", model}).exit_code, 0);
  // One of them leaves a rank without work.
  const ProgramResult benched =
      run_ranks(2, {"bench", "-c", file, "-m", model, "-s", "single", "-s", "tp_pp tp=2",
                    "--length", "9", "--decode-steps", "3", "--repetitions", "1", "--json"});
  ASSERT_EQ(benched.exit_code, 0) << benched.err;
  const json result = parse_json(benched.out, "stdout").value();
  ASSERT_EQ(result["points"].size(), 4U);
  for (const json& point : result["points"]) {
    const bool communicates = point["strategy"] != "single";
    EXPECT_GT(point["measured"]["step_s"], 0.0);
    EXPECT_EQ(point["measured"]["communication_s"] > 0.0, communicates);
    EXPECT_EQ(point["predicted"]["communication_s"] > 0.0, communicates);
  }

  // The same file in a run: rank i is its device i.
  const ProgramResult run = run_ranks(2, {"run", "-c", file, "-m", model, "-s", "tp_pp", "--tp",
                                          "2", "-p", "x", "-n", "2", "--json"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
}

TEST(MpiMeasure, SaysOnceWhatIsMissing) {
  const TestFolder folder;
  const ProgramResult bench = run_ranks(2, {"bench", "-m", folder.file("none")});
  EXPECT_EQ(bench.exit_code, 1) << bench.err;
  EXPECT_EQ(count_of(bench.err, "weir: "), 1U) << bench.err;
  const ProgramResult devices =
      run_ranks(2, {"calibrate", "--devices", "2", "--out", folder.file("x.json")});
  EXPECT_EQ(count_of(devices.err, "weir: "), 1U) << devices.err;
  EXPECT_NE(devices.err.find("every rank is a device"), std::string::npos) << devices.err;
}

}  // namespace
}  // namespace weir
