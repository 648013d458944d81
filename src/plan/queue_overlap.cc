#include "plan/queue_overlap.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>

namespace weir {
namespace {

std::int32_t running(std::int32_t task) { return 2 * task + 1; }
std::int32_t ended(std::int32_t task) { return 2 * task + 2; }

// Bytes at a row of states, with additions to ranges and the largest of a range: a tree over their
// differences, in which an addition from a state on to the last is one change.
class RangeMaximum {
 public:
  explicit RangeMaximum(std::int32_t size)
      : size_(size), leaves_(std::bit_ceil(static_cast<std::size_t>(size))), nodes_(2 * leaves_) {}

  void add(std::int32_t begin, std::int32_t end, std::int64_t bytes) {
    change(begin, bytes);
    if (end < size_) change(end, -bytes);
  }

  // Not of an empty range.
  [[nodiscard]] std::int64_t largest(std::int32_t begin, std::int32_t end) const {
    std::size_t left = leaf(begin);
    std::size_t right = leaf(end);
    Sums of_left = kNothing;
    Sums of_right = kNothing;
    for (; left < right; left /= 2, right /= 2) {
      if (left % 2 == 1) of_left = joined(of_left, nodes_[left++]);
      if (right % 2 == 1) of_right = joined(nodes_[--right], of_right);
    }
    std::int64_t before = 0;  // The bytes at the state before `begin`.
    for (std::size_t n = leaf(begin); n > 1; n /= 2) {
      if (n % 2 == 1) before += nodes_[n - 1].total;
    }
    return before + joined(of_left, of_right).most;
  }

  // The first place of the range that has `most`, its largest.
  [[nodiscard]] std::int32_t place_of(std::int64_t most, std::int32_t begin,
                                      std::int32_t end) const {
    std::int32_t first = begin;
    for (std::int32_t last = end - 1; first < last;) {
      const std::int32_t middle = first + (last - first) / 2;
      if (largest(begin, middle + 1) == most) {
        last = middle;
      } else {
        first = middle + 1;
      }
    }
    return first;
  }

 private:
  // Of differences side by side: all together, and the largest sum of their first few.
  struct Sums {
    std::int64_t total = 0;
    std::int64_t most = 0;
  };
  static constexpr Sums kNothing = {.total = 0,
                                    .most = std::numeric_limits<std::int64_t>::min() / 2};

  static Sums joined(const Sums& left, const Sums& right) {
    return {.total = left.total + right.total,
            .most = std::max(left.most, left.total + right.most)};
  }
  [[nodiscard]] std::size_t leaf(std::int32_t place) const {
    return leaves_ + static_cast<std::size_t>(place);
  }
  void change(std::int32_t place, std::int64_t bytes) {
    std::size_t n = leaf(place);
    nodes_[n].total += bytes;
    nodes_[n].most += bytes;
    while ((n /= 2) > 0) nodes_[n] = joined(nodes_[2 * n], nodes_[2 * n + 1]);
  }

  std::int32_t size_;
  std::size_t leaves_;
  std::vector<Sums> nodes_;  // Children of n are 2 n and 2 n + 1.
};

// A buffer's states as rectangles: compute from `begin` on, comm in [comm_begin, comm_end).
struct Change {
  std::int32_t compute = 0;
  std::int32_t comm_begin = 0;
  std::int32_t comm_end = 0;
  std::int64_t bytes = 0;
};

class Sweeper {
 public:
  explicit Sweeper(const DeviceLifetimes& device)
      : device_(device),
        num_compute_(2 * static_cast<std::int32_t>(device.compute_after_comm.size()) + 1),
        num_comm_(2 * static_cast<std::int32_t>(device.comm_after_compute.size()) + 1) {}

  // Walks the compute queue; the states of the other that go with each of its states are a range
  // whose ends only grow.
  QueueState run() {
    changes_.reserve(2 * device_.buffers.size());  // Twice that where both queues read.
    for (const Lifetime& buffer : device_.buffers) add(buffer);
    std::ranges::sort(changes_, {}, &Change::compute);
    RangeMaximum alive(num_comm_);
    const std::vector<std::int32_t> comm_needs = needs(device_.comm_after_compute, num_comm_);
    const std::vector<std::int32_t> compute_needs = needs(device_.compute_after_comm, num_compute_);
    std::size_t next = 0;
    std::int32_t comm_end = 0;
    std::int64_t most = -1;
    QueueState fullest;
    for (std::int32_t compute = 0; compute < num_compute_; ++compute) {
      for (; next < changes_.size() && changes_[next].compute == compute; ++next) {
        const Change& change = changes_[next];
        alive.add(change.comm_begin, change.comm_end, change.bytes);
      }
      while (comm_end < num_comm_ && comm_needs[static_cast<std::size_t>(comm_end)] <= compute)
        ++comm_end;
      // Between two tasks nothing is alive that is not while the next one runs.
      const auto state = static_cast<std::size_t>(compute);
      const bool between = compute % 2 == 0 && compute + 1 < num_compute_;
      if (between && compute_needs[state] == compute_needs[state + 1]) continue;
      if (compute_needs[state] >= comm_end) continue;  // Never reached.
      const std::int64_t here = alive.largest(compute_needs[state], comm_end);
      if (here <= most) continue;
      most = here;
      fullest = {.compute = compute, .comm = alive.place_of(here, compute_needs[state], comm_end)};
    }
    return fullest;
  }

 private:
  // By state of a queue: the state that the other must have reached. Never falls.
  static std::vector<std::int32_t> needs(const std::vector<std::int32_t>& after,
                                         std::int32_t num_states) {
    std::vector<std::int32_t> states(static_cast<std::size_t>(num_states), 0);
    for (std::size_t task = 0; task < after.size(); ++task) {
      const std::int32_t before = states[2 * task];
      const std::int32_t need = after[task] < 0 ? 0 : ended(after[task]);
      states[2 * task + 1] = states[2 * task + 2] = std::max(before, need);
    }
    return states;
  }

  // Alive from the writer's start until the last readers of both queues have ended: while compute
  // has not reached the end of its own, whatever comm does; after that while comm has not.
  void add(const Lifetime& buffer) {
    const bool by_compute = buffer.queue == Queue::compute;
    const std::int32_t from = by_compute ? running(buffer.writer) : 0;
    const std::int32_t comm_from = by_compute ? 0 : running(buffer.writer);
    const std::int32_t until =
        std::max(from, buffer.last_compute < 0 ? 0 : ended(buffer.last_compute));
    const std::int32_t comm_until = buffer.last_comm < 0 ? 0 : ended(buffer.last_comm);
    add(from, until, comm_from, num_comm_, buffer.bytes);
    add(until, num_compute_, comm_from, comm_until, buffer.bytes);
  }

  void add(std::int32_t begin, std::int32_t end, std::int32_t comm_begin, std::int32_t comm_end,
           std::int64_t bytes) {
    if (begin >= end || comm_begin >= comm_end) return;
    changes_.push_back(
        {.compute = begin, .comm_begin = comm_begin, .comm_end = comm_end, .bytes = bytes});
    changes_.push_back(
        {.compute = end, .comm_begin = comm_begin, .comm_end = comm_end, .bytes = -bytes});
  }

  const DeviceLifetimes& device_;
  std::int32_t num_compute_;  // States.
  std::int32_t num_comm_;
  std::vector<Change> changes_;
};

}  // namespace

bool is_alive(const Lifetime& buffer, QueueState state) {
  const std::int32_t writer = buffer.queue == Queue::compute ? state.compute : state.comm;
  const bool written = writer >= running(buffer.writer);
  const bool read = (buffer.last_compute < 0 || state.compute >= ended(buffer.last_compute)) &&
                    (buffer.last_comm < 0 || state.comm >= ended(buffer.last_comm));
  return written && !read;
}

QueueState fullest_state(const DeviceLifetimes& device) { return Sweeper(device).run(); }

}  // namespace weir
