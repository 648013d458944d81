#include "kernel/team.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

namespace weir {
namespace {

TEST(Team, RunsEveryWorkerOncePerCall) {
  for (int size = 1; size <= 4; ++size) {
    Team team(size);
    std::vector<int> calls(static_cast<std::size_t>(size), 0);  // Each worker writes its own.
    for (int run = 0; run < 300; ++run) {
      team.run([&](int worker) { ++calls[static_cast<std::size_t>(worker)]; });
    }
    EXPECT_EQ(calls, std::vector<int>(static_cast<std::size_t>(size), 300));
  }
}

TEST(Team, ShowsEveryWorkerWhatTheCallerWroteAndTheCallerWhatTheyWrote) {
  Team team(3);
  std::vector<std::int64_t> input(3, 0);
  std::vector<std::int64_t> output(3, 0);
  for (std::int64_t run = 1; run <= 300; ++run) {
    for (std::int64_t& value : input) value = run;
    team.run([&](int worker) {
      output[static_cast<std::size_t>(worker)] = 2 * input[static_cast<std::size_t>(worker)];
    });
    ASSERT_EQ(output, std::vector<std::int64_t>(3, 2 * run));
  }
}

TEST(Team, TheCallerIsWorkerZero) {
  Team team(2);
  std::thread::id worker_zero;
  team.run([&](int worker) {
    if (worker == 0) worker_zero = std::this_thread::get_id();
  });
  EXPECT_EQ(worker_zero, std::this_thread::get_id());
}

TEST(Team, WakesHelpersThatHaveGoneToSleep) {
  Team team(3);
  std::atomic<int> calls{0};
  for (int run = 0; run < 5; ++run) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // Much longer than helpers spin.
    team.run([&](int) { ++calls; });
  }
  EXPECT_EQ(calls, 15);
}

TEST(Team, WaitsForHelpersThatAreSlowerThanTheCaller) {
  Team team(2);
  bool done = false;
  team.run([&](int worker) {
    if (worker == 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    done = true;
  });
  EXPECT_TRUE(done);
}

TEST(Team, StartsAndEndsWithoutWork) {
  for (int i = 0; i < 20; ++i) Team team(3);
}

TEST(Team, WorksWhenPinnedToOneCoreTwiceOrToACoreThatDoesNotExist) {
  for (const std::vector<int>& cores : {std::vector<int>{0, 0}, std::vector<int>{0, 100000}}) {
    std::thread([&] {  // A thread of its own, since pinning lasts.
      Team team(2, cores);
      team.pin_caller();
      std::atomic<int> calls{0};
      for (int run = 0; run < 50; ++run) team.run([&](int) { ++calls; });
      EXPECT_EQ(calls, 100);
    })
        .join();
  }
}

TEST(PinnedThread, LeavesTheThreadWhereItWas) {
  const auto allowed = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    pthread_getaffinity_np(pthread_self(), sizeof(set), &set);
    return set;
  };
  const cpu_set_t before = allowed();
  int core = 0;
  while (!CPU_ISSET(core, &before)) ++core;
  {
    const PinnedThread pinned(core);
    const cpu_set_t during = allowed();
    EXPECT_EQ(CPU_COUNT(&during), 1);
    EXPECT_TRUE(CPU_ISSET(core, &during));
  }
  for (const std::optional<int> nowhere : {std::optional<int>(), std::optional(100000)}) {
    const PinnedThread pinned(nowhere);
    const cpu_set_t during = allowed();
    EXPECT_TRUE(CPU_EQUAL(&during, &before));
  }
  const cpu_set_t after = allowed();
  EXPECT_TRUE(CPU_EQUAL(&after, &before));
}

TEST(Team, ParallelForCoversEveryIndexOnceInPartsThatAreMultiplesOfTheGrain) {
  for (int size = 1; size <= 4; ++size) {
    Team team(size);
    for (const std::int64_t count : {0, 1, 7, 64, 65, 1000}) {
      for (const std::int64_t grain : {1, 8, 300}) {
        std::vector<int> covered(static_cast<std::size_t>(count), 0);
        team.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
          EXPECT_EQ(begin % grain, 0);
          EXPECT_TRUE(end % grain == 0 || end == count);
          EXPECT_LT(begin, end);
          for (std::int64_t i = begin; i < end; ++i) ++covered[static_cast<std::size_t>(i)];
        });
        EXPECT_EQ(std::accumulate(covered.begin(), covered.end(), 0), count);
        EXPECT_EQ(std::ranges::count(covered, 1), count);
      }
    }
  }
}

}  // namespace
}  // namespace weir
