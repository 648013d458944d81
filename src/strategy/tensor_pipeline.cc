#include "strategy/tensor_pipeline.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

// Devices are numbered stage by stage: rank r of stage s is device s * tp + r.
class TensorPipeline final : public Strategy {
 public:
  struct Degrees {
    std::int64_t tp = 1;
    std::int64_t pp = 1;
    std::int64_t microbatches = 1;
  };

  TensorPipeline(ModelSpec model, Degrees degrees)
      : model_(std::move(model)),
        microbatches_(degrees.microbatches),
        stages_(Stages::even(model_.num_layers, degrees.pp, degrees.tp)) {}

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
  std::int64_t microbatches_;
  Stages stages_;
};

Result<std::unique_ptr<Strategy>> make_tensor_pipeline(const ModelSpec& model,
                                                       const Options& options,
                                                       const DeviceFacts& /*devices*/) {
  const TensorPipeline::Degrees degrees = {.tp = options.number("tp"),
                                           .pp = options.number("pp"),
                                           .microbatches = options.number("microbatches")};
  std::vector<std::string> problems;
  if (degrees.tp > model.num_q_heads) {
    problems.push_back(fmt::format("--tp: found {}, allowed 1..{} (the model's attention heads)",
                                   degrees.tp, model.num_q_heads));
  }
  if (degrees.pp > model.num_layers) {
    problems.push_back(fmt::format("--pp: found {}, allowed 1..{} (the model's layers)", degrees.pp,
                                   model.num_layers));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return std::make_unique<TensorPipeline>(model, degrees);
}

Result<std::unique_ptr<Strategy>> make_single(const ModelSpec& model, const Options& /*options*/,
                                              const DeviceFacts& /*devices*/) {
  return std::make_unique<TensorPipeline>(model, TensorPipeline::Degrees{});
}

constexpr std::int64_t kMostRanks = 65536;

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
    {.name = "microbatches",
     .help = "parts of the batch in flight at once",
     .default_value = "1",
     .min = 1,
     .max = kMostRanks},
};

}  // namespace

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
