#include "measure/thin_run.h"

#include <utility>

#include "checkpoint/random_model.h"

namespace weir {

ModelSpec thin_model(const ThinModelShape& shape) {
  ModelSpec model;
  model.name = "thin";
  model.num_layers = shape.num_layers;
  model.hidden_size = shape.hidden_size;
  model.num_q_heads = shape.num_heads;
  model.num_kv_heads = shape.num_heads;
  model.head_dim = 16;
  model.intermediate_size = 16 * shape.num_heads;
  model.vocab_size = kRandomModelEos + 1;
  model.max_position = 1 << 16;
  model.rope.rotary_dim = model.head_dim;
  return model;
}

Result<std::unique_ptr<ThinRun>> ThinRun::make(const ModelSpec& model, const OptionValues& options,
                                               const std::vector<ExecDevice>& devices, Ranks* ranks,
                                               Patience::Clock::duration awake) {
  auto on_disk = ModelOnDisk::make(model);
  if (!on_disk) return tl::unexpected(on_disk.error());
  auto run = std::unique_ptr<ThinRun>(new ThinRun(*std::move(on_disk)));
  if (auto started = run->start(options, devices, ranks, awake); !started)
    return tl::unexpected(started.error());
  return run;
}

Result<Timeline> ThinRun::run(std::int64_t prompt_len, std::int64_t output_len) {
  GenerationRequest request{.prompt = {}, .max_new_tokens = output_len};
  for (std::int64_t i = 0; i < prompt_len; ++i) request.prompt.push_back(i % kRandomModelBos);
  auto generation = generator_->run({&request, 1}, {.prefill_chunk = kMaxPrefillChunk});
  if (!generation) return tl::unexpected(generation.error());
  return std::move(generation->timeline);
}

Status ThinRun::start(const OptionValues& options, const std::vector<ExecDevice>& devices,
                      Ranks* ranks, Patience::Clock::duration awake) {
  auto strategy = make_strategy("tp_pp", options, model_.spec());
  if (!strategy) return tl::unexpected(strategy.error());
  strategy_ = std::move(strategy->strategy);
  std::vector<ExecDevice> used = devices;
  if (ranks == nullptr) used.resize(static_cast<std::size_t>(strategy_->num_devices()));
  PlanHeader header{
      .model = model_.spec(), .strategy = strategy->label, .limits = {}, .devices = {}};
  for (std::int64_t i = 0; i < strategy_->num_devices(); ++i)
    header.devices.push_back({.name = used[static_cast<std::size_t>(i)].name, .memory_bytes = {}});
  auto executor = Executor::make(model_.checkpoint(), model_.spec(),
                                 {.devices = std::move(used), .ranks = ranks, .awake = awake});
  if (!executor) return tl::unexpected(executor.error());
  executor_ = *std::move(executor);
  generator_ = std::make_unique<Generator>(*executor_, *strategy_, std::move(header));
  return {};
}

}  // namespace weir
