#pragma once
// How to wait for something that only polling shows.
//
// MPI wakes nobody: a message is noticed by whoever asks for it. Asking without a pause is what
// MPI's own blocking calls do; where ranks share cores it takes the core from the very rank that is
// waited for. So: ask at full speed for as long as a small message between busy ranks takes, then
// give the core away between two looks, which costs nothing where nobody wants it, and in the end
// sleep for a few percent of what the wait has lasted, so that a long wait costs little of a core
// and grows by little.

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/patience.h"

namespace weir {

class BackOff {
 public:
  // Between two looks.
  void pause() {
    if (patience_.pause()) return;
    std::this_thread::sleep_for(std::clamp<Duration>(patience_.waited() / 32, kNap, kLongestNap));
  }

 private:
  using Duration = Patience::Clock::duration;
  // A look at MPI takes 0.1 to 0.5 microseconds, a small message between two cores about 1.
  static constexpr int kLooks = 50;
  static constexpr Duration kAwake = std::chrono::milliseconds(2);
  static constexpr Duration kNap = std::chrono::microseconds(50);
  static constexpr Duration kLongestNap = std::chrono::milliseconds(1);

  Patience patience_{kLooks, kAwake};
};

}  // namespace weir
