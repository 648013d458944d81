#include "app/request_flags.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

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
  if (requests.seq_len() <= model.max_position) return {};
  return invalid_input(
      fmt::format("--prompt-len: found {} and --output-len {}, allowed {} together (max_position)",
                  requests.prompt_len, requests.output_len, model.max_position));
}

}  // namespace weir
