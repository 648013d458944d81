#include "checkpoint/preset.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"
#include "checkpoint/random_model.h"
#include "checkpoint/recall.h"

namespace weir {
namespace {

constexpr std::array kPresets = {
    Preset{.name = "tiny",
           .description = "a Llama small enough for tests: 2 layers, 4 query and 2 KV heads of 16"},
    Preset{.name = "fa-pool-4l",
           .description =
               "the attention pool's model: 4 layers, 32 heads of 128, gated GELU FFN of "
               "16384",
           .claimed_parameters = 13e9},
    Preset{.name = "two-level-2l",
           .description = "two-level partitioning's model: 2 layers, 16 heads of 512, plain FFN of "
                          "32768"},
    Preset{.name = "cache-16l",
           .description = "layer-wise partitioning's model: 16 layers, 32 heads of 128, plain FFN "
                          "of 16384",
           .claimed_parameters = 30e9},
    Preset{.name = "recall",
           .description = "constructed to look up a key planted anywhere in a text of any length: "
                          "2 layers, 8 query and 4 KV heads of 64",
           .is_constructed = true},
};

constexpr double kSmallestScale = 1.0 / 256;
constexpr double kLargestScale = 8;
constexpr std::int64_t kFewestHeads = 4;
constexpr std::int64_t kSmallestHeadDim = 16;
// The notes name no vocabulary; 32000 is that of Llama.
constexpr std::int64_t kNotesVocabSize = 32000;

ModelSpec full_model(std::string_view name) {
  ModelSpec model{.name = std::string(name),
                  .eos_token_ids = {kRandomModelEos},
                  .bos_token_id = kRandomModelBos};
  const auto set_heads = [&](std::int64_t num_q_heads, std::int64_t num_kv_heads,
                             std::int64_t head_dim) {
    model.num_q_heads = num_q_heads;
    model.num_kv_heads = num_kv_heads;
    model.head_dim = head_dim;
    model.hidden_size = num_q_heads * head_dim;
  };
  if (name == "tiny") {
    set_heads(4, 2, 16);
    model.num_layers = 2;
    model.intermediate_size = 192;
    model.vocab_size = 320;
    model.max_position = 8192;
  } else if (name == "fa-pool-4l") {
    // "GELU" with "Gate/Up projection"; "65536 tokens tested successfully".
    set_heads(32, 32, 128);
    model.num_layers = 4;
    model.intermediate_size = 16384;
    model.activation = Activation::gelu_erf;
    model.vocab_size = kNotesVocabSize;
    model.max_position = 65536;
  } else if (name == "two-level-2l") {
    // "MLP", "Sequence Length: 10000".
    set_heads(16, 16, 512);
    model.num_layers = 2;
    model.architecture = Architecture::dense;
    model.gated_ffn = false;
    model.activation = Activation::gelu_erf;
    model.intermediate_size = 32768;
    model.vocab_size = kNotesVocabSize;
    model.max_position = 16384;
  } else {
    CHECK(name == "cache-16l", "the preset has a model");
    // "MLP", "Sequence Length: 10000".
    set_heads(32, 32, 128);
    model.num_layers = 16;
    model.architecture = Architecture::dense;
    model.gated_ffn = false;
    model.activation = Activation::gelu_erf;
    model.intermediate_size = 16384;
    model.vocab_size = kNotesVocabSize;
    model.max_position = 16384;
  }
  return model;
}

// Half the width. False where heads and head_dim are as small as they may be.
bool halve(ModelSpec& model) {
  if (model.num_q_heads > kFewestHeads && model.num_kv_heads > 1) {
    model.num_q_heads /= 2;
    model.num_kv_heads /= 2;
  } else if (model.head_dim > kSmallestHeadDim) {
    model.head_dim /= 2;
  } else {
    return false;
  }
  model.intermediate_size /= 2;
  return true;
}

Status apply_scale(double scale, ModelSpec& model) {
  int exponent = 0;
  const bool is_power_of_two =
      scale >= kSmallestScale && scale <= kLargestScale && std::frexp(scale, &exponent) == 0.5;
  double smallest = kSmallestScale;
  if (is_power_of_two) {
    double reached = 1;
    while (reached > scale && halve(model)) reached /= 2;
    if (reached <= scale) {
      const auto factor = static_cast<std::int64_t>(scale / reached);
      model.num_q_heads *= factor;
      model.num_kv_heads *= factor;
      model.intermediate_size *= factor;
      model.hidden_size = model.num_q_heads * model.head_dim;
      return {};
    }
    smallest = reached;
  }
  return invalid_input(fmt::format("scale: found {}, allowed a power of two in {}..{} for {}",
                                   scale, smallest, kLargestScale, model.name));
}

Status apply_limits(const PresetOptions& options, ModelSpec& model) {
  const auto apply = [](std::string_view field, std::optional<std::int64_t> found,
                        std::int64_t smallest, std::int64_t largest,
                        std::int64_t& target) -> Status {
    if (!found) return {};
    if (*found < smallest || *found > largest) {
      return invalid_input(
          fmt::format("{}: found {}, allowed {}..{}", field, *found, smallest, largest));
    }
    target = *found;
    return {};
  };
  // The bytes and the two special tokens of a random model.
  auto status =
      apply("vocab_size", options.vocab_size, kRandomModelEos + 1, kMaxVocabSize, model.vocab_size);
  if (!status) return status;
  return apply("max_position", options.max_position, 1, kMaxModelPosition, model.max_position);
}

Result<ModelSpec> recall_preset(const PresetOptions& options) {
  if (options.scale != 1 || options.vocab_size || options.max_position) {
    return invalid_input(
        "recall: found a scale, vocab_size or max_position, allowed none: its "
        "weights are constructed for one shape");
  }
  return recall_model(options.dtype);
}

const Preset* find_preset(std::string_view name) {
  const auto* found = std::ranges::find(kPresets, name, &Preset::name);
  return found == kPresets.end() ? nullptr : found;
}

}  // namespace

std::span<const Preset> presets() { return kPresets; }

Result<ModelSpec> preset_model(std::string_view name, const PresetOptions& options) {
  const Preset* preset = find_preset(name);
  if (preset == nullptr) {
    std::vector<std::string_view> names;
    names.reserve(kPresets.size());
    for (const Preset& known : kPresets) names.push_back(known.name);
    return invalid_input(
        fmt::format("preset: found \"{}\", allowed one of: {}", name, fmt::join(names, ", ")));
  }
  if (preset->is_constructed) return recall_preset(options);
  ModelSpec model = full_model(name);
  if (auto scaled = apply_scale(options.scale, model); !scaled) {
    return tl::unexpected(scaled.error());
  }
  if (auto limited = apply_limits(options, model); !limited) {
    return tl::unexpected(limited.error());
  }
  model.rope.rotary_dim = model.head_dim;
  model.weight_dtype = options.dtype;
  return model;
}

Status write_preset_model(const std::string& folder, std::string_view name,
                          const PresetOptions& preset, const WriteModelOptions& options) {
  const auto model = preset_model(name, preset);
  if (!model) return tl::unexpected(model.error());
  if (find_preset(name)->is_constructed) {
    return write_recall_model(folder, model->weight_dtype, options);
  }
  return write_random_model(folder, *model, options);
}

}  // namespace weir
