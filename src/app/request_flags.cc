#include "app/request_flags.h"

#include <algorithm>

#include <fmt/format.h>

#include "app/flags.h"

namespace weir {

void add_request_flags(CLI::App& app, SetupOptions& setup, RequestOptions& requests) {
  add_setup_flags(app, setup);
  add_dtype(app,
            {.name = "--activation-dtype",
             .help = "of activations (default f32 on CPUs, the model's dtype on GPUs)"},
            setup.activation_dtype);
  add_integer(app, {.name = "--batch", .help = "requests (default 1)"}, kBatchLimits,
              requests.batch_size);
  add_integer(app, {.name = "--prompt-len", .help = "tokens of each prompt (default 1024)"},
              kPromptLimits, requests.prompt_len);
  add_integer(app, {.name = "--output-len", .help = "tokens generated for each (default 128)"},
              kOutputLimits, requests.output_len);
}

Status check_lengths(const ModelSpec& model, const RequestOptions& requests) {
  if (requests.seq_len() > model.max_position) {
    return invalid_input(fmt::format(
        "--prompt-len: found {} and --output-len {}, allowed {} together (max_position)",
        requests.prompt_len, requests.output_len, model.max_position));
  }
  const auto positions = static_cast<double>(requests.seq_len());
  const auto all_heads = static_cast<double>(model.num_q_heads * model.head_dim);
  const auto features = static_cast<double>(std::max(model.intermediate_size, model.vocab_size));
  // The most operations of one attention or linear op of a request.
  const double of_one = 4 * positions *
                        std::max(all_heads * positions, static_cast<double>(model.hidden_size) *
                                                            std::max(features, all_heads));
  constexpr double kCountable = 0x1p62;
  if (of_one * static_cast<double>(requests.batch_size) <= kCountable) return {};
  return invalid_input(fmt::format(
      "--batch: found {} requests of {} tokens, allowed {}: their operations cannot be counted",
      requests.batch_size, requests.seq_len(), static_cast<std::int64_t>(kCountable / of_one)));
}

}  // namespace weir
