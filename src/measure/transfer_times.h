#pragma once
// What communication takes in runs of Weir's executor, by size: the curves of a cluster file
// (spec/measured_transfers.h). Devices compute between two communications as they do in a model of
// ordinary proportions, since who has computed is slower to answer than who has only waited, and
// what disturbs the ones also disturbs the others: where devices share cores, a large part of it.

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "exec/executor.h"
#include "spec/measured_transfers.h"
#include "spec/model.h"

namespace weir {

// What is run on so many devices; the other ranks follow with the same model.
[[nodiscard]] ModelSpec transfer_model(std::size_t devices, bool of_ranks);

// Each of the functions below measures in so many runs, and other ranks have to follow as many. One
// is enough where timings may be rough (CalibrationOptions).
[[nodiscard]] constexpr int transfer_rounds(double least_seconds) {
  return least_seconds > 0 ? 3 : 1;
}

struct TransferRuns {
  std::vector<ExecDevice> devices;
  Ranks* ranks = nullptr;  // With a device for each.
  int rounds = 1;
  // Steps of 1, 4, 8, 16 ... tokens: 2 kB to 2 kB for each of the most. What takes another way
  // through MPI from some size on does not take long to show.
  std::int64_t most_tokens = 1024;
};

// Of all devices: the all-reduces of tensor parallelism, one after the other in a step of which
// what they take together counts, and the exchanges that they consist of. The medians of some
// steps.
struct GroupTimes {
  GroupCurve exchange;
  GroupCurve all_reduce;
};
[[nodiscard]] Result<GroupTimes> measure_group(const TransferRuns& runs);

// Of all devices: the collectives of sequence parallelism, which splits the same tokens between
// them.
struct SequenceTimes {
  GroupCurve reduce_scatter;
  GroupCurve all_gather;
};
[[nodiscard]] Result<SequenceTimes> measure_sequence_parallel(const TransferRuns& runs);

struct PipelineTimes {
  // From device i to device i + 1, a stage each. Sizes at which the receiver hardly ever came first
  // are left out.
  std::vector<std::vector<TransferTime>> handovers;
  Seconds step;  // Between two decode steps.
};
[[nodiscard]] Result<PipelineTimes> measure_pipeline(const TransferRuns& runs);

}  // namespace weir
