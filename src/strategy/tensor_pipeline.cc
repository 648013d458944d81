#include "strategy/tensor_pipeline.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

class TensorPipeline final : public Strategy {
 public:
  TensorPipeline(ModelSpec model, Stages stages, std::int64_t microbatches,
                 std::int64_t sequence_parallel)
      : model_(std::move(model)),
        stages_(std::move(stages)),
        microbatches_(microbatches),
        sequence_parallel_(sequence_parallel) {}

  [[nodiscard]] std::int64_t num_devices() const override { return stages_.num_devices(); }

  [[nodiscard]] StepLayouts layouts(const StepShape& step) const override {
    const bool by_tokens = splits_tokens(step);
    StepLayouts layouts;
    for (const Interval requests :
         even_microbatches(static_cast<std::int64_t>(step.size()), microbatches_)) {
      layouts.microbatches.push_back(
          layouts_in_stages(model_, stages_, requests, [&](std::span<const DeviceId> group) {
            LayerLayouts layer = tensor_parallel_layer(model_, group, requests);
            if (by_tokens) layer.residual = token_blocks(group, requests);
            return layer;
          }));
    }
    layouts.order = in_microbatch_order(static_cast<std::int64_t>(layouts.microbatches.size()),
                                        model_.num_layers);
    return layouts;
  }

  [[nodiscard]] bool same_layouts(const StepShape& a, const StepShape& b) const override {
    return a.size() == b.size() && splits_tokens(a) == splits_tokens(b);
  }

 private:
  // The one token of a decode step would be one device's, and the others would wait for it.
  [[nodiscard]] bool splits_tokens(const StepShape& step) const {
    if (sequence_parallel_ == 0) return false;
    std::int64_t tokens = 0;
    std::int64_t requests = 0;
    for (const RequestShape& request : step) {
      tokens += request.q_len;
      requests += request.q_len > 0 ? 1 : 0;
    }
    return requests > 0 && tokens >= sequence_parallel_ * requests;
  }

  ModelSpec model_;
  Stages stages_;
  std::int64_t microbatches_;
  std::int64_t sequence_parallel_;
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
  return make_stages(model, Stages::even(model.num_layers, pp, tp), options.number("microbatches"),
                     options.number("sequence_parallel"));
}

Result<std::unique_ptr<Strategy>> make_single(const ModelSpec& model, const Options& /*options*/,
                                              const DeviceFacts& /*devices*/) {
  return make_stages(model, Stages::even(model.num_layers, 1, 1), 1);
}

constexpr std::int64_t kMostTokens = std::int64_t{1} << 30;

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
    {.name = "sequence_parallel",
     .help = "from so many new tokens per request on, norms and sums are split by tokens over a "
             "stage; 0: never",
     .default_value = "0",
     .min = 0,
     .max = kMostTokens},
};

}  // namespace

std::unique_ptr<Strategy> make_stages(const ModelSpec& model, Stages stages,
                                      std::int64_t microbatches, std::int64_t sequence_parallel) {
  return std::make_unique<TensorPipeline>(model, std::move(stages), microbatches,
                                          sequence_parallel);
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
              "Sends two all-reduces of [tokens, hidden] per layer within a stage (with "
              "sequence_parallel a reduce-scatter and an all-gather each), and [tokens, hidden] "
              "between stages.\n"
              "Pays for models too large or too slow for one device, where links inside a stage "
              "are fast.",
          .options = kTensorPipelineOptions,
          .make = make_tensor_pipeline};
}

}  // namespace weir
