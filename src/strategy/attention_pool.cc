#include "strategy/attention_pool.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "strategy/pool_work.h"
#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

// Base devices first, stage by stage as in tp_pp; then p_max pool devices, which all stages share.
class AttentionPool final : public Strategy {
 public:
  struct Shape {
    std::int64_t tp = 1;
    std::int64_t pp = 1;
    PoolWork work;
    std::int64_t microbatches = 1;
  };

  AttentionPool(ModelSpec model, const Shape& shape)
      : model_(std::move(model)),
        shape_(shape),
        stages_(Stages::even(model_.num_layers, shape.pp, shape.tp)) {
    shape_.work.first_device = stages_.num_devices();
  }

  [[nodiscard]] std::int64_t num_devices() const override {
    return stages_.num_devices() + shape_.work.sizing.p_max;
  }

  [[nodiscard]] StepLayouts layouts(const StepShape& step) const override {
    StepLayouts layouts;
    std::vector<std::int32_t> short_ones;
    std::vector<std::int32_t> long_ones;
    for (const Run& run : runs_of(step)) {
      const auto parts = run.is_long
                             ? even_microbatches(run.requests.size(), shape_.microbatches)
                             : std::vector<Interval>{{.begin = 0, .end = run.requests.size()}};
      for (const Interval part : parts) {
        const Interval requests = {.begin = run.requests.begin + part.begin,
                                   .end = run.requests.begin + part.end};
        (run.is_long ? long_ones : short_ones)
            .push_back(static_cast<std::int32_t>(layouts.microbatches.size()));
        layouts.microbatches.push_back(
            layouts_in_stages(model_, stages_, requests, [&](std::span<const DeviceId> group) {
              LayerLayouts layer = tensor_parallel_layer(model_, group, requests);
              if (run.is_long) spill_to_pool(model_, shape_.work, requests, step, layer);
              return layer;
            }));
      }
    }
    layouts.order = order_of(short_ones, long_ones);
    return layouts;
  }

  [[nodiscard]] bool same_layouts(const StepShape& a, const StepShape& b) const override {
    return std::ranges::equal(a, b, [this](const RequestShape& x, const RequestShape& y) {
      return spills_alike(shape_.work, x, y);
    });
  }

 private:
  struct Run {
    Interval requests;
    bool is_long = false;
  };

  // Neighbours on the same side of the crest. A short request shares no microbatch with a long one.
  [[nodiscard]] std::vector<Run> runs_of(const StepShape& step) const {
    std::vector<Run> runs;
    for (std::int64_t r = 0; r < static_cast<std::int64_t>(step.size()); ++r) {
      const bool is_long = pool_of(step[static_cast<std::size_t>(r)]) > 0;
      if (runs.empty() || runs.back().is_long != is_long) {
        runs.push_back({.requests = {.begin = r, .end = r}, .is_long = is_long});
      }
      runs.back().requests.end = r + 1;
    }
    if (runs.empty()) runs.push_back({});
    return runs;
  }

  [[nodiscard]] std::int64_t pool_of(const RequestShape& request) const {
    return pool_size(shape_.work.sizing, request.past_len + request.q_len);
  }

  // Long requests send their first attention to the pool; behind that the base devices do all of
  // the short ones, which so never wait for the pool; then, layer by layer, the FFN of one long
  // microbatch runs while the pool attends for the next.
  [[nodiscard]] std::vector<Phase> order_of(const std::vector<std::int32_t>& short_ones,
                                            const std::vector<std::int32_t>& long_ones) const {
    std::vector<Phase> order;
    const auto add = [&order](std::int32_t microbatch, std::int32_t layer,
                              std::initializer_list<Part> parts) {
      for (const Part part : parts) {
        order.push_back({.microbatch = microbatch, .layer = layer, .part = part});
      }
    };
    const auto num_layers = static_cast<std::int32_t>(model_.num_layers);
    for (const std::int32_t microbatch : long_ones) {
      add(microbatch, -1, {Part::embed});
      add(microbatch, 0, {Part::project, Part::attend});
    }
    for (const std::int32_t microbatch : short_ones) {
      add(microbatch, -1, {Part::embed});
      for (std::int32_t layer = 0; layer < num_layers; ++layer) {
        add(microbatch, layer, {Part::project, Part::attend, Part::output, Part::ffn});
      }
      add(microbatch, num_layers, {Part::logits});
    }
    for (std::int32_t layer = 0; layer < num_layers; ++layer) {
      for (const std::int32_t microbatch : long_ones) {
        add(microbatch, layer, {Part::output, Part::ffn});
        if (layer + 1 < num_layers) {
          add(microbatch, layer + 1, {Part::project, Part::attend});
        } else {
          add(microbatch, num_layers, {Part::logits});
        }
      }
    }
    return order;
  }

  ModelSpec model_;
  Shape shape_;
  Stages stages_;
};

Result<std::unique_ptr<Strategy>> make_attention_pool(const ModelSpec& model,
                                                      const Options& options,
                                                      const DeviceFacts& /*devices*/) {
  const AttentionPool::Shape shape = {
      .tp = options.number("tp"),
      .pp = options.number("pp"),
      .work = {.sizing = {.policy = static_cast<PoolPolicy>(options.choice("pool_policy")),
                          .threshold = options.number("threshold"),
                          .p_max = options.number("pool")},
               .split = static_cast<PoolSplit>(options.choice("split")),
               .reduction = static_cast<PoolReduction>(options.choice("reduction")),
               .kv_block = options.number("kv_block")},
      .microbatches = options.number("microbatches")};
  std::vector<std::string> problems;
  if (shape.tp > model.num_q_heads) {
    problems.push_back(fmt::format("--tp: found {}, allowed 1..{} (the model's attention heads)",
                                   shape.tp, model.num_q_heads));
  }
  if (shape.pp > model.num_layers) {
    problems.push_back(fmt::format("--pp: found {}, allowed 1..{} (the model's layers)", shape.pp,
                                   model.num_layers));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return std::make_unique<AttentionPool>(model, shape);
}

constexpr OptionSpec kAttentionPoolOptions[] = {
    {.name = "tp", .help = "base devices per stage", .default_value = "1", .max = kMostRanks},
    {.name = "pool",
     .help = "most pool devices (p_max)",
     .default_value = "4",
     .min = 0,
     .max = kMostRanks},
    {.name = "pool_policy",
     .help = "pool size by sequence length",
     .default_value = "linear",
     .choices = kPoolPolicies},
    {.name = "threshold",
     .help = "linear and fixed: longer sequences use the pool",
     .default_value = "4096",
     .min = 0,
     .max = std::int64_t{1} << 30},
    {.name = "split",
     .help = "what pool devices share among them",
     .default_value = "kv_blocks",
     .choices = kPoolSplits},
    {.name = "kv_block",
     .help = "kv_blocks: positions per block of K and V",
     .default_value = "1024",
     .max = std::int64_t{1} << 30},
    {.name = "reduction",
     .help = "kv_blocks: how partial outputs meet",
     .default_value = "flat",
     .choices = kPoolReductions},
    {.name = "pp",
     .help = "pipeline stages of base devices",
     .default_value = "1",
     .max = kMostRanks},
    {.name = "microbatches",
     .help = "parts of the long requests, FFN of one behind attention of the next",
     .default_value = "1",
     .max = kMostRanks},
};

}  // namespace

StrategyEntry attention_pool_strategy() {
  return {.name = "attention_pool",
          .help =
              "Splits attention of sequences above a threshold over 0..pool weightless devices; "
              "all else is tp_pp.\n"
              "Sends new K and V to the pool once, per step q out and attention back (partial "
              "outputs for kv_blocks).\n"
              "Pays for long sequences, where attention outgrows everything else.",
          .options = kAttentionPoolOptions,
          .make = make_attention_pool};
}

}  // namespace weir
