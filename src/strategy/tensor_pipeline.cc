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

  TensorPipeline(ModelSpec model, Degrees degrees) : model_(std::move(model)), degrees_(degrees) {
    for (std::int64_t stage = 0; stage < degrees_.pp; ++stage) {
      auto& group = stages_.emplace_back();
      for (std::int64_t rank = 0; rank < degrees_.tp; ++rank)
        group.push_back(static_cast<DeviceId>(stage * degrees_.tp + rank));
    }
  }

  [[nodiscard]] std::int64_t num_devices() const override { return degrees_.tp * degrees_.pp; }

  [[nodiscard]] StepLayouts layouts(const StepShape& step) const override {
    const auto batch = static_cast<std::int64_t>(step.size());
    const std::int64_t microbatches =
        std::min(degrees_.microbatches, std::max<std::int64_t>(batch, 1));
    StepLayouts layouts;
    for (std::int64_t i = 0; i < microbatches; ++i) {
      layouts.microbatches.push_back(microbatch_of(even_part(batch, i, microbatches)));
    }
    layouts.order = in_microbatch_order(microbatches, model_.num_layers);
    return layouts;
  }

 private:
  [[nodiscard]] MicrobatchLayouts microbatch_of(Interval requests) const {
    MicrobatchLayouts layouts = {
        .requests = requests,
        .distinct = {},
        .of_layer = {},
        .embedding = vocabulary_parallel_embedding(model_, stages_.front(), requests),
        .logits = vocabulary_parallel_logits(model_, stages_.back(), requests),
        .logits_out =
            replicated(std::span(stages_.back()).first(1), {.request = request_range(requests)})};
    for (std::int64_t stage = 0; stage < degrees_.pp; ++stage) {
      layouts.distinct.push_back(
          tensor_parallel_layer(model_, stages_[static_cast<std::size_t>(stage)], requests));
      const Interval layers = even_part(model_.num_layers, stage, degrees_.pp);
      layouts.of_layer.insert(layouts.of_layer.end(), static_cast<std::size_t>(layers.size()),
                              static_cast<std::uint32_t>(stage));
    }
    return layouts;
  }

  ModelSpec model_;
  Degrees degrees_;
  std::vector<std::vector<DeviceId>> stages_;
};

Result<std::unique_ptr<Strategy>> make_tensor_pipeline(const ModelSpec& model,
                                                       const Options& options) {
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

Result<std::unique_ptr<Strategy>> make_single(const ModelSpec& model, const Options& /*options*/) {
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
