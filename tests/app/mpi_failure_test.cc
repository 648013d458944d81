// `weir run` started by mpiexec where a rank fails: it ends soon, says why at most once, and leaves
// nothing behind.

#include <sys/types.h>
#include <csignal>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/app/mpi_program.h"
#include "tests/app/tiny_model_test.h"

namespace weir {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kRanks = 3;
constexpr std::chrono::seconds kSoon{10};

class MpiFailure : public TinyModelTest {
 protected:
  static bool has_file_that_begins(const std::string& name) {
    for (const auto& entry : fs::directory_iterator(fs::path(file(name)).parent_path())) {
      if (entry.path().filename().string().starts_with(name)) return true;
    }
    return false;
  }
};

// Three ranks that generate, with 8000 tokens for many seconds, unless something happens to them.
// Open MPI 4.1.4's mpirun sometimes waits for itself for ever when a rank was killed, with nothing
// left to end: it is then ended here.
class LongRun {
 public:
  LongRun(const std::string& model, const std::string& trace, int tokens = 8000)
      : running_(std::async(
            std::launch::async, [command = command_of(mark_, model, trace, tokens), this] {
              return run_program(command, {.on_output = [this] { said_.set_value(); },
                                           .give_up = [this] { return hangs(); }});
            })) {}

  [[nodiscard]] std::vector<RankProcess> ranks() {
    std::vector<RankProcess> found = await_ranks(mark_, kRanks);
    began_ = true;
    return found;
  }
  // Whether all ranks have ended so soon.
  [[nodiscard]] bool ends_within(std::chrono::seconds time) const {
    const auto deadline = Clock::now() + time;
    while (remains() > 0) {
      if (Clock::now() > deadline) return false;
      std::this_thread::sleep_for(milliseconds(20));
    }
    return true;
  }
  // Until it has printed something.
  void await_output() { said_.get_future().wait(); }
  [[nodiscard]] ProgramResult end() { return running_.get(); }
  [[nodiscard]] std::size_t remains() const { return marked_ranks(mark_).size(); }

 private:
  static Arguments command_of(const std::string& mark, const std::string& model,
                              const std::string& trace, int tokens) {
    return mpiexec(mark,
                   weir_on(kRanks, {"run", "-m", model, "-p", "x", "-n", std::to_string(tokens),
                                    "--ignore-eos", "-s", "context_parallel", "--cp",
                                    std::to_string(kRanks), "--trace", trace}));
  }

  // The launcher is all that is left, and has been for a while.
  bool hangs() {
    if (Clock::now() < next_look_) return false;
    next_look_ = Clock::now() + milliseconds(500);
    if (!began_ || remains() > 0) {
      alone_since_ = {};
      return false;
    }
    if (!alone_since_) alone_since_ = Clock::now();
    return Clock::now() - *alone_since_ > kSoon;
  }

  std::string mark_ = new_mark();
  std::promise<void> said_;
  std::atomic<bool> began_ = false;
  Clock::time_point next_look_;
  std::optional<Clock::time_point> alone_since_;
  std::future<ProgramResult> running_;
};

// What is said is the launcher's, and one line of ours if our rank is faster.
void expect_at_most_one_line(const std::string& err, std::size_t victim) {
  EXPECT_LE(count_of(err, "weir: "), 1U) << err;
  if (err.find("weir: ") == std::string::npos) return;
  EXPECT_NE(err.find(fmt::format("weir: rank {} on host ", victim)), std::string::npos) << err;
  EXPECT_NE(err.find(": died (killed, or crashed)"), std::string::npos) << err;
}

// 20 moments in all, from the first instant to the middle of the run; rank 0 is a victim too.
class MpiKill : public MpiFailure, public testing::WithParamInterface<std::uint64_t> {};

TEST_P(MpiKill, EndsTheRunWithoutRemains) {
  Random random(GetParam());
  for (int moment = 0; moment < 5; ++moment) {
    const auto delay = milliseconds(random.integer(0, 1200));
    const auto victim = static_cast<std::size_t>(random.integer(0, kRanks - 1));
    SCOPED_TRACE(fmt::format("seed {} moment {}: rank {} after {}", GetParam(), moment, victim,
                             delay.count()));
    const std::string trace = fmt::format("killed{}-{}.json", GetParam(), moment);
    LongRun run(tiny(), file(trace));
    const std::vector<RankProcess> ranks = run.ranks();
    ASSERT_EQ(ranks.size(), kRanks);
    std::this_thread::sleep_for(delay);
    ASSERT_EQ(kill(ranks[victim].pid, SIGKILL), 0) << "the run had ended before";
    EXPECT_TRUE(run.ends_within(kSoon));
    const ProgramResult result = run.end();
    EXPECT_NE(result.exit_code, 0);
    expect_at_most_one_line(result.err, victim);
    EXPECT_EQ(run.remains(), 0U);
    EXPECT_FALSE(has_file_that_begins(trace));
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, MpiKill, testing::Values(20240611, 1, 2, 3));

class MpiStop : public MpiFailure, public testing::WithParamInterface<std::size_t> {};

// A stopped process neither answers nor ends.
TEST_P(MpiStop, EndsTheRunAndNamesTheRank) {
  const std::size_t victim = GetParam();
  const std::string trace = fmt::format("stopped{}.json", victim);
  LongRun run(tiny(), file(trace));
  run.await_output();
  const std::vector<RankProcess> ranks = run.ranks();
  ASSERT_EQ(ranks.size(), kRanks);
  ASSERT_EQ(kill(ranks[victim].pid, SIGSTOP), 0);
  EXPECT_TRUE(run.ends_within(kSoon));
  const ProgramResult result = run.end();
  EXPECT_NE(result.exit_code, 0);
  EXPECT_EQ(count_of(result.err, "weir: "), 1U) << result.err;
  EXPECT_NE(result.err.find(fmt::format("weir: rank {} on host ", victim)), std::string::npos)
      << result.err;
  EXPECT_NE(result.err.find("(stopped, or cut off)"), std::string::npos) << result.err;
  EXPECT_EQ(run.remains(), 0U);
  EXPECT_FALSE(has_file_that_begins(trace));
}

INSTANTIATE_TEST_SUITE_P(Ranks, MpiStop, testing::Values(0, kRanks - 1));

// What a suspended machine does to a run, and a debugger: nobody is taken for dead.
TEST_F(MpiFailure, IsNotSeenInAPauseOfAllRanks) {
  LongRun run(tiny(), file("paused.json"), 1500);
  run.await_output();
  const std::vector<RankProcess> ranks = run.ranks();
  ASSERT_EQ(ranks.size(), kRanks);
  for (const RankProcess& rank : ranks) ASSERT_EQ(kill(rank.pid, SIGSTOP), 0);
  std::this_thread::sleep_for(std::chrono::seconds(7));
  for (const RankProcess& rank : ranks) ASSERT_EQ(kill(rank.pid, SIGCONT), 0);
  const ProgramResult result = run.end();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(file("paused.json")));
}

// Two ranks; the second one is started by `program` with another model folder.
ProgramResult run_unequal(const Arguments& program, const std::string& first,
                          const std::string& second) {
  const auto run = [](const std::string& model) {
    return Arguments{"run", "-m", model, "-p", "x", "-s", "tp_pp", "--tp", "2"};
  };
  Arguments command = weir_on(1, run(first));
  command.insert(command.end(), {":", "-n", "1"});
  command.insert(command.end(), program.begin(), program.end());
  command.emplace_back(WEIR_BINARY_DIR "/weir");
  const Arguments rest = run(second);
  command.insert(command.end(), rest.begin(), rest.end());
  return run_program(mpiexec(new_mark(), command));
}

TEST_F(MpiFailure, NamesTheRankThatCannotOpenItsModel) {
  const ProgramResult result = run_unequal({}, tiny(), file("missing"));
  EXPECT_NE(result.exit_code, 0);
  EXPECT_EQ(count_of(result.err, "weir: "), 1U) << result.err;
  EXPECT_NE(result.err.find("weir: rank 1 on host "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("missing"), std::string::npos) << result.err;
  EXPECT_EQ(result.out, "");
}

// Of another shape, or of the same with other weights.
TEST_F(MpiFailure, NamesTheRankThatHasAnotherModel) {
  for (const char* option : {"--vocab-size", "--seed"}) {
    const std::string other = file(std::string("other") + option);
    const ProgramResult made =
        run_weir({"model", "new", "--preset", "tiny", option, "1024", "--out", other});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    const ProgramResult result = run_unequal({}, tiny(), other);
    EXPECT_NE(result.exit_code, 0);
    EXPECT_EQ(count_of(result.err, "weir: "), 1U) << result.err;
    EXPECT_NE(result.err.find("weir: rank 1 on host "), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("found another model than rank 0"), std::string::npos) << result.err;
  }
}

// Three ranks, the first one with the first arguments.
ProgramResult run_mixed(const Arguments& first, const Arguments& others) {
  Arguments command = weir_on(1, first);
  command.emplace_back(":");
  const Arguments rest = weir_on(2, others);
  command.insert(command.end(), rest.begin(), rest.end());
  return run_program(mpiexec(new_mark(), command));
}

// Rank 0, with nothing wrong, is not left waiting for ranks that have.
TEST_F(MpiFailure, SaysWhatIsWrongWithAnotherRanksCommandLine) {
  const Arguments right = {"run", "-m", tiny(), "-p", "x", "-s", "context_parallel", "--cp", "3"};
  Arguments wrong = right;
  wrong.emplace_back("--no-such-flag");
  const std::vector<std::pair<Arguments, std::string>> cases = {
      {wrong, "--no-such-flag: found an unknown option"},
      {{"plan", "-m", tiny()}, "plan: found 3 ranks, allowed 1"},
      {{"bench", "-m", tiny()}, "command: found \"bench\", allowed \"run\""},
      {{"bench", "-m", tiny(), "--length", "x"}, "--length: found x"}};
  for (const auto& [others, problem] : cases) {
    const ProgramResult result = run_mixed(right, others);
    EXPECT_NE(result.exit_code, 0);
    EXPECT_EQ(count_of(result.err, "weir: "), 1U) << result.err;
    EXPECT_EQ(count_of(result.err, "weir: rank 1 on host "), 1U) << result.err;
    EXPECT_EQ(count_of(result.err, problem), 1U) << result.err;
    EXPECT_EQ(result.out, "");
  }
  const ProgramResult result = run_mixed(wrong, right);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(count_of(result.err, "weir: --no-such-flag: found an unknown option"), 1U)
      << result.err;
}

// Rank 0 alone writes; other hosts need not have its folders.
TEST_F(MpiFailure, IsNotThatAnotherRankHasNoFolderForTheTrace) {
  const auto run = [&](const std::string& trace) {
    return Arguments{"run",  "-m", tiny(),    "-p", "x", "-n", "2", "-s", "context_parallel",
                     "--cp", "3",  "--trace", trace};
  };
  const ProgramResult result = run_mixed(run(file("trace.json")), run("/nonexistent/trace.json"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(file("trace.json")));
  const ProgramResult none = run_mixed(run("/nonexistent/trace.json"), run(file("trace.json")));
  EXPECT_EQ(none.exit_code, 2) << none.err;
  EXPECT_EQ(count_of(none.err, "weir: --trace: found /nonexistent/trace.json"), 1U) << none.err;
}

// Enough memory for MPI, not for the 200 MB of the model.
TEST_F(MpiFailure, NamesTheRankThatRunsOutOfMemory) {
  const std::string large = file("large");
  const ProgramResult made =
      run_weir({"model", "new", "--preset", "fa-pool-4l", "--scale", "0.125", "--out", large});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const Arguments limited = {"sh", "-c", "ulimit -v 400000; exec \"$0\" \"$@\""};
  const ProgramResult enough = run_unequal(limited, tiny(), tiny());
  if (enough.exit_code != 0) GTEST_SKIP() << "MPI wants more than 400 MB: " << enough.err;
  const ProgramResult result = run_unequal(limited, large, large);
  fs::remove_all(large);
  EXPECT_NE(result.exit_code, 0);
  EXPECT_EQ(count_of(result.err, "weir: "), 1U) << result.err;
  EXPECT_NE(result.err.find("weir: rank 1 on host "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("memory"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace weir
