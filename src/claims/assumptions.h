#pragma once
// What the source notes leave open and a recomputation must fill in: each assumption is named, says
// what it decides and where its value comes from, and can be changed by a flag of the same name.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "spec/model.h"

namespace weir {

// One assumption that can be made. Spelled alike in data files, as flag (with '-' for '_') and in
// reports.
struct AssumptionSpec {
  std::string_view name;
  std::string_view help;           // One line: what it decides.
  std::string_view default_value;  // As it would be written.
  // Either one of `choices`, or a number within limits, or any text where max is 0.
  std::int64_t min = 0;
  std::int64_t max = 0;
  std::span<const std::string_view> choices = {};
};
// All of them, in the order in which they are printed.
[[nodiscard]] std::span<const AssumptionSpec> assumption_specs();

// What a time per output token is, where a note gives no formula for it.
enum class TpotReading {
  generation,  // From the arrival of the batch to its last token, by the tokens generated.
  decode,      // The mean decode step.
};
// By how many tokens that time is divided.
enum class TpotTokens {
  request,  // Of one request: how long a user waits for the next token.
  batch,    // Of all requests together: the inverse of the output throughput.
};
enum class TpsTokens {
  all,     // Prompts and output, over the whole generation.
  output,  // Output over the whole generation.
  decode,  // Output over the decode steps.
};
enum class FfnKind { gated, plain };

// Values by name, as written, of those that differ from the default.
using AssumptionValues = std::map<std::string, std::string, std::less<>>;

struct Assumptions {
  std::int64_t batch_size = 1;
  std::int64_t output_len = 128;
  TpotReading tpot = TpotReading::generation;
  TpotTokens tpot_tokens = TpotTokens::request;
  TpsTokens tps_tokens = TpsTokens::all;
  std::int64_t vocab_size = 32000;
  FfnKind ffn = FfnKind::gated;
  DType dtype = DType::bf16;  // Of weights, activations and the KV cache.
  std::string cluster;        // Of the catalogue, without counts, or a cluster file.
  std::string split;          // Of the attention pool.
  std::string scores;         // Of two-level partitioning.
  std::int64_t microbatches = 8;
  std::int64_t unstated_len = 8192;  // Tokens of each sequence, where a figure comes without it.
};

// Fails on a name or a value that the specs do not have; `where` is what messages call the values.
[[nodiscard]] Result<Assumptions> make_assumptions(const AssumptionValues& values,
                                                   std::string_view where);

// The model of a preset under the assumptions.
[[nodiscard]] Result<ModelSpec> assumed_model(std::string_view preset,
                                              const Assumptions& assumptions);

}  // namespace weir
