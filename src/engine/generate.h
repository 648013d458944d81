#pragma once
// Generating tokens for a batch of requests: chunked prefill of all prompts together, then decode
// steps of all that are still going, each step planned by a strategy and run by the executor. What
// happened is recorded as a Timeline.
//
//   request.prompt --> prefill chunks --> first token --> decode, one token per step --> stop
//
// In a prefill step every request with prompt left takes part with up to `prefill_chunk` tokens;
// requests whose prompts are done wait for the others. A request that has ended leaves the batch.
//
// With `in_flight` groups, each group of requests is a batch by itself: its next step begins when
// its own last one has ended, and devices go from a step of one group to a step of another. So the
// stages of a pipeline need not wait for each other at the end of every step.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/plan_cache.h"
#include "engine/sampler.h"
#include "exec/executor.h"
#include "result/timeline.h"
#include "strategy/strategy.h"

namespace weir {

struct GenerationRequest {
  std::vector<std::int64_t> prompt;  // At least one token.
  std::int64_t max_new_tokens = 0;   // 0: the prompt is processed and no logits are computed.
  SamplingOptions sampling = {};
  std::vector<std::int64_t> stop_ids = {};  // Any of them ends the request; it is the last output.
  // Teacher forcing: where not empty, exactly these tokens are fed one after the other whatever is
  // chosen, and nothing stops earlier. Its size must be max_new_tokens.
  std::vector<std::int64_t> forced = {};
};

struct GenerationProgress {
  std::int64_t prompt_tokens = 0;  // Of all requests,
  std::int64_t prompt_done = 0;    // processed so far;
  std::int64_t output_tokens = 0;  // generated so far.
};

// What a reader of tokens wants after one: more, or the end of this request.
enum class AfterToken : std::uint8_t { go_on, stop };

struct GenerationOptions {
  std::int64_t prefill_chunk = 512;
  std::int64_t in_flight = 1;  // Groups, of as many requests as can be; no more than requests.
  bool keep_logits = false;
  bool record_tasks = true;                   // Fill Timeline::tasks.
  const std::atomic<bool>* cancel = nullptr;  // Looked at between steps.
  std::function<AfterToken(std::size_t request, std::int64_t token)> on_token = {};
  std::function<void(const GenerationProgress&)> on_progress = {};  // After each step.
};

enum class FinishReason : std::uint8_t { length, stop, cancelled };
[[nodiscard]] std::string_view to_string(FinishReason reason);

struct GenerationOutput {
  std::vector<std::int64_t> tokens;  // As chosen, also when others were forced.
  FinishReason finish = FinishReason::cancelled;
  std::vector<std::vector<float>> logits;  // [tokens, vocab_size], if they were to be kept.
};

struct Generation {
  std::vector<GenerationOutput> outputs;  // One per request.
  Timeline timeline;
  // Spent on getting each step's plan, by step; in the timeline this lies between steps. Plans for
  // the first prefill and decode and their weights are there before the timeline starts.
  std::vector<SimTime> planning_times;
  PlanningRecord planning;
  // Of each device: the most that any plan needed at its limits, with the KV cache of the groups
  // that were not in it.
  std::vector<DeviceMemory> memory;
  bool cancelled = false;

  // Share of the decode steps' time, planning included, that went into planning; 0 without decode.
  [[nodiscard]] double decode_planning_share() const;
};

inline constexpr std::int64_t kMostInFlight = Executor::kMostStepsUnderWay;

// Longest prefill chunk, so that activations stay within reason.
inline constexpr std::int64_t kMaxPrefillChunk = std::int64_t{1} << 20;

// Call from one thread. After an error of the executor it only accepts destruction.
class Generator {
 public:
  // `header` says all of a plan but limits and logits; its devices are the executor's. Executor and
  // strategy must outlive the generator.
  Generator(Executor& executor, const Strategy& strategy, PlanHeader header);

  // Fails on requests that the model cannot serve, on a batch that does not fit into memory at its
  // greatest lengths, and when the executor fails. A cancelled generation is a result: what there
  // is until then.
  [[nodiscard]] Result<Generation> run(std::span<const GenerationRequest> requests,
                                       const GenerationOptions& options);

 private:
  class Batch;

  Executor& executor_;
  PlanCache plans_;
  std::uint64_t next_sequence_ = 0;
};

}  // namespace weir
