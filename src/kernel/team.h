#pragma once
// A device on a CPU is a group of cores. A Team is that group: the calling thread and size()-1
// helpers that wait for work.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include <sched.h>

namespace weir {

class Team {
 public:
  // `cores` are operating-system CPU numbers to pin to, one per worker; empty: not pinned. size
  // >= 1. The calling thread is worker 0 and is pinned only by `pin_caller`.
  explicit Team(int size, std::span<const int> cores = {});
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  [[nodiscard]] int size() const { return size_; }
  // Runs task(worker) for worker = 0..size-1, one per core, and returns when all have ended. Must
  // be called from one thread at a time; a task must not call run() of its own team.
  void run(const std::function<void(int worker)>& task);
  // Splits [0, count) into contiguous parts of nearly equal size, each a multiple of `grain` but
  // for the last.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t begin, std::int64_t end)>& body);
  void pin_caller();

 private:
  struct State;
  int size_;
  std::unique_ptr<State> state_;
};

// While it lives, the thread that made it runs on one core; afterwards where it could before. That
// thread has to end it. Pinning and unpinning take some 10 us.
class PinnedThread {
 public:
  // nullopt, and a core that does not exist: changes nothing.
  explicit PinnedThread(std::optional<int> core);
  ~PinnedThread();
  PinnedThread(const PinnedThread&) = delete;
  PinnedThread& operator=(const PinnedThread&) = delete;

 private:
  std::optional<cpu_set_t> before_;
};

}  // namespace weir
