// Runs on three hosts that are network namespaces (tests/mpi/hosts.sh). Skipped where those cannot
// be made.

#include <csignal>
#include <filesystem>
#include <memory>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "tests/app/mpi_program.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr int kSkipped = 77;

class MpiHosts : public testing::Test {
 protected:
  void SetUp() override {
    const ProgramResult made = run_weir({"model", "new", "--preset", "tiny", "--out", tiny()});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    const ProgramResult probe = on_hosts("true");
    if (probe.exit_code == kSkipped) GTEST_SKIP() << probe.out;
    ASSERT_EQ(probe.exit_code, 0) << probe.err;
  }

  // A shell on host a, of hosts a, b and c.
  static ProgramResult on_hosts(const std::string& script, const Arguments& options = {}) {
    Arguments command = {WEIR_SOURCE_DIR "/tests/mpi/hosts.sh", "run"};
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {"a", "b", "c", "--", "bash", "-c", script});
    return run_program(command);
  }

  // What starts `weir` there: ranks by host, as "a:1,b:2" of three.
  static std::string launch(const std::string& hosts, int ranks) {
    if (std::string(WEIR_MPI_LIBRARIES).find("mpich") != std::string::npos) {
      return fmt::format(
          "{} -launcher ssh -launcher-exec $WEIR_HOSTS_AGENT -iface eth0 -hosts {} "
          "-n {} " WEIR_BINARY_DIR "/weir ",
          WEIR_MPIEXEC, hosts, ranks);
    }
    return fmt::format(
        "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 {} --oversubscribe "
        "--leave-session-attached --mca plm_rsh_agent $WEIR_HOSTS_AGENT --mca btl tcp,self "
        "--mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 --host {} -n "
        "{} " WEIR_BINARY_DIR "/weir ",
        WEIR_MPIEXEC, hosts, ranks);
  }
  [[nodiscard]] std::string tiny() const { return folder_.file("tiny"); }
  [[nodiscard]] std::string file(const std::string& name) const { return folder_.file(name); }

 private:
  TestFolder folder_;
};

// The base group on one host, the pool on the two others.
TEST_F(MpiHosts, RunWhatOneDeviceRuns) {
  const ProgramResult result = on_hosts(launch("a:2,b:1,c:1", 4) + "run -m " + tiny() +
                                        " -p 'Once upon a time' -n 12 -s attention_pool --tp 2 "
                                        "--pool 2 --threshold 4 --check --json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json run = parse_json(result.out, "stdout").value();
  EXPECT_TRUE(run.at("check").at("agrees").get<bool>());
  const json& ranks = run.at("ranks");
  ASSERT_EQ(ranks.size(), 4U);
  for (std::size_t rank = 0; rank < 4; ++rank)
    EXPECT_EQ(ranks[rank].at("host"), std::string(1, "aabc"[rank]));
}

TEST_F(MpiHosts, AreMeasuredIntoAFileThatPredictsThem) {
  const std::string cluster = file("hosts.json");
  const std::string both = launch("a:1,b:1,c:1", 3);
  const ProgramResult result =
      on_hosts(both + "calibrate --least-seconds 0 --out " + cluster + " >/dev/null && " + both +
                   "bench -c " + cluster + " -m " + tiny() +
                   " --length 64 --length 512 --decode-steps 4 --repetitions 3 --json "
                   "-s 'context_parallel cp=3' -s 'tp_pp tp=3'",
               {"--rate", "1gbit"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json written = read_json_file(cluster).value();
  ASSERT_EQ(written.at("node_types").size(), 3U);
  for (const json& node : written.at("node_types")) {
    EXPECT_GT(node.at("nics").at("gb_per_s"), 0.0);
    EXPECT_EQ(node.at("nics").at("transfers").at("exchanges").at(0).at("members"), 3);
  }
  const json bench = parse_json(result.out, "stdout").value();
  // How near they come is for a quiet machine: docs/running.md.
  EXPECT_EQ(bench.at("points").size(), 2U * 2U * 2U);
  EXPECT_GT(bench.at("communication_median_error"), 0.0) << result.out;

  // `weir plan` says the same of the file, and ranks that are spread in another way are refused.
  const ProgramResult plan =
      run_weir({"plan", "-m", tiny(), "-c", cluster, "-s", "context_parallel", "--cp", "3"});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  for (const char* device : {"a/cpu0", "b/cpu0", "c/cpu0"})
    EXPECT_NE(plan.out.find(device), std::string::npos) << plan.out;
  const ProgramResult elsewhere = on_hosts(launch("a:2,b:1", 3) + "run -m " + tiny() +
                                           " -p x -s context_parallel --cp 3 -c " + cluster);
  EXPECT_NE(elsewhere.exit_code, 0);
  EXPECT_NE(elsewhere.err.find("weir: ranks: found rank 1 on host a with rank 0, allowed another "
                               "host, as --cluster has device b/cpu0 on node b"),
            std::string::npos)
      << elsewhere.err;
}

// Host c's cable is pulled in the middle of a run.
TEST_F(MpiHosts, EndWhenOneIsCutOff) {
  const ProgramResult result = on_hosts(
      "exec 3>&1; " + launch("a:1,b:1,c:1", 3) + "run -m " + tiny() +
      " -p x -n 8000 --ignore-eos -s context_parallel --cp 3 >" + file("said") + " 2>" +
      file("err") + " & run=$!; " + "while [ ! -s " + file("said") +
      " ] && kill -0 $run; do sleep 0.1; done; " WEIR_SOURCE_DIR
      "/tests/mpi/hosts.sh cut c; start=$SECONDS; "
      "while ! grep -q 'weir: ' " +
      file("err") +
      " && [ $((SECONDS - start)) -lt 20 ]; do sleep "
      "0.1; done; echo $((SECONDS - start)) >&3; kill $run 2>/dev/null; sleep 1; kill -9 $run "
      "2>/dev/null; cat " +
      file("err") + " >&2; true");
  EXPECT_LT(std::stoi(result.out), 10) << result.err;
  EXPECT_NE(result.err.find("weir: rank 2 on host c: not heard of for "), std::string::npos)
      << result.err;
}

}  // namespace
}  // namespace weir
