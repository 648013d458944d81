#include "strategy/cache_fit.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "strategy/tensor_parallel.h"
#include "strategy/tensor_pipeline.h"

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

struct Partitions {
  std::int64_t layers_per_partition = 1;
  std::int64_t tp = 1;  // Devices of each.
  std::int64_t num_groups = 1;
};

// Partition i, `layers_per_partition` consecutive layers, runs on group i modulo the groups.
Stages stages_of(const Partitions& partitions, std::int64_t num_layers) {
  const std::int64_t num_partitions =
      (num_layers + partitions.layers_per_partition - 1) / partitions.layers_per_partition;
  Stages stages = Stages::even(0, std::min(num_partitions, partitions.num_groups), partitions.tp);
  const auto groups = static_cast<std::int64_t>(stages.groups.size());
  for (std::int64_t layer = 0; layer < num_layers; ++layer) {
    stages.of_layer.push_back(
        static_cast<std::uint32_t>(layer / partitions.layers_per_partition % groups));
  }
  return stages;
}

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
  const Partitions partitions = {.layers_per_partition = std::min(layers, model.num_layers),
                                 .tp = tp,
                                 .num_groups = num_devices / tp};
  return make_stages(model, stages_of(partitions, model.num_layers),
                     options.number("microbatches"));
}

constexpr OptionSpec kCacheFitOptions[] = {
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
    kMicrobatches,
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
          .options = kCacheFitOptions,
          .make = make_cache_fit};
}

}  // namespace weir
