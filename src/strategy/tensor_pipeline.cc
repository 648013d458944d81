#include "strategy/tensor_pipeline.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

class TensorPipeline final : public Strategy {
 public:
  TensorPipeline(ModelSpec model, Stages stages, std::int64_t microbatches)
      : model_(std::move(model)), stages_(std::move(stages)), microbatches_(microbatches) {}

  [[nodiscard]] std::int64_t num_devices() const override { return stages_.num_devices(); }

  [[nodiscard]] StepLayouts layouts(const StepShape& step) const override {
    StepLayouts layouts;
    for (const Interval requests :
         even_microbatches(static_cast<std::int64_t>(step.size()), microbatches_)) {
      layouts.microbatches.push_back(
          layouts_in_stages(model_, stages_, requests, [&](std::span<const DeviceId> group) {
            return tensor_parallel_layer(model_, group, requests);
          }));
    }
    layouts.order = in_microbatch_order(static_cast<std::int64_t>(layouts.microbatches.size()),
                                        model_.num_layers);
    return layouts;
  }

  [[nodiscard]] bool same_layouts(const StepShape& a, const StepShape& b) const override {
    return a.size() == b.size();
  }

 private:
  ModelSpec model_;
  Stages stages_;
  std::int64_t microbatches_;
};

// Rank r of stage s is device s * tp + r.
Result<std::unique_ptr<Strategy>> make_tensor_pipeline(const ModelSpec& model,
                                                       const Options& options,
                                                       const DeviceFacts& /*devices*/) {
  const std::int64_t tp = options.number("tp");
  const std::int64_t pp = options.number("pp");
  std::vector<std::string> problems;
  if (tp > model.num_q_heads) {
    problems.push_back(fmt::format("--tp: found {}, allowed 1..{} (the model's attention heads)",
                                   tp, model.num_q_heads));
  }
  if (pp > model.num_layers) {
    problems.push_back(
        fmt::format("--pp: found {}, allowed 1..{} (the model's layers)", pp, model.num_layers));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return make_stages(model, Stages::even(model.num_layers, pp, tp), options.number("microbatches"));
}

Result<std::unique_ptr<Strategy>> make_single(const ModelSpec& model, const Options& /*options*/,
                                              const DeviceFacts& /*devices*/) {
  return make_stages(model, Stages::even(model.num_layers, 1, 1), 1);
}

constexpr OptionSpec kTensorPipelineOptions[] = {
    {.name = "tp",
     .help = "devices that share every layer",
     .default_value = "2",
     .min = 1,
     .max = kMostRanks},
    {.name = "pp",
     .help = "pipeline stages, each with its own layers",
     .default_value = "1",
     .min = 1,
     .max = kMostRanks},
    kMicrobatches,
};

}  // namespace

std::unique_ptr<Strategy> make_stages(const ModelSpec& model, Stages stages,
                                      std::int64_t microbatches) {
  return std::make_unique<TensorPipeline>(model, std::move(stages), microbatches);
}

StrategyEntry single_strategy() {
  return {.name = "single",
          .help =
              "Splits nothing: one device computes everything.\n"
              "Sends nothing.\n"
              "The reference that every other strategy is compared with; pays whenever the model "
              "fits and is fast enough.",
          .options = {},
          .make = make_single};
}

StrategyEntry tensor_pipeline_strategy() {
  return {.name = "tp_pp",
          .help =
              "Splits heads and FFN columns over tp devices, layers over pp stages, the batch into "
              "microbatches.\n"
              "Sends two all-reduces of [tokens, hidden] per layer within a stage, and [tokens, "
              "hidden] between stages.\n"
              "Pays for models too large or too slow for one device, where links inside a stage "
              "are fast.",
          .options = kTensorPipelineOptions,
          .make = make_tensor_pipeline};
}

}  // namespace weir
