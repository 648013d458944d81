#pragma once
// How long a thread that waits for another keeps its core awake before it sleeps.
//
// Waking a core takes some 60 microseconds, so short waits are better spent awake. Between two
// looks the core is given away, which costs nothing where nobody wants it. Where others do, it is
// the long waits that hurt: the scheduler takes who has only yielded for one that has had its
// share, and lets it wait for whole turns of others when its message is there. Four stages of a
// pipeline on two cores beside two compilers took 2.3 ms a token with waits of 1 ms awake, and 4 to
// 5 ms with 3 or 10.

#include <chrono>
#include <thread>

namespace weir {

class Patience {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::duration kUsual = std::chrono::milliseconds(1);

  // `looks` without a pause come first; then `longest` in all.
  explicit Patience(int looks, Clock::duration longest = kUsual)
      : looks_left_(looks), longest_(longest) {}

  // Between two looks at what is waited for: false when it is time to sleep.
  bool pause() {
    if (looks_left_ > 0) {
      --looks_left_;
      return true;
    }
    if (since_ == Clock::time_point{}) since_ = Clock::now();
    std::this_thread::yield();
    waited_ = Clock::now() - since_;
    return waited_ < longest_;
  }

  // Since the first pause after the looks, until the last.
  [[nodiscard]] Clock::duration waited() const { return waited_; }

 private:
  int looks_left_;
  Clock::duration longest_;
  Clock::time_point since_;
  Clock::duration waited_{};
};

}  // namespace weir
