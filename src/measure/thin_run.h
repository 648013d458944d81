#pragma once
// Real runs of models whose arithmetic takes next to no time, so that what is left is what the
// executor itself costs and what passes between devices.

#include <cstdint>
#include <memory>
#include <vector>

#include "base/patience.h"
#include "base/result.h"
#include "engine/generate.h"
#include "exec/executor.h"
#include "measure/model_on_disk.h"
#include "result/timeline.h"
#include "spec/model.h"
#include "strategy/strategy.h"

namespace weir {

struct ThinModelShape {
  std::int64_t hidden_size = 64;
  std::int64_t num_layers = 4;
  std::int64_t num_heads = 2;
};
[[nodiscard]] ModelSpec thin_model(const ThinModelShape& shape);

// A model's runs with one strategy, tp_pp with the given options, on some devices.
class ThinRun {
 public:
  // With ranks: on rank 0, with a device for each; the others are in follow() with the same model.
  // `awake`: as ExecutorOptions.
  static Result<std::unique_ptr<ThinRun>> make(const ModelSpec& model, const OptionValues& options,
                                               const std::vector<ExecDevice>& devices,
                                               Ranks* ranks = nullptr,
                                               Patience::Clock::duration awake = Patience::kUsual);

  // One request, its prompt in one step.
  Result<Timeline> run(std::int64_t prompt_len, std::int64_t output_len);

 private:
  explicit ThinRun(ModelOnDisk model) : model_(std::move(model)) {}

  Status start(const OptionValues& options, const std::vector<ExecDevice>& devices, Ranks* ranks,
               Patience::Clock::duration awake);

  ModelOnDisk model_;
  std::unique_ptr<Strategy> strategy_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Generator> generator_;
};

}  // namespace weir
