#pragma once
// What running a plan costs beside its kernels, measured on real runs of small models: starting a
// task, going on to the next step, handing data to another device.

#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/units.h"
#include "exec/executor.h"
#include "result/timeline.h"

namespace weir {

// Between two devices: a message of next to nothing, and what large ones come to.
struct LinkCosts {
  Seconds latency;
  BytesPerSecond bandwidth;
};

// From times in seconds by bytes: the least for the latency, the rates of large ones.
[[nodiscard]] LinkCosts fit_link(const std::map<std::int64_t, double>& times);

// What lies between the tasks of two decode steps of the run's one request: the median, in seconds.
[[nodiscard]] double between_steps(const Timeline& timeline);

// What is known to have taken `seconds`: so many messages one after the other, and so many bytes.
struct LinkObservation {
  double messages = 1;
  double bytes = 0;
  double seconds = 0;
};
// The costs that come nearest to all observations: the sum of the errors, in proportion, is least,
// so a few that were disturbed do not count. There must be one, and no time may be 0.
[[nodiscard]] LinkCosts fit_link(std::span<const LinkObservation> observations);

struct ExecutorCosts {
  Seconds task;  // From the end of a task to the end of the next that has next to nothing to do.
  // Beside the tasks of a step: waking the devices, sampling, the next plan. Of one that takes
  // longer than Executor::kSpinTime, so that its end is slept through, and of a shorter one.
  Seconds step;
  Seconds short_step;
  // Without a second device, or where two share a core, there is nothing to measure.
  std::optional<LinkCosts> link;
};

[[nodiscard]] Result<ExecutorCosts> measure_executor(const std::vector<ExecDevice>& devices);

}  // namespace weir
