#pragma once
// Calibration of the hosts that ranks run on: what calibrate.h measures, on each host by its first
// rank, and what passes between ranks. Rank 0 leads; all ranks have agreed on their devices before.

#include "base/result.h"
#include "comm/ranks.h"
#include "exec/executor.h"
#include "measure/calibrate.h"
#include "spec/cluster.h"

namespace weir {

// `hosts` has a node of CPU devices for every host, with a device for every rank, in their order;
// the options' devices are not looked at. Hosts under one kernel share its cores and are measured
// one after the other, others at the same time.
[[nodiscard]] Result<ClusterSpec> calibrate_ranks(Ranks& ranks, ClusterSpec hosts,
                                                  const CalibrationOptions& options);
// On every other rank, at the same time. Rank 0 does not hear of a failure: give_up.
[[nodiscard]] Status follow_calibration(Ranks& ranks, const ExecDevice& device,
                                        double least_seconds);

}  // namespace weir
