#include "claims/bounds.h"

#include <algorithm>

#include <fmt/format.h>

#include "report/format.h"
#include "spec/sizes.h"

namespace weir {
namespace {

struct Least {
  double seconds = 0;
  std::string_view of;
};

Least slower(double arithmetic, double memory, std::string_view read) {
  return arithmetic >= memory ? Least{arithmetic, "arithmetic"} : Least{memory, read};
}

}  // namespace

std::optional<LeastTime> least_time(const ModelSpec& model, const BatchWork& work,
                                    const DeviceType& type, std::int64_t num_devices) {
  auto peak = type.matrix_flops.of(work.dtype);
  if (!peak) peak = type.vector_flops.of(work.dtype);
  if (!peak || !type.memory_bandwidth) return std::nullopt;
  const auto devices = static_cast<double>(num_devices);
  const double flops_per_second = peak->value * devices;
  const double bytes_per_second = type.memory_bandwidth->value * devices;

  const auto batch = static_cast<double>(work.batch_size);
  const auto layers = static_cast<double>(model.num_layers);
  const std::int64_t prompt = std::max<std::int64_t>(1, work.seq_len - work.output_len);
  const std::int64_t mean_len = std::max<std::int64_t>(1, work.seq_len - work.output_len / 2);
  const double linear = layers * static_cast<double>(attention_linear_flops_per_token(model) +
                                                     ffn_flops_per_token(model));
  const auto head = static_cast<double>(lm_head_flops_per_token(model));
  const double attention =
      layers * static_cast<double>(attention_flops(model, {.q_len = 1, .kv_len = mean_len}));
  const double decode_flops = batch * (linear + head + attention);
  // Of the embedding only some rows are read.
  const auto weights =
      static_cast<double>(weight_bytes(model, work.dtype).value -
                          count_parameters(model).embedding * size_in_bytes(work.dtype));
  const double cache = batch * layers * static_cast<double>(mean_len) *
                       static_cast<double>(kv_bytes_per_token_per_layer(model, work.dtype));

  const Least prefill = slower(batch * prefill_flops(model, prompt) / flops_per_second,
                               weights / bytes_per_second, "reading the weights");
  const Least decode = slower(decode_flops / flops_per_second, (weights + cache) / bytes_per_second,
                              "reading weights and KV cache");
  LeastTime least{.prefill = prefill.seconds, .decode_step = decode.seconds, .total = {}};
  least.total = least.prefill + static_cast<double>(work.output_len - 1) * least.decode_step;
  least.says = fmt::format("{} at peak: {} of {} for the prompts, {} of {} per step", num_devices,
                           format_duration(Seconds{prefill.seconds}), prefill.of,
                           format_duration(Seconds{decode.seconds}), decode.of);
  return least;
}

}  // namespace weir
