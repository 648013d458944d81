#include "comm/start_guard.h"

#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "comm/rank_watch.h"

namespace weir {
namespace {

// MPI starts within tenths of a second; ranks that share a busy core take longer.
constexpr std::chrono::seconds kForStarting{30};

}  // namespace

StartGuard::StartGuard(const Launch& launch, std::string host, EndOfRun end)
    : thread_([this, launch, host = std::move(host), end = std::move(end)] {
        std::unique_lock lock(mutex_);
        if (joined_.wait_for(lock, kForStarting + turn_to_speak(launch.rank),
                             [this] { return is_joined_; }))
          return;
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
