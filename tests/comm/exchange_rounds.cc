#include "tests/comm/exchange_rounds.h"

#include <random>
#include <span>

#include <gtest/gtest.h>

namespace weir {
namespace {

// What the byte at `i` of a message is.
std::byte content(std::size_t round, const Message& message, std::size_t i) {
  return static_cast<std::byte>(round * 7 + message.from * 31 + message.to * 5 + i);
}

}  // namespace

void wait_until(Communicator& communicator, const std::function<bool()>& done) {
  while (true) {
    const std::uint32_t seen = communicator.events();
    if (done() || communicator.aborted()) return;
    communicator.wait(seen);
  }
}

void take_part(std::size_t number, const Round& round, std::uint32_t self, Communicator& comm) {
  std::vector<std::vector<std::byte>> sent;
  std::vector<OutgoingMessage> outgoing;
  std::vector<IncomingMessage> incoming;
  std::vector<Message> expected;
  sent.reserve(round.size());
  for (const Message& message : round) {
    if (message.from == self) {
      auto& bytes = sent.emplace_back(message.size);
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

std::vector<Round> rounds_of_sizes(std::uint32_t devices, std::size_t largest) {
  std::vector<Round> rounds;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{64},
                                 std::size_t{4096}, std::size_t{1} << 20, largest}) {
    Round& round = rounds.emplace_back();
    for (std::uint32_t from = 0; from < devices; ++from)
      round.push_back({.from = from, .to = (from + 1) % devices, .size = size});
  }
  return rounds;
}

std::vector<Round> there_and_back() {
  return {{{.from = 0, .to = 1, .size = 1}}, {{.from = 1, .to = 0, .size = 1}}};
}

}  // namespace weir
