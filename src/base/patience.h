#pragma once
// How long a thread that waits for another keeps its core awake before it sleeps.
//
// A core that nobody else wants costs nothing to keep awake, and waking it takes some 60
// microseconds: too much for a stage of a pipeline that waits a millisecond for the one before.
// (The runtimes of OpenMP wait 100 to 200 ms.) Where there are more threads than cores it is the
// other way round: the core of one that waits is what the one that is waited for needs, and waking
// a core that is at work costs next to nothing. Yielding tells one from the other: it returns at
// once, or after others have had their turn.

#include <chrono>
#include <thread>

namespace weir {

class Patience {
 public:
  using Clock = std::chrono::steady_clock;
  // Long enough that waking afterwards is lost in the wait (0.6%).
  static constexpr Clock::duration kLongest = std::chrono::milliseconds(10);

  // `looks` without a pause come first. A core that others want is kept for `kept_from_others` in
  // all.
  explicit Patience(int looks, Clock::duration kept_from_others = {})
      : looks_left_(looks), kept_from_others_(kept_from_others) {}

  // Between two looks at what is waited for: false when it is time to sleep.
  bool pause() {
    if (looks_left_ > 0) {
      --looks_left_;
      return true;
    }
    const Clock::time_point before = Clock::now();
    if (since_ == Clock::time_point{}) since_ = before;
    std::this_thread::yield();
    const Clock::time_point now = Clock::now();
    wanted_ = wanted_ || now - before > kTurn;
    waited_ = now - since_;
    return waited_ < (wanted_ ? kept_from_others_ : kLongest);
  }

  // Since the first pause after the looks, until the last.
  [[nodiscard]] Clock::duration waited() const { return waited_; }

 private:
  // A yield takes 0.2 to 0.5 us where nobody wants the core; turns are milliseconds.
  static constexpr Clock::duration kTurn = std::chrono::microseconds(200);

  int looks_left_;
  Clock::duration kept_from_others_;
  Clock::time_point since_;
  Clock::duration waited_{};
  bool wanted_ = false;
};

}  // namespace weir
