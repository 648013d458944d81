#include <chrono>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "comm/communicator.h"

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

void wait_until(Communicator& communicator, const std::function<bool()>& done) {
  while (true) {
    const std::uint32_t seen = communicator.events();
    if (done() || communicator.aborted()) return;
    communicator.wait(seen);
  }
}

struct Message {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::size_t size = 0;
};
// Messages that are exchanged together; at most one for each ordered pair.
using Round = std::vector<Message>;

// What the byte at `i` of a message is.
std::byte content(std::size_t round, const Message& message, std::size_t i) {
  return static_cast<std::byte>(round * 7 + message.from * 31 + message.to * 5 + i);
}

// A device's part in a round: sends, receives, checks, finishes. Devices without a part go on.
void take_part(std::size_t number, const Round& round, std::uint32_t self, Communicator& comm) {
  std::vector<Bytes> sent;
  std::vector<OutgoingMessage> outgoing;
  std::vector<IncomingMessage> incoming;
  std::vector<Message> expected;
  sent.reserve(round.size());
  for (const Message& message : round) {
    if (message.from == self) {
      Bytes& bytes = sent.emplace_back(message.size);
      for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = content(number, message, i);
      outgoing.push_back({.to = DeviceId{message.to}, .bytes = bytes});
    }
    if (message.to == self) {
      incoming.push_back({.from = DeviceId{message.from}, .size = message.size});
      expected.push_back(message);
    }
  }
  if (outgoing.empty() && incoming.empty()) return;
  comm.start(number, outgoing, incoming);
  wait_until(comm, [&] { return comm.arrived(); });
  for (std::size_t m = 0; m < expected.size(); ++m) {
    const std::span<const std::byte> bytes = comm.message(m);
    ASSERT_EQ(bytes.size(), expected[m].size);
    bool same = true;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      same = same && bytes[i] == content(number, expected[m], i);
    EXPECT_TRUE(same) << "round " << number;
  }
  comm.finish();
  wait_until(comm, [&] { return comm.over(); });
}

// Rounds between random devices, mostly of small messages.
std::vector<Round> random_rounds(std::uint32_t devices, std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  std::vector<Round> rounds(count);
  for (Round& round : rounds) {
    const std::size_t chance = 1 + below(4);
    for (std::uint32_t from = 0; from < devices; ++from) {
      for (std::uint32_t to = 0; to < devices; ++to) {
        if (from == to || below(4) >= chance) continue;
        round.push_back({.from = from, .to = to, .size = below(200)});
      }
    }
  }
  return rounds;
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
  std::vector<Round> rounds;
  for (const std::size_t size : {0, 1, 63, 64, 4096, 1 << 20}) {
    Round& round = rounds.emplace_back();
    for (std::uint32_t from = 0; from < GetParam(); ++from)
      round.push_back({.from = from, .to = (from + 1) % GetParam(), .size = size});
  }
  run_rounds(GetParam(), rounds);
}

INSTANTIATE_TEST_SUITE_P(Devices, ThreadCommunicators, testing::Values(2, 3, 5, 8));

// Each waits for the other alone, thousands of times: a wake-up that is lost would end it here.
TEST(ThreadCommunicator, LosesNoWakeUp) {
  constexpr std::size_t kTurns = 20000;
  const std::vector<Round> there_and_back = {{{.from = 0, .to = 1, .size = 1}},
                                             {{.from = 1, .to = 0, .size = 1}}};
  Endpoints endpoints = make_thread_communicators(2);
  on_all(endpoints, [&](std::uint32_t self, Communicator& comm) {
    for (std::size_t turn = 0; turn < kTurns; ++turn)
      take_part(turn, there_and_back[turn % 2], self, comm);
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
