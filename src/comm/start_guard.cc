#include "comm/start_guard.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "comm/rank_watch.h"

namespace weir {
namespace {

// MPI starts within tenths of a second; ranks that share a busy core take longer.
constexpr std::chrono::seconds kForStarting{30};
// Time passes in steps, so that a pause of this process does not count: others may have been
// stopped with it, and one that a launcher wakes to end it has nothing to say.
constexpr std::chrono::seconds kStep{1};

}  // namespace

StartGuard::StartGuard(const Launch& launch, std::string host, EndOfRun end)
    : thread_([this, launch, host = std::move(host), end = std::move(end)] {
        std::unique_lock lock(mutex_);
        // Rank 0's exit ends the others, so that it speaks alone.
        std::chrono::nanoseconds left = kForStarting + turn_to_speak(launch.rank + 1);
        while (left > std::chrono::nanoseconds{}) {
          const auto before = std::chrono::steady_clock::now();
          if (joined_.wait_for(lock, kStep, [this] { return is_joined_; })) return;
          left -= std::min<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - before,
                                                     2 * kStep);
        }
        end(Error{
            ErrorKind::run_failed,
            fmt::format("rank {} on host {}: found not all {} ranks there after {} s, allowed "
                        "a start without a rank that hangs",
                        launch.rank, host, launch.size, kForStarting.count())});
      }) {}

StartGuard::~StartGuard() {
  {
    const std::lock_guard lock(mutex_);
    is_joined_ = true;
  }
  joined_.notify_one();
  thread_.join();
}

}  // namespace weir
