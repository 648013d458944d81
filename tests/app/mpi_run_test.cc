// `weir run` started by mpiexec: what it says, and that nothing is left of it when a rank fails.

#include <unistd.h>
#include <csignal>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/random.h"
#include "tests/app/program.h"
#include "tests/checkpoint/temporary_folder.h"

namespace weir {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;
using Clock = std::chrono::steady_clock;
using nlohmann::json;

// Marks the processes that a test has started; they hand it on to theirs.
constexpr const char* kMark = "WEIR_MPI_RUN_TEST";

class MpiRun : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    const ProgramResult made = run_weir({"model", "new", "--preset", "tiny", "--out", tiny()});
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string tiny() { return folder_->file("tiny"); }
  static std::string file(const std::string& name) { return folder_->file(name); }

  // More ranks than cores, and root, are what Open MPI refuses unless told; others ignore it.
  static Arguments mpiexec(const std::string& mark, const Arguments& rest) {
    Arguments command = {"env",
                         "OMPI_MCA_rmaps_base_oversubscribe=1",
                         "OMPI_ALLOW_RUN_AS_ROOT=1",
                         "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                         fmt::format("{}={}", kMark, mark),
                         WEIR_MPIEXEC};
    command.insert(command.end(), rest.begin(), rest.end());
    return command;
  }
  static Arguments weir_on(int ranks, const Arguments& arguments) {
    Arguments command = {"-n", std::to_string(ranks), WEIR_BINARY_DIR "/weir"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
  }
  static ProgramResult run_ranks(int ranks, const Arguments& arguments) {
    return run_program(mpiexec("plain", weir_on(ranks, arguments)));
  }

 private:
  inline static std::unique_ptr<TemporaryFolder> folder_;
};

// The weir processes that carry the mark.
std::vector<pid_t> marked_ranks(const std::string& mark) {
  std::vector<pid_t> found;
  const std::string wanted = fmt::format("{}={}", kMark, mark);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string program;
    std::getline(std::ifstream(entry.path() / "comm"), program);
    if (program != "weir") continue;
    std::ifstream file(entry.path() / "environ", std::ios::binary);
    for (std::string variable; std::getline(file, variable, '\0');) {
      if (variable == wanted) found.push_back(static_cast<pid_t>(std::stol(name)));
    }
  }
  return found;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

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

TEST_F(MpiRun, NamesTheRankThatCannotOpenItsModel) {
  Arguments command = weir_on(1, {"run", "-m", tiny(), "-p", "x", "-s", "tp_pp", "--tp", "2"});
  const Arguments second =
      weir_on(1, {"run", "-m", file("missing"), "-p", "x", "-s", "tp_pp", "--tp", "2"});
  command.emplace_back(":");
  command.insert(command.end(), second.begin(), second.end());
  const ProgramResult result = run_program(mpiexec("missing", command));
  EXPECT_NE(result.exit_code, 0);
  EXPECT_EQ(count_of(result.err, "weir: "), 1U) << result.err;
  EXPECT_NE(result.err.find("weir: rank 1 on host "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("missing"), std::string::npos) << result.err;
  EXPECT_EQ(result.out, "");
}

// Any rank, rank 0 too, at moments from its first instant to the middle of the run.
TEST_F(MpiRun, EndsWithoutRemainsWhenARankIsKilled) {
  constexpr std::uint64_t kSeed = 20240611;
  constexpr int kRanks = 3;
  Random random(kSeed);
  for (int moment = 0; moment < 5; ++moment) {
    const auto delay = std::chrono::milliseconds(random.integer(0, 1200));
    const auto victim = static_cast<std::size_t>(random.integer(0, kRanks - 1));
    const std::string mark = fmt::format("{}-{}", getpid(), moment);
    SCOPED_TRACE(fmt::format("moment {}: rank {} after {}", moment, victim, delay.count()));
    const std::string trace = file("killed" + mark + ".json");
    auto running = std::async(std::launch::async, [&] {
      return run_program(mpiexec(
          mark, weir_on(kRanks, {"run", "-m", tiny(), "-p", "x", "-n", "100000", "--ignore-eos",
                                 "-s", "tp_pp", "--tp", "1", "--pp", "3", "--trace", trace})));
    });
    std::vector<pid_t> ranks;
    for (int attempt = 0; attempt < 500 && ranks.size() < kRanks; ++attempt) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      ranks = marked_ranks(mark);
    }
    ASSERT_EQ(ranks.size(), std::size_t{kRanks});
    std::this_thread::sleep_for(delay);
    const auto killed = Clock::now();
    kill(ranks[victim], SIGKILL);
    const ProgramResult result = running.get();
    EXPECT_LT(Clock::now() - killed, std::chrono::seconds(10));
    EXPECT_NE(result.exit_code, 0);
    EXPECT_EQ(marked_ranks(mark), std::vector<pid_t>());
    EXPECT_FALSE(fs::exists(trace));
  }
}

}  // namespace
}  // namespace weir
