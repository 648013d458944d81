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

using TimedWork = std::function<void()>;

class Stopwatch {
 public:
  Stopwatch() = default;
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  virtual ~Stopwatch() = default;
  // For each of `works`: waits until all devices have come this far, then has it done again and
  // again, and keeps the median time of one go in seconds. What the first go has to set up is not
  // timed. All works take their turns several times, and the median turn of each counts: a machine
  // that is slow for a second in three, as one that shares its cores with others is, is not so for
  // all of one work and none of the next.
  virtual void time(std::span<const TimedWork> works) = 0;
  void time(const TimedWork& work) { time({&work, 1}); }
};

// How long one timing lasts at least: enough for a median that a disturbance does not move. One of
// no seconds is a few goes, once: rough, and quick.
inline constexpr double kUsualSeconds = 0.03;

class DeviceTeams {
 public:
  // The operating system's CPU numbers of each device; empty: one thread that is not pinned.
  explicit DeviceTeams(std::span<const std::vector<int>> cores,
                       double least_seconds = kUsualSeconds);

  [[nodiscard]] std::int64_t num_devices() const {
    return static_cast<std::int64_t>(teams_.size());
  }
  // Devices are alike.
  [[nodiscard]] std::int64_t cores_per_device() const { return teams_.front()->size(); }
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
