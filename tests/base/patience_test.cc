#include "base/patience.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <sched.h>

namespace weir {
namespace {

using std::chrono::milliseconds;

// However busy the machine is, the looks come first and the end comes.
TEST(Patience, LooksWithoutAPauseThenWaitsThenEnds) {
  Patience patience(3);
  for (int look = 0; look < 3; ++look) {
    EXPECT_TRUE(patience.pause());
    EXPECT_EQ(patience.waited(), Patience::Clock::duration::zero());
  }
  while (patience.pause()) EXPECT_LT(patience.waited(), Patience::kLongest);
  EXPECT_GT(patience.waited(), Patience::Clock::duration::zero());
}

TEST(Patience, KeepsACoreFromOthersAsLongAsItWasTold) {
  const milliseconds kept(3);
  Patience patience(0, kept);
  while (patience.pause()) {
  }
  EXPECT_GE(patience.waited(), kept);
}

// On one core with a thread that computes: a yield gives it a turn, and that is the end.
TEST(Patience, GivesUpACoreThatOthersWant) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  if (sched_setaffinity(0, sizeof(one), &one) != 0) GTEST_SKIP() << "threads cannot be pinned here";
  std::atomic<bool> stop = false;
  std::atomic<std::uint64_t> work = 0;
  std::thread other([&] {  // Runs where the thread that started it runs.
    while (!stop.load(std::memory_order_relaxed)) work.fetch_add(1, std::memory_order_relaxed);
  });
  while (work.load() == 0) std::this_thread::yield();
  // A turn may be as long as all of a patience: then the next one tells.
  bool gave_up = false;
  for (int attempt = 0; attempt < 100 && !gave_up; ++attempt) {
    Patience patience(0);
    while (patience.pause()) {
    }
    gave_up = patience.waited() < Patience::kLongest;
  }
  stop = true;
  other.join();
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  EXPECT_TRUE(gave_up);
}

}  // namespace
}  // namespace weir
