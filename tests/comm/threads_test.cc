#include <chrono>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "comm/communicator.h"
#include "tests/comm/exchange_rounds.h"

namespace weir {
namespace {

using Bytes = std::vector<std::byte>;
using Endpoints = std::vector<std::unique_ptr<Communicator>>;

// Runs `body` for every device, each in a thread of its own.
void on_all(Endpoints& endpoints, const std::function<void(std::uint32_t, Communicator&)>& body) {
  std::vector<std::jthread> threads;
  for (std::uint32_t device = 0; device < endpoints.size(); ++device)
    threads.emplace_back([&, device] { body(device, *endpoints[device]); });
}

void run_rounds(std::uint32_t devices, const std::vector<Round>& rounds) {
  Endpoints endpoints = make_thread_communicators(devices);
  on_all(endpoints, [&](std::uint32_t self, Communicator& comm) {
    for (std::size_t number = 0; number < rounds.size(); ++number)
      take_part(number, rounds[number], self, comm);
  });
}

class ThreadCommunicators : public testing::TestWithParam<std::uint32_t> {};

TEST_P(ThreadCommunicators, DeliverWhatWasSentInAnyConsistentOrder) {
  const std::uint64_t seed = 20240611 + GetParam();
  SCOPED_TRACE(seed);
  run_rounds(GetParam(), random_rounds(GetParam(), 400, seed));
}

TEST_P(ThreadCommunicators, DeliverMessagesOfAnySize) {
  run_rounds(GetParam(), rounds_of_sizes(GetParam(), 1 << 20));
}

INSTANTIATE_TEST_SUITE_P(Devices, ThreadCommunicators, testing::Values(2, 3, 5, 8));

// Each waits for the other alone, thousands of times: a wake-up that is lost would end it here.
TEST(ThreadCommunicator, LosesNoWakeUp) {
  constexpr std::size_t kTurns = 20000;
  const std::vector<Round> turns = there_and_back();
  Endpoints endpoints = make_thread_communicators(2);
  on_all(endpoints, [&](std::uint32_t self, Communicator& comm) {
    for (std::size_t turn = 0; turn < kTurns; ++turn) take_part(turn, turns[turn % 2], self, comm);
  });
}

// The reader comes so late that the sender sleeps.
TEST(ThreadCommunicator, WakesASleeper) {
  Endpoints endpoints = make_thread_communicators(2);
  const Round round = {{.from = 0, .to = 1, .size = 100}, {.from = 1, .to = 0, .size = 3}};
  on_all(endpoints, [&](std::uint32_t self, Communicator& comm) {
    for (std::size_t turn = 0; turn < 20; ++turn) {
      if (turn % 2 == self) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      take_part(turn, round, self, comm);
    }
  });
}

TEST(ThreadCommunicator, KeepsASendersMemoryInUseUntilItIsRead) {
  Endpoints endpoints = make_thread_communicators(2);
  const Bytes bytes(8);
  const OutgoingMessage outgoing = {.to = DeviceId{1}, .bytes = bytes};
  const IncomingMessage incoming = {.from = DeviceId{0}, .size = 8};
  endpoints[0]->start(1, {&outgoing, 1}, {});
  EXPECT_TRUE(endpoints[0]->arrived());
  EXPECT_FALSE(endpoints[0]->over());
  endpoints[1]->start(1, {}, {&incoming, 1});
  EXPECT_TRUE(endpoints[1]->arrived());
  EXPECT_FALSE(endpoints[0]->over());
  EXPECT_EQ(endpoints[1]->message(0).data(), bytes.data());
  endpoints[1]->finish();
  EXPECT_TRUE(endpoints[0]->over());
  EXPECT_TRUE(endpoints[1]->over());
}

TEST(ThreadCommunicator, DoesNotTakeAnEarlierDoorbellForANewOne) {
  Endpoints endpoints = make_thread_communicators(2);
  const Bytes bytes(1);
  const OutgoingMessage outgoing = {.to = DeviceId{1}, .bytes = bytes};
  const std::uint32_t before = endpoints[1]->events();
  endpoints[0]->start(1, {&outgoing, 1}, {});
  endpoints[1]->wait(before);  // Returns at once.
  EXPECT_NE(endpoints[1]->events(), before);
}

TEST(ThreadCommunicator, AbortWakesEverybody) {
  for (int repetition = 0; repetition < 200; ++repetition) {
    constexpr std::uint32_t kDevices = 6;
    Endpoints endpoints = make_thread_communicators(kDevices);
    std::latch all_there(kDevices);
    on_all(endpoints, [&](std::uint32_t self, Communicator& comm) {
      all_there.arrive_and_wait();
      if (self == 0) {
        comm.abort();
        return;
      }
      // From one that will never send.
      const IncomingMessage incoming = {.from = DeviceId{0}, .size = 1};
      comm.start(1, {}, {&incoming, 1});
      wait_until(comm, [&] { return comm.arrived(); });
      EXPECT_TRUE(comm.aborted());
      EXPECT_FALSE(comm.arrived());
    });
  }
}

TEST(ThreadCommunicatorDeathTest, StopsAtAMessageThatIsNotTheExpectedOne) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Endpoints endpoints = make_thread_communicators(2);
  const Bytes bytes(8);
  const OutgoingMessage outgoing = {.to = DeviceId{1}, .bytes = bytes};
  const IncomingMessage incoming = {.from = DeviceId{0}, .size = 4};
  endpoints[0]->start(1, {&outgoing, 1}, {});
  endpoints[1]->start(1, {}, {&incoming, 1});
  ASSERT_TRUE(endpoints[1]->arrived());
  EXPECT_DEATH((void)endpoints[1]->message(0), "disagree");
}

}  // namespace
}  // namespace weir
