#include "plan/queue_overlap.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "base/random.h"

namespace weir {
namespace {

std::int64_t bytes_at(const DeviceLifetimes& device, QueueState state) {
  std::int64_t bytes = 0;
  for (const Lifetime& buffer : device.buffers) bytes += is_alive(buffer, state) ? buffer.bytes : 0;
  return bytes;
}

// Every state that the two queues reach together, by walking from one to the next.
std::vector<QueueState> reachable(const DeviceLifetimes& device) {
  const auto may_enter = [](const std::vector<std::int32_t>& after, std::int32_t state,
                            std::int32_t other) {
    if (state % 2 == 0) return true;  // A task ends.
    const std::int32_t needed = after[static_cast<std::size_t>(state / 2)];
    return needed < 0 || other >= 2 * needed + 2;
  };
  const auto num_compute = 2 * static_cast<std::int32_t>(device.compute_after_comm.size());
  const auto num_comm = 2 * static_cast<std::int32_t>(device.comm_after_compute.size());
  std::vector<QueueState> states = {{}};
  for (std::size_t i = 0; i < states.size(); ++i) {
    const QueueState now = states[i];
    for (const QueueState next :
         {QueueState{now.compute + 1, now.comm}, QueueState{now.compute, now.comm + 1}}) {
      if (next.compute > num_compute || next.comm > num_comm) continue;
      if (next.compute > now.compute &&
          !may_enter(device.compute_after_comm, next.compute, now.comm))
        continue;
      if (next.comm > now.comm && !may_enter(device.comm_after_compute, next.comm, now.compute))
        continue;
      if (std::ranges::find(states, next) == states.end()) states.push_back(next);
    }
  }
  return states;
}

// Tasks are drawn in one order of both queues, so that no two wait for each other.
DeviceLifetimes random_device(Random& random) {
  DeviceLifetimes device;
  const std::int64_t tasks = random.integer(1, 16);
  for (std::int64_t t = 0; t < tasks; ++t) {
    const bool comm = random.integer(0, 2) == 0;
    auto& own = comm ? device.comm_after_compute : device.compute_after_comm;
    const auto others = static_cast<std::int64_t>(
        (comm ? device.compute_after_comm : device.comm_after_compute).size());
    const auto place = static_cast<std::int32_t>(own.size());
    own.push_back(
        random.integer(0, 1) == 0 ? -1 : static_cast<std::int32_t>(random.integer(-1, others - 1)));
    device.buffers.push_back({.queue = comm ? Queue::comm : Queue::compute,
                              .writer = place,
                              .bytes = random.integer(1, 100)});
  }
  // A reader of the writer's queue comes behind it; one of the other waits for it.
  for (Lifetime& buffer : device.buffers) {
    const bool by_comm = buffer.queue == Queue::comm;
    const auto& own = by_comm ? device.comm_after_compute : device.compute_after_comm;
    const auto& other = by_comm ? device.compute_after_comm : device.comm_after_compute;
    std::int32_t& last_own = by_comm ? buffer.last_comm : buffer.last_compute;
    std::int32_t& last_other = by_comm ? buffer.last_compute : buffer.last_comm;
    last_own = static_cast<std::int32_t>(random.integer(buffer.writer, std::ssize(own) - 1));
    std::int32_t reached = -1;
    for (std::size_t i = 0; i < other.size(); ++i) {
      reached = std::max(reached, other[i]);
      if (reached >= buffer.writer && random.integer(0, 2) == 0)
        last_other = static_cast<std::int32_t>(i);
    }
    if (last_other >= 0 && random.integer(0, 1) == 0) last_own = -1;
  }
  return device;
}

TEST(QueueOverlap, FindsTheFullestOfAllReachableStates) {
  int beside = 0;
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    Random random(seed);
    const DeviceLifetimes device = random_device(random);
    const std::vector<QueueState> states = reachable(device);
    const QueueState found = fullest_state(device);
    EXPECT_NE(std::ranges::find(states, found), states.end()) << "seed " << seed;
    std::int64_t most = 0;
    for (const QueueState state : states) most = std::max(most, bytes_at(device, state));
    EXPECT_EQ(bytes_at(device, found), most) << "seed " << seed;
    beside += found.compute % 2 == 1 && found.comm % 2 == 1 ? 1 : 0;
  }
  EXPECT_GT(beside, 50) << "tasks of both queues run side by side";
}

TEST(QueueOverlap, ATransferBehindComputeKeepsWhatItSends) {
  // compute: a, b, c; comm: s, which sends a's output.
  const Lifetime a = {.queue = Queue::compute, .writer = 0, .last_comm = 0, .bytes = 10};
  const Lifetime b = {.queue = Queue::compute, .writer = 1, .last_compute = 2, .bytes = 20};
  const Lifetime sent = {.queue = Queue::comm, .writer = 0, .last_compute = 2, .bytes = 5};
  DeviceLifetimes device = {
      .compute_after_comm = {-1, -1, 0}, .comm_after_compute = {0}, .buffers = {a, b, sent}};
  EXPECT_EQ(bytes_at(device, fullest_state(device)), 35) << "s is slow: all three beside b";
  device.compute_after_comm = {-1, 0, 0};  // b waits for s.
  EXPECT_EQ(bytes_at(device, fullest_state(device)), 25);
}

TEST(QueueOverlap, ADeviceWithoutTasksHoldsNothing) { EXPECT_EQ(fullest_state({}), QueueState{}); }

}  // namespace
}  // namespace weir
