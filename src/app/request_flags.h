#pragma once
// What `weir plan` and `weir simulate` are told of a generation: the setup, and how many requests
// of which lengths.

#include <cstdint>

#include "app/setup.h"
#include "base/json.h"
#include "base/result.h"
#include "spec/model.h"

namespace weir {

// Equal requests that start together.
struct RequestOptions {
  std::int64_t batch_size = 1;
  std::int64_t prompt_len = 1024;
  std::int64_t output_len = 128;
  [[nodiscard]] std::int64_t seq_len() const { return prompt_len + output_len; }

  bool operator==(const RequestOptions&) const = default;
};

inline constexpr IntegerLimits kBatchLimits = {.min = 1, .max = 4096};
inline constexpr IntegerLimits kPromptLimits = {.min = 1, .max = std::int64_t{1} << 31};
inline constexpr IntegerLimits kOutputLimits = {.min = 1, .max = std::int64_t{1} << 20};

// Setup flags (app/setup.h), --activation-dtype, --batch, --prompt-len, --output-len.
void add_request_flags(CLI::App& app, SetupOptions& setup, RequestOptions& requests);

// Fails where a request is longer than the model's positions, and where all together are more than
// 64 bits can count.
[[nodiscard]] Status check_lengths(const ModelSpec& model, const RequestOptions& requests);

}  // namespace weir
