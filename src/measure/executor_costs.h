#pragma once
// What running a plan costs beside its kernels, measured on real runs of small models: starting a
// task, going on to the next step, handing data to another device.

#include <optional>

#include "base/result.h"
#include "base/units.h"
#include "exec/executor.h"
#include "result/timeline.h"
#include "spec/measured_transfers.h"

namespace weir {

// Between two devices: a message of next to nothing, and what large ones come to.
struct LinkCosts {
  Seconds latency;
  BytesPerSecond bandwidth;
};

// Of messages, or else of the exchanges of fewest members: the smallest's time for the latency, the
// rates of large ones.
[[nodiscard]] LinkCosts fit_link(const MeasuredTransfers& transfers);

// What lies between the tasks of two decode steps of the run's one request: the median, in seconds.
[[nodiscard]] double between_steps(const Timeline& timeline);

struct ExecutorCosts {
  Seconds task;  // From the end of a task to the end of the next that has next to nothing to do.
  // Beside the tasks of a step of one device: sampling, the next plan. Of one that takes
  // milliseconds, whose weights leave nothing else in the caches, and of a short one.
  Seconds step;
  Seconds short_step;
  // Without a second device, or where two share a core, there is nothing to measure.
  std::optional<MeasuredTransfers> transfers;
  std::optional<LinkCosts> link;  // What exchanges of two come to.
};

// `rounds`: of what passes between devices (transfer_times.h).
[[nodiscard]] Result<ExecutorCosts> measure_executor(const std::vector<ExecDevice>& devices,
                                                     int rounds = 1);

}  // namespace weir
