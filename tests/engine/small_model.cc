#include "tests/engine/small_model.h"

#include <utility>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/random.h"
#include "checkpoint/random_model.h"

namespace weir {

ModelSpec small_model_spec() {
  ModelSpec model;
  model.name = "small";
  model.num_layers = 2;
  model.hidden_size = 64;
  model.intermediate_size = 96;
  model.vocab_size = 300;
  model.num_q_heads = 4;
  model.num_kv_heads = 2;
  model.head_dim = 16;
  model.max_position = 512;
  model.rope.rotary_dim = 16;
  return model;
}

SmallModel::SmallModel(const ModelSpec& spec) : spec_(spec) {
  const std::string folder = folder_.file("model");
  const Status written = write_random_model(folder, spec_);
  CHECK(written, written ? "" : written.error().message);
  auto checkpoint = Checkpoint::open(folder, spec_);
  CHECK(checkpoint, checkpoint ? "" : checkpoint.error().message);
  checkpoint_ = std::make_unique<Checkpoint>(*std::move(checkpoint));
}

namespace {

NamedStrategy strategy_of(const SmallModel& model, const std::string& name,
                          const OptionValues& values) {
  auto made = make_strategy(name, values, model.spec());
  CHECK(made, made ? "" : made.error().message);
  return *std::move(made);
}

}  // namespace

SmallRun::SmallRun(const SmallModel& model, const std::string& strategy, const OptionValues& values)
    : SmallRun(model, strategy_of(model, strategy, values), DType::f32) {}

SmallRun::SmallRun(const SmallModel& model, NamedStrategy strategy, DType kv_dtype, Ranks* ranks)
    : strategy_(std::move(strategy)) {
  header_.model = model.spec();
  header_.strategy = strategy_.label;
  header_.kv_dtype = kv_dtype;
  ExecutorOptions options;
  options.ranks = ranks;
  for (std::int64_t i = 0; i < strategy_.strategy->num_devices(); ++i) {
    const std::string name = "device" + std::to_string(i);
    header_.devices.push_back({.name = name, .memory_bytes = {}});
    options.devices.push_back({.name = name, .cores = {}});
  }
  auto executor = Executor::make(model.checkpoint(), model.spec(), options);
  CHECK(executor, executor ? "" : executor.error().message);
  executor_ = *std::move(executor);
  generator_ = std::make_unique<Generator>(*executor_, *strategy_.strategy, header_);
}

std::vector<std::int64_t> random_prompt(const ModelSpec& model, std::int64_t length,
                                        std::uint64_t seed) {
  Random random(seed);
  std::vector<std::int64_t> prompt;
  for (std::int64_t i = 0; i < length; ++i)
    prompt.push_back(random.integer(0, model.vocab_size - 1));
  return prompt;
}

}  // namespace weir
