#include "app/predict.h"

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "engine/plan_cache.h"

namespace weir {
namespace {

void keep_larger(std::span<const DeviceMemory> some, std::vector<DeviceMemory>& largest) {
  for (std::size_t d = 0; d < largest.size(); ++d) {
    if (some[d].total() > largest[d].total()) largest[d] = some[d];
  }
}

// A setup on its cluster, with the plans made for it so far.
class Predictor {
 public:
  static Result<std::unique_ptr<Predictor>> make(const PredictionInput& input) {
    if (auto status = check_lengths(input.model, input.requests); !status)
      return tl::unexpected(status.error());
    auto setup = set_up(input.model, input.setup);
    if (!setup) return tl::unexpected(setup.error());
    auto machine = Machine::make(setup->cluster);
    if (!machine) {
      return invalid_input(
          fmt::format("--cluster: {}: {}", input.setup.cluster, machine.error().message));
    }
    return std::make_unique<Predictor>(input, *std::move(setup), *std::move(machine));
  }

  Predictor(const PredictionInput& input, Setup setup, Machine machine)
      : input_(input),
        setup_(std::move(setup)),
        machine_(std::move(machine)),
        plans_(*setup_.strategy.strategy, without_capacities(setup_.header)) {}

  Result<Prediction> predict(Serving serving) && {
    const PlanOf plan_of = [this](const StepLengths& lengths) { return plan(lengths); };
    const RequestOptions& requests = input_.requests;
    std::vector<DeviceMemory> peaks(setup_.header.devices.size());
    GenerationSimOptions options = input_.simulation;
    options.on_step = [&](const SimulatedStep& step, const StepLengths& lengths) {
      return keep_peaks(step, lengths, peaks);
    };
    auto generation = simulate_generation(
        plan_of, machine_,
        {.prompt_lens = std::vector<std::int64_t>(static_cast<std::size_t>(requests.batch_size),
                                                  requests.prompt_len),
         .output_len = requests.output_len},
        options);
    if (!generation) return tl::unexpected(generation.error());
    std::optional<ServingPrediction> served;
    if (serving == Serving::yes) {
      auto answer = simulate_serving(plan_of, machine_,
                                     {.prompt_len = requests.prompt_len,
                                      .output_len = requests.output_len,
                                      .concurrency = requests.batch_size},
                                     input_.simulation);
      if (!answer) return tl::unexpected(answer.error());
      served = *answer;
    }
    auto pipeline = full_pipeline(serving, generation->last_decode.timeline.end);
    if (!pipeline) return tl::unexpected(pipeline.error());
    std::optional<PredictedTrace> trace;
    if (input_.keep_trace) {
      auto made = trace_of(*generation);
      if (!made) return tl::unexpected(made.error());
      trace = *std::move(made);
    }
    auto verdict = judge_memory();
    if (!verdict) return tl::unexpected(verdict.error());
    return Prediction{.setup = std::move(setup_),
                      .generation = *std::move(generation),
                      .serving = served,
                      .pipeline = *pipeline,
                      .trace = std::move(trace),
                      .memory = std::move(peaks),
                      .shortage = std::move(verdict->shortage)};
  }

  // By the most that any run of the plans may hold, not only the one that is simulated: what
  // validate() checks.
  Result<MemoryVerdict> judge_memory() {
    const auto& devices = setup_.header.devices;
    std::vector<DeviceMemory> need(devices.size());
    for (const StepLengths& lengths : {prefill_lengths(), last_lengths()}) {
      const auto found = plan(lengths);
      if (!found) return tl::unexpected(found.error());
      keep_larger((*found)->memory(), need);
    }
    MemoryVerdict verdict = {.label = setup_.strategy.label,
                             .num_devices = std::ssize(devices),
                             .shortage = {},
                             .missing = 0};
    if (const auto shortage = find_shortage(devices, need))
      verdict.shortage = describe(devices, *shortage);
    for (std::size_t d = 0; d < devices.size(); ++d) {
      const std::int64_t room = devices[d].memory_bytes.value_or(need[d].total());
      verdict.missing = std::max(verdict.missing, need[d].total() - room);
    }
    return verdict;
  }

 private:
  static PlanHeader without_capacities(PlanHeader header) {
    for (PlanHeader::Device& device : header.devices) device.memory_bytes = {};
    return header;
  }

  // A decode plan serves all lengths up to the longest.
  Result<const ValidPlan*> plan(const StepLengths& lengths) {
    const std::int64_t longest = input_.requests.seq_len();
    PlanRequest request;
    for (const RequestLengths& one : lengths) {
      const bool prefill = one.kv_len == one.q_len;
      request.shape.push_back(
          {.past_len = one.kv_len - one.q_len, .q_len = one.q_len, .max_len = longest});
      request.limits.push_back({.q_len = one.q_len, .kv_len = prefill ? one.kv_len : longest});
    }
    return plans_.find(request);
  }

  [[nodiscard]] StepLengths lengths_of(RequestLengths one) const {
    return StepLengths(static_cast<std::size_t>(input_.requests.batch_size), one);
  }
  [[nodiscard]] StepLengths prefill_lengths() const {
    return lengths_of({.q_len = input_.requests.prompt_len, .kv_len = input_.requests.prompt_len});
  }
  // Of the last decode step, or of the prefill where there is none.
  [[nodiscard]] StepLengths last_lengths() const {
    if (input_.requests.output_len == 1) return prefill_lengths();
    return lengths_of({.q_len = 1, .kv_len = input_.requests.seq_len() - 1});
  }

  Status keep_peaks(const SimulatedStep& step, const StepLengths& lengths,
                    std::vector<DeviceMemory>& peaks) {
    const auto found = plan(lengths);
    if (!found) return tl::unexpected(found.error());
    const MemoryTrace trace = trace_memory(step.timeline, 0, (*found)->plan(), lengths);
    std::vector<DeviceMemory> of_step;
    for (std::size_t d = 0; d < peaks.size(); ++d)
      of_step.push_back(trace.peak(static_cast<DeviceId>(d)).memory);
    keep_larger(of_step, peaks);
    return {};
  }

  // Nothing to keep full where there is one microbatch, or no decoding.
  Result<std::optional<SteadyState>> full_pipeline(Serving serving, SimTime decode_step) {
    if (serving == Serving::no || input_.requests.output_len == 1)
      return std::optional<SteadyState>();
    const StepLengths lengths = last_lengths();
    const auto found = plan(lengths);
    if (!found) return tl::unexpected(found.error());
    if ((*found)->plan().microbatches.size() < 2) return std::optional<SteadyState>();
    const SimTime between_steps = host_time(machine_, input_.simulation, decode_step);
    const auto state =
        simulate_steady_state(**found, machine_, lengths, between_steps, input_.simulation.step);
    if (!state) return tl::unexpected(state.error());
    return std::optional(*state);
  }

  Result<PredictedTrace> trace_of(const GenerationPrediction& generation) {
    PredictedTrace trace;
    trace.timeline = generation.timeline;
    const auto add = [&](const SimulatedStep& simulated, std::size_t step,
                         const StepLengths& lengths) -> Status {
      const auto found = plan(lengths);
      if (!found) return tl::unexpected(found.error());
      const SimTime start = trace.timeline.steps[step].start;
      for (TaskRecord task : simulated.timeline.tasks) {
        task.step = static_cast<std::int32_t>(step);
        for (SimTime* time : {&task.start, &task.ready, &task.end}) *time += start;
        trace.timeline.tasks.push_back(task);
      }
      trace.memory.push_back(
          trace_memory(trace.timeline, static_cast<std::int32_t>(step), (*found)->plan(), lengths));
      return {};
    };
    if (auto status = add(generation.prefill, 0, prefill_lengths()); !status)
      return tl::unexpected(status.error());
    if (input_.requests.output_len > 1) {
      const std::size_t last = trace.timeline.steps.size() - 1;
      if (auto status = add(generation.last_decode, last, last_lengths()); !status)
        return tl::unexpected(status.error());
    }
    return trace;
  }

  const PredictionInput& input_;
  Setup setup_;
  Machine machine_;
  PlanCache plans_;
};

}  // namespace

std::int64_t Prediction::peak_bytes() const {
  std::int64_t bytes = 0;
  for (const DeviceMemory& device : memory) bytes = std::max(bytes, device.total());
  return bytes;
}

Result<Prediction> predict(const PredictionInput& input, Serving serving) {
  auto predictor = Predictor::make(input);
  if (!predictor) return tl::unexpected(predictor.error());
  return std::move(**predictor).predict(serving);
}

Result<MemoryVerdict> judge_memory(const PredictionInput& input) {
  auto predictor = Predictor::make(input);
  if (!predictor) return tl::unexpected(predictor.error());
  return (*predictor)->judge_memory();
}

}  // namespace weir
