#include "measure/device_teams.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <thread>

#include "base/check.h"

namespace weir {
namespace {

using Clock = std::chrono::steady_clock;
using SecondsCount = std::chrono::duration<double>;

constexpr std::size_t kLeastSamples = 7;
// A sample is at least so long, so that reading the clock does not count.
constexpr double kLeastSample = 20e-6;

double seconds_of(const std::function<void()>& work, int goes) {
  const auto start = Clock::now();
  for (int go = 0; go < goes; ++go) work();
  return SecondsCount(Clock::now() - start).count();
}

class BarrierStopwatch final : public Stopwatch {
 public:
  BarrierStopwatch(std::barrier<>& barrier, double least_seconds, std::vector<double>& times)
      : barrier_(barrier), least_seconds_(least_seconds), times_(times) {}

  void time(const std::function<void()>& work) override {
    work();
    const double once = seconds_of(work, 1);
    const int goes = static_cast<int>(std::clamp(kLeastSample / std::max(once, 1e-9), 1.0, 1e4));
    barrier_.arrive_and_wait();
    std::vector<double> samples;
    for (double total = 0; total < least_seconds_ || samples.size() < kLeastSamples;) {
      const double sample = seconds_of(work, goes);
      samples.push_back(sample / goes);
      total += sample;
    }
    times_.push_back(median(std::move(samples)));
  }

 private:
  std::barrier<>& barrier_;
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
  std::barrier<> barrier(static_cast<std::ptrdiff_t>(teams_.size()));
  std::vector<std::vector<double>> times(teams_.size());
  {
    std::vector<std::jthread> threads;
    for (std::size_t device = 0; device < teams_.size(); ++device) {
      threads.emplace_back([&, device] {
        teams_[device]->pin_caller();
        BarrierStopwatch watch(barrier, least_seconds_, times[device]);
        body(*teams_[device], watch);
      });
    }
  }
  std::vector<double> medians;
  for (std::size_t i = 0; i < times.front().size(); ++i) {
    std::vector<double> of_devices;
    for (const std::vector<double>& device : times) of_devices.push_back(device.at(i));
    medians.push_back(median(std::move(of_devices)));
  }
  return medians;
}

}  // namespace weir
