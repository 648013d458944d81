#pragma once
// What running a plan costs beside its kernels, measured on real runs of small models: starting a
// task, going on to the next step, handing data to another device.

#include "base/result.h"
#include "base/units.h"
#include "exec/executor.h"

namespace weir {

struct ExecutorCosts {
  Seconds task;  // From the end of a task to the end of the next that has next to nothing to do.
  // Beside the tasks of a step: waking the devices, sampling, the next plan. Of one that takes
  // longer than Executor::kSpinTime, so that its end is slept through, and of a shorter one.
  Seconds step;
  Seconds short_step;
  // Between two devices: a message of next to nothing, and what large ones come to. Without a
  // second device, or where two share a core, there is nothing to measure.
  struct Link {
    Seconds latency;
    BytesPerSecond bandwidth;
  };
  std::optional<Link> link;
};

[[nodiscard]] Result<ExecutorCosts> measure_executor(const std::vector<ExecDevice>& devices);

}  // namespace weir
