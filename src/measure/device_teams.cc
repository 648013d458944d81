#include "measure/device_teams.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <ctime>
#include <thread>

#include "base/check.h"

namespace weir {
namespace {

using Clock = std::chrono::steady_clock;
using SecondsCount = std::chrono::duration<double>;

constexpr int kTurns = 3;
constexpr std::size_t kLeastSamples = 3;  // In a turn; one if it is quick.
// A sample is at least so long, so that reading the clock does not count.
constexpr double kLeastSample = 20e-6;

double seconds_of(const TimedWork& work, int goes) {
  const auto start = Clock::now();
  for (int go = 0; go < goes; ++go) work();
  return SecondsCount(Clock::now() - start).count();
}

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  constexpr double kNanosecond = 1e-9;
  return static_cast<double>(time.tv_sec) + kNanosecond * static_cast<double>(time.tv_nsec);
}

// What all devices of one measurement share.
struct Meeting {
  explicit Meeting(std::size_t devices)
      : barrier(static_cast<std::ptrdiff_t>(devices)), shares(devices) {}

  std::barrier<> barrier;
  std::vector<double> shares;  // Of a core that each device had in the last go.
};

class MeetingStopwatch final : public Stopwatch {
 public:
  MeetingStopwatch(Meeting& meeting, std::size_t device, double least_seconds,
                   std::vector<double>& times)
      : meeting_(meeting), device_(device), least_seconds_(least_seconds), times_(times) {}

  void time(std::span<const TimedWork> works) override {
    const int turns = least_seconds_ > 0 ? kTurns : 1;
    std::vector<std::vector<double>> times(works.size());
    for (int turn = 0; turn < turns; ++turn) {
      for (std::size_t i = 0; i < works.size(); ++i) times[i].push_back(time_turn(works[i], turns));
    }
    for (std::vector<double>& of_work : times) times_.push_back(median(std::move(of_work)));
  }

 private:
  // A device that another program keeps off its core disturbs the others less than it should, so
  // such a go is repeated, and of several the least disturbed counts.
  double time_turn(const TimedWork& work, int turns) {
    constexpr double kUndisturbed = 0.97;
    const int most_goes = least_seconds_ > 0 ? 3 : 1;
    work();
    const double once = seconds_of(work, 1);
    const int in_sample =
        static_cast<int>(std::clamp(kLeastSample / std::max(once, 1e-9), 1.0, 1e4));
    double best_share = -1;
    double best_time = 0;
    for (int go = 0; go < most_goes && best_share < kUndisturbed; ++go) {
      meeting_.barrier.arrive_and_wait();
      const double result = sample(work, in_sample, least_seconds_ / turns);
      meeting_.barrier.arrive_and_wait();  // All shares are there, and are the same for everybody.
      const double share = *std::ranges::min_element(meeting_.shares);
      if (share <= best_share) continue;
      best_share = share;
      best_time = result;
    }
    return best_time;
  }

  double sample(const TimedWork& work, int in_sample, double least_seconds) {
    const auto start = Clock::now();
    const double start_cpu = thread_seconds();
    const std::size_t least_samples = least_seconds > 0 ? kLeastSamples : 1;
    std::vector<double> samples;
    for (double total = 0; total < least_seconds || samples.size() < least_samples;) {
      const double sample = seconds_of(work, in_sample);
      samples.push_back(sample / in_sample);
      total += sample;
    }
    const double wall = SecondsCount(Clock::now() - start).count();
    meeting_.shares[device_] = (thread_seconds() - start_cpu) / wall;
    return median(std::move(samples));
  }

  Meeting& meeting_;
  std::size_t device_;
  double least_seconds_;
  std::vector<double>& times_;
};

}  // namespace

double median(std::vector<double> values) {
  CHECK(!values.empty(), "a median is of something");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

DeviceTeams::DeviceTeams(std::span<const std::vector<int>> cores, double least_seconds)
    : least_seconds_(least_seconds) {
  for (const std::vector<int>& list : cores) {
    teams_.push_back(
        std::make_unique<Team>(std::max(1, static_cast<int>(list.size())), std::span(list)));
  }
}

std::vector<double> DeviceTeams::measure(
    const std::function<void(Team& team, Stopwatch& watch)>& body) {
  Meeting meeting(teams_.size());
  std::vector<std::vector<double>> times(teams_.size());
  {
    std::vector<std::jthread> threads;
    for (std::size_t device = 0; device < teams_.size(); ++device) {
      threads.emplace_back([&, device] {
        teams_[device]->pin_caller();
        MeetingStopwatch watch(meeting, device, least_seconds_, times[device]);
        body(*teams_[device], watch);
      });
    }
  }
  std::vector<double> medians;
  for (std::size_t i = 0; i < times.front().size(); ++i) {
    std::vector<double> of_devices;
    of_devices.reserve(times.size());
    for (const std::vector<double>& device : times) of_devices.push_back(device.at(i));
    medians.push_back(median(std::move(of_devices)));
  }
  return medians;
}

}  // namespace weir
