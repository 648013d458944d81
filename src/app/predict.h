#pragma once
// Predictions of one setup: the strategy's plans for a batch of equal requests, played through by
// the simulator. What does not fit is predicted all the same, and said to be so.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/request_flags.h"
#include "app/setup.h"
#include "plan/memory.h"
#include "sim/generation.h"
#include "sim/memory_trace.h"
#include "sim/steady_state.h"

namespace weir {

// All that a prediction depends on.
struct PredictionInput {
  ModelSpec model;
  SetupOptions setup;
  RequestOptions requests;
  GenerationSimOptions simulation = {};
  bool keep_trace = false;
};

// To look at: every step and token, of the prefill and the last decode step also what each device
// did and held.
struct PredictedTrace {
  Timeline timeline;
  std::vector<MemoryTrace> memory;  // Of these two steps.
};

struct Prediction {
  Setup setup;
  GenerationPrediction generation;
  std::optional<ServingPrediction> serving;
  // Of decode steps as the last one, where there are several microbatches.
  std::optional<SteadyState> pipeline;
  std::optional<PredictedTrace> trace;  // With keep_trace.
  // By device: the largest of the peaks of the steps that are simulated (sim/generation.h).
  std::vector<DeviceMemory> memory;
  // nullopt where any run of their plans fits, or where no capacity is known.
  std::optional<std::string> shortage;

  [[nodiscard]] std::int64_t num_devices() const { return std::ssize(setup.header.devices); }
  [[nodiscard]] std::int64_t peak_bytes() const;  // Of the device that holds most.
};

enum class Serving : bool { no, yes };

// Fails on what the model, the cluster or the strategy make impossible, and on clusters that lack
// a figure that is needed.
[[nodiscard]] Result<Prediction> predict(const PredictionInput& input, Serving serving);

// What predict would say of memory, without simulating anything.
struct MemoryVerdict {
  std::string label;  // Of the strategy.
  std::int64_t num_devices = 0;
  std::optional<std::string> shortage;  // nullopt where it fits.
  std::int64_t missing = 0;             // Bytes, on the device that lacks most.
};
[[nodiscard]] Result<MemoryVerdict> judge_memory(const PredictionInput& input);

}  // namespace weir
