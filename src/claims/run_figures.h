#pragma once
// Figures of one simulated run, under the assumptions' reading of what they mean.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "claims/assumptions.h"
#include "claims/simulated_setup.h"
#include "claims/vocabulary.h"

namespace weir {

struct RunQuestion {
  const Assumptions& assumptions;
  std::int64_t seq_len = 0;
};

// In seconds: of a run, or the least that one can take.
struct RunTimes {
  double decode_step = 0;
  double total = 0;
};
[[nodiscard]] double tpot_of(const RunTimes& times, const RunQuestion& question);
[[nodiscard]] double tps_of(const RunTimes& times, const RunQuestion& question);

// `words` are the call's, between its setup and its length. Fails where no device is meant.
[[nodiscard]] Result<double> run_figure(Function function, const SimulatedRun& run,
                                        const std::vector<std::string>& words,
                                        const RunQuestion& question);

// Weights and KV cache on the device that keeps most.
[[nodiscard]] double most_kept(const SimulatedRun& run);

}  // namespace weir
