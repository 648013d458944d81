#pragma once
// One strategy run for real on this machine, and predicted by the simulator for the same cluster:
// the prefill of a prompt, and the decode steps after it.

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "checkpoint/checkpoint.h"
#include "exec/executor.h"
#include "measure/ceilings.h"
#include "plan/lower.h"
#include "result/metrics.h"
#include "sim/machine.h"
#include "strategy/strategy.h"

namespace weir {

enum class BenchPhase : std::uint8_t { prefill, decode };

// Of one step, in seconds.
struct PhaseTimes {
  double step = 0;  // Prefill: from arrival to the first token. Decode: from one token to the next.
  // Of tasks by class, mean over devices; waiting for others to come is not in it.
  std::array<double, kOpClasses.size()> work{};
};

struct BenchPoint {
  BenchPhase phase = BenchPhase::prefill;
  std::int64_t length = 0;  // Of the prompt.
  PhaseTimes measured;      // Medians of the repetitions.
  PhaseTimes predicted;
  // How fast memory was read, where that was not as calibrated while they ran.
  std::optional<MemoryRates> other_memory = {};

  [[nodiscard]] double error() const { return predicted.step / measured.step - 1; }
};

struct StrategyBenchOptions {
  std::vector<std::int64_t> lengths;
  std::int64_t decode_steps = 16;
  std::int64_t repetitions = 5;
  // How fast memory is read at this moment; empty: not watched. Looked at before and after each
  // repetition: where it is not what the cluster file says (memory_gb_per_s of the first device's
  // type and of its host), the machine is not the one that was calibrated, and there is another
  // repetition, up to as many again. What is measured counts as calibrated if any repetition was.
  std::function<MemoryRates()> memory_now = {};
};

// Both phases of every length. `header` says all of a plan but limits and logits; its devices are
// the executor's and the machine's first ones. Prompts are not longer than kMaxPrefillChunk.
[[nodiscard]] Result<std::vector<BenchPoint>> bench_strategy(Executor& executor,
                                                             const Strategy& strategy,
                                                             const PlanHeader& header,
                                                             const Machine& machine,
                                                             const StrategyBenchOptions& options);

}  // namespace weir
