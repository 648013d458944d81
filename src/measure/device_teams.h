#pragma once
// Times work on all devices of this machine at the same time, each on its own cores, as they run in
// earnest: what cores share (memory, the last cache, their power) is shared while it is measured.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernel/team.h"

namespace weir {

class Stopwatch {
 public:
  Stopwatch() = default;
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  virtual ~Stopwatch() = default;
  // Waits until all devices have come this far, then has `work` done again and again, and keeps the
  // median time of one go in seconds. What the first go has to set up is not timed.
  virtual void time(const std::function<void()>& work) = 0;
};

// How long one timing lasts at least: enough for a median that a disturbance does not move.
inline constexpr double kUsualSeconds = 0.03;

class DeviceTeams {
 public:
  // The operating system's CPU numbers of each device; empty: one thread that is not pinned.
  explicit DeviceTeams(std::span<const std::vector<int>> cores,
                       double least_seconds = kUsualSeconds);

  [[nodiscard]] std::int64_t num_devices() const {
    return static_cast<std::int64_t>(teams_.size());
  }
  // Every device runs `body` on a thread of its own; all must time as often. Returns each timing in
  // order, of the median device.
  [[nodiscard]] std::vector<double> measure(
      const std::function<void(Team& team, Stopwatch& watch)>& body);

 private:
  double least_seconds_;
  std::vector<std::unique_ptr<Team>> teams_;
};

[[nodiscard]] double median(std::vector<double> values);

}  // namespace weir
