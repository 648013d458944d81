#pragma once
// Ends this process where the ranks have not all come together in time: one that is stopped before
// it takes part is known to nobody, and MPI waits for it without end.

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "comm/launch.h"
#include "comm/ranks.h"

namespace weir {

// While it lives, the time runs.
class StartGuard {
 public:
  StartGuard(const Launch& launch, std::string host, EndOfRun end);
  ~StartGuard();
  StartGuard(const StartGuard&) = delete;
  StartGuard& operator=(const StartGuard&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable joined_;
  bool is_joined_ = false;
  std::thread thread_;
};

}  // namespace weir
