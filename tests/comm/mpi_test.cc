// The exchanges of threads_test.cc between MPI ranks, and what ranks say to each other besides.

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "tests/comm/exchange_rounds.h"
#include "tests/comm/rank_tests.h"

namespace weir {
namespace {

std::uint32_t own() { return static_cast<std::uint32_t>(test_ranks().rank()); }
std::uint32_t count() { return static_cast<std::uint32_t>(test_ranks().size()); }

void run_rounds(const std::vector<Round>& rounds) {
  const auto communicator = test_ranks().communicator();
  for (std::size_t number = 0; number < rounds.size(); ++number)
    take_part(number, rounds[number], own(), *communicator);
}

TEST(MpiCommunicator, DeliversWhatWasSentInAnyConsistentOrder) {
  run_rounds(random_rounds(count(), 400, 20240611));
}

// The largest goes in two pieces.
TEST(MpiCommunicator, DeliversMessagesOfAnySize) {
  run_rounds(rounds_of_sizes(count(), (std::size_t{64} << 20) + 3));
}

TEST(MpiCommunicator, LosesNoWakeUp) {
  const auto communicator = test_ranks().communicator();
  const std::vector<Round> turns = there_and_back();
  for (std::size_t turn = 0; turn < 2000; ++turn)
    take_part(turn, turns[turn % 2], own(), *communicator);
}

// So late that the other one naps.
TEST(MpiCommunicator, NoticesWhatComesLate) {
  const auto communicator = test_ranks().communicator();
  const Round round = {{.from = 0, .to = 1, .size = 100}, {.from = 1, .to = 0, .size = 3}};
  for (std::size_t turn = 0; turn < 10; ++turn) {
    if (turn % 2 == own()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    take_part(turn, round, own(), *communicator);
  }
}

TEST(Ranks, DeliverMessagesOfAnySizeInOrder) {
  for (const std::size_t size : {0U, 1U, 100U, 3U << 20}) {
    for (std::uint8_t turn = 0; turn < 3; ++turn) {
      const std::vector<std::byte> bytes(size, std::byte{turn});
      if (own() == 0) {
        for (std::size_t other = 1; other < count(); ++other) test_ranks().send(other, bytes);
        for (std::size_t other = 1; other < count(); ++other)
          EXPECT_EQ(test_ranks().receive(other), bytes);
      } else {
        EXPECT_EQ(test_ranks().receive(0), bytes);
        test_ranks().send(0, bytes);
      }
    }
  }
}

// More than MPI keeps for who has not asked for it yet.
TEST(Ranks, TellEachOtherBeforeAnyHears) {
  constexpr std::size_t kBytes = 3U << 20;
  for (std::size_t other = 0; other < count(); ++other) {
    for (std::uint8_t turn = 0; turn < 3 && other != own(); ++turn)
      test_ranks().send(other, std::vector<std::byte>(kBytes, std::byte{turn}));
  }
  for (std::size_t other = 0; other < count(); ++other) {
    for (std::uint8_t turn = 0; turn < 3 && other != own(); ++turn)
      EXPECT_EQ(test_ranks().receive(other), std::vector<std::byte>(kBytes, std::byte{turn}));
  }
}

// All ranks of this test run under one kernel.
TEST(Ranks, OfOneHostHaveOneClock) {
  for (std::size_t rank = 0; rank < count(); ++rank) {
    EXPECT_EQ(test_ranks().host(rank), test_ranks().host(0));
    if (own() != 0 && rank != own()) continue;
    EXPECT_EQ(test_ranks().clock(rank).offset.ns, 0);
    EXPECT_EQ(test_ranks().clock(rank).error.ns, 0);
  }
}

}  // namespace
}  // namespace weir
