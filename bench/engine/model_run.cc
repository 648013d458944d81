#include "bench/engine/model_run.h"

#include <utility>

#include "spec/local_cluster.h"

namespace weir::bench {
namespace {

// Rows enough for the products to reach their speed; activations stay in the caches.
constexpr std::int64_t kPrefillChunk = 1024;

double seconds(SimTime from, SimTime to) { return 1e-9 * static_cast<double>(to.ns - from.ns); }

}  // namespace

ModelSpec model_of(std::string name, const Shape& shape) {
  ModelSpec model;
  model.name = std::move(name);
  model.num_layers = shape.num_layers;
  model.hidden_size = shape.hidden_size;
  model.num_q_heads = shape.num_heads;
  model.num_kv_heads = shape.num_heads;
  model.head_dim = shape.hidden_size / shape.num_heads;
  model.intermediate_size = shape.intermediate_size;
  model.vocab_size = shape.vocab_size;
  model.max_position = 1 << 18;
  model.rope.rotary_dim = model.head_dim;
  model.weight_dtype = DType::f16;
  return model;
}

ModelSpec small_model() {
  return model_of(
      "small", {.num_layers = 8, .hidden_size = 1024, .num_heads = 16, .intermediate_size = 4096});
}

ModelSpec notes_model() {
  return model_of(
      "notes", {.num_layers = 4, .hidden_size = 4096, .num_heads = 32, .intermediate_size = 16384});
}

std::int64_t decode_weight_bytes(const ModelSpec& model) {
  const ParameterCount count = count_parameters(model);
  return (model.num_layers * count.per_layer() + count.lm_head) * size_in_bytes(model.weight_dtype);
}

Result<std::unique_ptr<ModelRun>> ModelRun::make(const ModelOnDisk& model, const Split& split) {
  auto strategy = make_strategy(split.strategy, split.options, model.spec());
  if (!strategy) return tl::unexpected(strategy.error());
  const auto cluster = local_cluster({.num_devices = strategy->strategy->num_devices(),
                                      .cores_per_device = split.cores_per_device});
  if (!cluster) return tl::unexpected(cluster.error());
  std::unique_ptr<ModelRun> run(new ModelRun);
  run->strategy_ = std::move(strategy->strategy);
  run->header_.model = model.spec();
  run->header_.strategy = strategy->label;
  run->header_.kv_dtype = DType::f16;
  std::vector<ExecDevice> devices;
  for (const Device& device : cluster->devices) {
    devices.push_back({.name = device.name, .cores = {device.cpus.begin(), device.cpus.end()}});
    run->header_.devices.push_back({.name = device.name, .memory_bytes = {}});
  }
  auto executor = Executor::make(model.checkpoint(), model.spec(), {.devices = std::move(devices)});
  if (!executor) return tl::unexpected(executor.error());
  run->executor_ = *std::move(executor);
  run->in_flight_ = split.in_flight;
  run->generator_ = std::make_unique<Generator>(*run->executor_, *run->strategy_, run->header_);
  return run;
}

Result<RunTimes> ModelRun::run(const Prompts& prompts) {
  std::vector<GenerationRequest> requests(static_cast<std::size_t>(prompts.count));
  for (GenerationRequest& request : requests) {
    request.max_new_tokens = prompts.output_len;
    for (std::int64_t i = 0; i < prompts.length; ++i)
      request.prompt.push_back((i * 31 + 7) % header_.model.vocab_size);
  }
  RunTimes times;
  for (int time = 0; time < prompts.times; ++time) {
    // Nobody reads records of tasks here, and taking them down costs a small step a tenth of its
    // time.
    const auto generation = generator_->run(
        requests, {.prefill_chunk = kPrefillChunk, .in_flight = in_flight_, .record_tasks = false});
    if (!generation) return tl::unexpected(generation.error());
    const RequestRecord& last = generation->timeline.requests.back();
    times.prefill = seconds(last.arrival, last.token_times.front());
    for (std::size_t i = 1; i < last.token_times.size(); ++i)
      times.decode_steps.push_back(seconds(last.token_times[i - 1], last.token_times[i]));
  }
  return times;
}

}  // namespace weir::bench
