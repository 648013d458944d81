#include "strategy/cache_fit.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

constexpr std::string_view kNoYes[] = {"no", "yes"};

// Bytes that one of `tp` devices touches in a layer while it processes `tokens` tokens.
struct LayerBytes {
  std::int64_t weights = 0;
  std::int64_t activations = 0;  // Residual, normed, q, k, v, FFN hidden, in f32.
  std::int64_t workspace = 0;    // Attention outputs with their log-sum-exp.
  [[nodiscard]] std::int64_t total() const { return weights + activations + workspace; }
};

LayerBytes layer_bytes(const ModelSpec& model, std::int64_t tp, std::int64_t tokens) {
  const auto share = [tp](std::int64_t whole) { return (whole + tp - 1) / tp; };
  const std::int64_t heads = model.num_q_heads + 2 * model.num_kv_heads;
  const std::int64_t ffn_tensors = model.gated_ffn ? 2 : 1;
  const std::int64_t f32 = size_in_bytes(DType::f32);
  return {.weights = share(count_parameters(model).per_layer()) * size_in_bytes(model.weight_dtype),
          .activations = tokens * f32 *
                         (2 * model.hidden_size + share(heads * model.head_dim) +
                          ffn_tensors * share(model.intermediate_size)),
          .workspace = tokens * f32 * share(model.num_q_heads * (model.head_dim + 1))};
}

// Partition i, `layers_per_partition` consecutive layers, runs on group i modulo the groups.
class CacheFit final : public Strategy {
 public:
  struct Partitions {
    std::int64_t layers_per_partition = 1;
    std::int64_t tp = 1;
    std::int64_t num_groups = 1;
    std::int64_t microbatches = 1;
  };

  CacheFit(ModelSpec model, Partitions partitions)
      : model_(std::move(model)), microbatches_(partitions.microbatches) {
    const std::int64_t num_partitions =
        (model_.num_layers + partitions.layers_per_partition - 1) / partitions.layers_per_partition;
    stages_ = Stages::even(0, std::min(num_partitions, partitions.num_groups), partitions.tp);
    const auto groups = static_cast<std::int64_t>(stages_.groups.size());
    for (std::int64_t layer = 0; layer < model_.num_layers; ++layer) {
      stages_.of_layer.push_back(
          static_cast<std::uint32_t>(layer / partitions.layers_per_partition % groups));
    }
  }

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

Result<std::unique_ptr<Strategy>> make_cache_fit(const ModelSpec& model, const Options& options,
                                                 const DeviceFacts& devices) {
  constexpr std::int64_t kBytesPerKib = 1024;
  const std::int64_t tokens = options.number("batch_tokens");
  const std::int64_t num_devices = options.number("devices");
  std::int64_t tp = options.number("tp");
  std::int64_t capacity = options.number("capacity_kib") * kBytesPerKib;
  if (capacity == 0 && devices.l2_bytes) capacity = *devices.l2_bytes;
  if (capacity == 0) {
    return invalid_input(
        "--capacity_kib: found 0, which stands for the L2 cache of a device, and its size is not "
        "known; allowed the capacity in KiB");
  }
  if (tp > model.num_q_heads || tp > num_devices) {
    return invalid_input(fmt::format("--tp: found {}, allowed 1..{} (heads and devices)", tp,
                                     std::min(model.num_q_heads, num_devices)));
  }
  const bool may_split = options.choice("split_layers") == 1;
  const std::int64_t most_tp = std::min(model.num_q_heads, num_devices);
  while (may_split && layer_bytes(model, tp, tokens).total() > capacity && tp < most_tp) ++tp;
  const LayerBytes bytes = layer_bytes(model, tp, tokens);
  const std::int64_t layers = capacity / bytes.total();  // floor(C / bytes per layer)
  if (layers == 0) {
    return invalid_input(fmt::format(
        "--capacity_kib: one layer{} needs {} bytes (weights {}, activations {}, workspace {}), "
        "the cache holds {}; allowed a larger cache{}",
        tp > 1 ? fmt::format(" over {} devices", tp) : "", bytes.total(), bytes.weights,
        bytes.activations, bytes.workspace, capacity,
        may_split ? ", or more devices to split a layer over" : ", or --split_layers yes"));
  }
  return std::make_unique<CacheFit>(
      model, CacheFit::Partitions{.layers_per_partition = std::min(layers, model.num_layers),
                                  .tp = tp,
                                  .num_groups = num_devices / tp,
                                  .microbatches = options.number("microbatches")});
}

constexpr std::int64_t kMostRanks = 65536;

constexpr OptionSpec kOptions[] = {
    {.name = "devices", .help = "devices to use", .default_value = "2", .max = kMostRanks},
    {.name = "capacity_kib",
     .help = "cache of one device in KiB; 0: its L2",
     .default_value = "0",
     .min = 0,
     .max = std::int64_t{1} << 40},
    {.name = "batch_tokens",
     .help = "tokens in flight per step, for activations and workspace",
     .default_value = "1",
     .max = std::int64_t{1} << 31},
    {.name = "split_layers",
     .help = "split a layer that does not fit over more devices until its pieces do",
     .default_value = "no",
     .choices = kNoYes},
    {.name = "tp",
     .help = "devices that share a partition",
     .default_value = "1",
     .max = kMostRanks},
    {.name = "microbatches",
     .help = "parts of the batch in flight at once",
     .default_value = "1",
     .max = kMostRanks},
};

}  // namespace

StrategyEntry cache_fit_strategy() {
  return {.name = "cache_fit",
          .help =
              "Splits the layers into partitions of floor(capacity / bytes per layer), one per "
              "device in turn.\n"
              "Sends [tokens, hidden] between partitions, and two all-reduces per layer where a "
              "partition has tp devices.\n"
              "Pays where decode is bound by memory and a device's share of the weights stays "
              "in its cache.",
          .options = kOptions,
          .make = make_cache_fit};
}

}  // namespace weir
