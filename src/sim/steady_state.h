#pragma once
// Decoding with the pipeline kept full. A step of several microbatches that ends before the next
// one starts leaves the first stages idle at its end and the last ones at its beginning. Servers
// need not wait: a microbatch goes on when its own token is there. After a while steps then follow
// each other in a fixed rhythm, and its period is what a token costs.

#include <cstdint>

#include "base/result.h"
#include "plan/validate.h"
#include "sim/machine.h"
#include "sim/simulate.h"

namespace weir {

struct SteadyState {
  Seconds period;          // From one token of a request to the next, all lengths staying the same.
  double utilisation = 0;  // Share of the period with compute, mean over devices.
  std::int64_t simulated_steps = 0;
  bool settled = false;  // The rhythm has been found, to within 0.1%.
};

// `lengths` are those of every step; `between_steps`: on the host, for each microbatch by itself,
// from its last task of a step to its first of the next. Links are shared where steps meet on them.
// Fails as simulate() does. Collectives are played as one, whatever `options` say.
[[nodiscard]] Result<SteadyState> simulate_steady_state(const ValidPlan& plan,
                                                        const Machine& machine,
                                                        const StepLengths& lengths,
                                                        SimTime between_steps,
                                                        const SimulateOptions& options = {});

}  // namespace weir
