#pragma once
// The words of the data files' expressions: which functions and names there are, and what a call
// takes. What they come to is decided in recomputation.h.

#include <array>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "claims/expression.h"

namespace weir {

enum class Function : std::uint8_t {
  tpot,
  tps,
  prefill,
  step,
  comm_per_token,
  share,
  memory,
  gpus,
  pool,
  rule_pool,
  best_pool,
  peak_watts,
  mean_watts,
  tokens_per_joule,
  parameters,
};

enum class ParameterKind : std::uint8_t { setup, group, time, memory, part, number };

struct FunctionSpec {
  std::string_view name;
  std::string_view help;  // One line.
  std::span<const ParameterKind> parameters;
};
// In the order of Function.
[[nodiscard]] std::span<const FunctionSpec> function_specs();
[[nodiscard]] const FunctionSpec& spec_of(Function function);
[[nodiscard]] Function function_of(std::string_view name);  // Of a checked expression.

// Devices of a setup: those with weights, those without that take part, or both.
enum class DeviceSet : std::uint8_t { all, base, pool };
inline constexpr std::array<std::string_view, 3> kDeviceSets = {"all", "base", "pool"};

// Parts of the devices' time (result/metrics.h), some of them together.
enum class TimeShare : std::uint8_t {
  attention,
  linear,
  elementwise,
  compute,        // The three above.
  communication,  // Exposed.
  synchronisation,
  idle,
  overhead,  // Communication and synchronisation.
};
inline constexpr std::array<std::string_view, 8> kTimeShares = {
    "attention",     "linear",          "elementwise", "compute",
    "communication", "synchronisation", "idle",        "overhead"};

// Categories of plan/memory.h.
enum class MemoryPart : std::uint8_t {
  weights,
  kv_cache,
  activations,  // With communication buffers, without what attention puts out.
  attention,
  total,
};
inline constexpr std::array<std::string_view, 5> kMemoryParts = {
    "weights", "kv_cache", "activations", "attention", "total"};

enum class ModelPart : std::uint8_t {
  total,
  embedding,
  qkv,
  attention_output,
  attention_layer,
  ffn_up,
  ffn_down,
  ffn_layer,
  layer,
  lm_head,
};
inline constexpr std::array<std::string_view, 10> kModelParts = {
    "total",    "embedding", "qkv",   "attention_output", "attention_layer", "ffn_up",
    "ffn_down", "ffn_layer", "layer", "lm_head"};

// Names that have a value in every note.
inline constexpr std::array<std::string_view, 18> kNames = {
    "tokens_per_tpot", "batch_size",        "output_len",      "unstated_len", "num_layers",
    "hidden_size",     "intermediate_size", "num_heads",       "head_dim",     "vocab_size",
    "dtype_bytes",     "device_memory",     "l2_bytes",        "max_watts",    "link_bandwidth",
    "nic_bandwidth",   "peak_flops",        "memory_bandwidth"};

// Whether `setups`, the row's `names` and the words above are enough to evaluate it, figures aside.
[[nodiscard]] Status check_words(const Expression& expression,
                                 const std::set<std::string, std::less<>>& setups,
                                 const std::set<std::string, std::less<>>& names);

// Whether a bare name in a call stands for itself in some function.
[[nodiscard]] bool is_word(std::string_view name);
// Whether a note may give this name to a setup: a-z, 0-9 and _, a letter first, and no value of
// its own. The variable of its rows must be neither a word nor a setup as well.
[[nodiscard]] bool is_free_name(std::string_view name);

}  // namespace weir
