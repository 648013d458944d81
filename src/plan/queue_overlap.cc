#include "plan/queue_overlap.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace weir {
namespace {

std::int32_t running(std::int32_t task) { return 2 * task + 1; }
std::int32_t ended(std::int32_t task) { return 2 * task + 2; }

// Sums over a row of states, with additions to ranges and the largest of a range.
class RangeMaximum {
 public:
  explicit RangeMaximum(std::int32_t size)
      : leaves_(std::bit_ceil(static_cast<std::uint32_t>(size))), nodes_(2 * leaves_) {}

  void add(std::int32_t begin, std::int32_t end, std::int64_t bytes) {
    add(1, 0, static_cast<std::int32_t>(leaves_), {begin, end}, bytes);
  }

  struct Largest {
    std::int64_t bytes = std::numeric_limits<std::int64_t>::min();
    std::int32_t place = 0;
  };
  [[nodiscard]] Largest largest(std::int32_t begin, std::int32_t end) const {
    return largest(1, 0, static_cast<std::int32_t>(leaves_), {begin, end});
  }

 private:
  struct Node {
    std::int64_t added = 0;   // To the whole range of the node.
    std::int64_t most = 0;    // `added` included.
    std::int32_t place = -1;  // Of `most`; -1: the range's first.
  };
  struct Span {
    std::int32_t begin = 0;
    std::int32_t end = 0;
  };

  void add(std::size_t n, std::int32_t begin, std::int32_t end, Span span, std::int64_t bytes) {
    if (span.end <= begin || end <= span.begin) return;
    if (span.begin <= begin && end <= span.end) {
      nodes_[n].added += bytes;
      nodes_[n].most += bytes;
      return;
    }
    const std::int32_t middle = begin + (end - begin) / 2;
    add(2 * n, begin, middle, span, bytes);
    add(2 * n + 1, middle, end, span, bytes);
    const Node& left = nodes_[2 * n];
    const Node& right = nodes_[2 * n + 1];
    const bool is_right = right.most > left.most;
    const Node& more = is_right ? right : left;
    nodes_[n].most = nodes_[n].added + more.most;
    nodes_[n].place = more.place >= 0 ? more.place : (is_right ? middle : begin);
  }

  [[nodiscard]] Largest largest(std::size_t n, std::int32_t begin, std::int32_t end,
                                Span span) const {
    if (span.end <= begin || end <= span.begin) return {};
    const Node& node = nodes_[n];
    if (span.begin <= begin && end <= span.end)
      return {.bytes = node.most, .place = node.place >= 0 ? node.place : begin};
    const std::int32_t middle = begin + (end - begin) / 2;
    const Largest left = largest(2 * n, begin, middle, span);
    const Largest right = largest(2 * n + 1, middle, end, span);
    Largest more = right.bytes > left.bytes ? right : left;
    more.bytes += node.added;
    return more;
  }

  std::size_t leaves_;
  std::vector<Node> nodes_;  // Children of n are 2 n and 2 n + 1.
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
    for (const Lifetime& buffer : device_.buffers) add(buffer);
    std::ranges::stable_sort(changes_, {}, &Change::compute);
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
      const auto here = alive.largest(compute_needs[state], comm_end);
      if (here.bytes <= most) continue;
      most = here.bytes;
      fullest = {.compute = compute, .comm = here.place};
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
