#pragma once
// Whole generations: a prefill and then decode steps, one token each, whose KV cache grows. Not
// every step is played through: the time of a decode step as a function of its length is made of
// long straight pieces (tile and split counts change at their ends), so steps are simulated where
// the pieces end, found by halving, and times between two of them lie on the line between.

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/result.h"
#include "plan/validate.h"
#include "result/metrics.h"
#include "result/timeline.h"
#include "sim/machine.h"
#include "sim/simulate.h"

namespace weir {

// The plan of a step with these lengths; it must outlive the simulation. Called for every step that
// is simulated.
using PlanOf = std::function<Result<const ValidPlan*>(const StepLengths&)>;

// Requests that start together and each generate `output_len` tokens, the first by the prefill.
struct GenerationShape {
  std::vector<std::int64_t> prompt_lens;
  std::int64_t output_len = 1;
};

struct GenerationSimOptions {
  SimulateOptions step = {};
  // Scheduling and sampling on the host, before each step. nullopt: what the cluster's first host
  // says, or nothing.
  std::optional<SimTime> between_steps = {};
  // Two samples are joined by a line when the step between them is this near to it, relatively.
  double line_tolerance = 1e-3;
  // Called with every step that is simulated: the prefill, the first and the last decode step, and
  // those where the pieces end.
  std::function<Status(const SimulatedStep&, const StepLengths&)> on_step = {};
};

// What `between_steps` comes to on this machine for a step that takes so long.
[[nodiscard]] SimTime host_time(const Machine& machine, const GenerationSimOptions& options,
                                SimTime step);

struct GenerationPrediction {
  // Steps with their tokens and requests, without tasks.
  Timeline timeline;
  SimulatedStep prefill;
  SimulatedStep last_decode;  // As the prefill where there is none.
  // Of all steps, as Metrics::devices; empty without SimulateOptions::record_tasks.
  std::vector<DeviceMetrics> devices;
  std::int64_t simulated_steps = 0;
  double joules = 0;          // Of all devices, resting power between steps included.
  double resting_joules = 0;  // Of these what they would have taken doing nothing.
  double usd = 0;
  [[nodiscard]] double joules_per_token() const;  // Output tokens.
  [[nodiscard]] double usd_per_million_tokens() const;

  std::int64_t output_tokens = 0;
};

// Of the whole generation, with what its devices did.
[[nodiscard]] Metrics metrics_of(const GenerationPrediction& prediction);

// Fails on lengths below 1, on more than 2^26 tokens together, and as simulate() does.
[[nodiscard]] Result<GenerationPrediction> simulate_generation(
    const PlanOf& plan_of, const Machine& machine, const GenerationShape& shape,
    const GenerationSimOptions& options = {});

// A server that always has `concurrency` requests under way, each replaced as it ends.
struct ServingShape {
  std::int64_t prompt_len = 1;
  std::int64_t output_len = 1;
  std::int64_t concurrency = 1;
};

struct ServingPrediction {
  Seconds decode_step = {};  // The mean, of all requests together.
  Seconds prefill = {};      // Of one request.
  Seconds tpot = {};         // Between two tokens of a request.
  double output_tps = 0;     // Tokens per second, of all requests.
};

// Continuous batching with prefills between decode steps: while a request gets its output_len
// tokens, every other ends once and is followed by one whose prefill holds up all. So
//   tpot = decode_step + (concurrency - 1) / output_len * prefill.
// Fails as simulate_generation.
[[nodiscard]] Result<ServingPrediction> simulate_serving(const PlanOf& plan_of,
                                                         const Machine& machine,
                                                         const ServingShape& shape,
                                                         const GenerationSimOptions& options = {});

}  // namespace weir
