#include "claims/assumptions.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"
#include "checkpoint/preset.h"

namespace weir {
namespace {

constexpr std::string_view kTpotReadings[] = {"generation", "decode"};
constexpr std::string_view kTpotTokens[] = {"request", "batch"};
constexpr std::string_view kTpsTokens[] = {"all", "output", "decode"};
constexpr std::string_view kFfnKinds[] = {"gated", "plain"};
constexpr std::string_view kScores[] = {"reduce_scores", "gather_qk"};
constexpr std::string_view kDTypes[] = {"f32", "bf16", "f16"};
constexpr std::string_view kSplits[] = {"query_blocks", "balanced_query_blocks", "kv_blocks",
                                        "heads"};

constexpr std::array kSpecs = {
    AssumptionSpec{.name = "batch_size",
                   .help = "sequences that are in flight together, from prompt to last token",
                   .default_value = "1",
                   .min = 1,
                   .max = 4096},
    AssumptionSpec{.name = "output_len",
                   .help = "tokens generated for each sequence",
                   .default_value = "128",
                   .min = 2,
                   .max = 4096},
    AssumptionSpec{.name = "tpot",
                   .help = "time per output token: generation time (prompt included) / output "
                           "tokens, or the mean decode step",
                   .default_value = "generation",
                   .choices = kTpotReadings},
    AssumptionSpec{.name = "tpot_tokens",
                   .help = "output tokens that it is divided by: of one request, or of the batch",
                   .default_value = "request",
                   .choices = kTpotTokens},
    AssumptionSpec{
        .name = "tps_tokens",
        .help = "throughput: prompts and output over the generation, output over it, or output "
                "over the decode steps",
        .default_value = "all",
        .choices = kTpsTokens},
    AssumptionSpec{.name = "vocab_size",
                   .help = "rows of the embedding and of the output layer",
                   .default_value = "32000",
                   .min = 258,
                   .max = kMaxVocabSize},
    AssumptionSpec{.name = "ffn",
                   .help = "three matrices (gate, up, down) or two",
                   .default_value = "gated",
                   .choices = kFfnKinds},
    AssumptionSpec{.name = "dtype",
                   .help = "of weights, activations and KV cache",
                   .default_value = "bf16",
                   .choices = kDTypes},
    AssumptionSpec{.name = "cluster",
                   .help = "nodes of 8 devices from the catalogue, as many as a setup needs",
                   .default_value = "a100-sxm-80gb"},
    AssumptionSpec{.name = "split",
                   .help = "what pool devices share among them (weir strategies)",
                   .default_value = "query_blocks",
                   .choices = kSplits},
    AssumptionSpec{.name = "scores",
                   .help = "how scores of heads in slices become complete (weir strategies)",
                   .default_value = "reduce_scores",
                   .choices = kScores},
    AssumptionSpec{.name = "microbatches",
                   .help = "parts of the batch in flight in a pipeline",
                   .default_value = "8",
                   .min = 1,
                   .max = 64},
    AssumptionSpec{.name = "unstated_len",
                   .help = "tokens of each sequence, where a figure comes without them",
                   .default_value = "8192",
                   .min = 1,
                   .max = 65536},
};

const AssumptionSpec* find_spec(std::string_view name) {
  const auto* found = std::ranges::find(kSpecs, name, &AssumptionSpec::name);
  return found == kSpecs.end() ? nullptr : found;
}

std::optional<std::int64_t> integer_of(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// What is wrong with a value, if anything.
std::optional<std::string> problem_of(const AssumptionSpec& spec, const std::string& value) {
  if (!spec.choices.empty()) {
    if (std::ranges::find(spec.choices, value) != spec.choices.end()) return std::nullopt;
    return fmt::format("found {}, allowed {}", value, fmt::join(spec.choices, ", "));
  }
  if (spec.max == 0) {
    if (!value.empty()) return std::nullopt;
    return "found nothing, allowed a name";
  }
  const auto number = integer_of(value);
  if (number && *number >= spec.min && *number <= spec.max) return std::nullopt;
  return fmt::format("found {}, allowed {}..{}", value, spec.min, spec.max);
}

class Values {
 public:
  explicit Values(const AssumptionValues& values) : values_(values) {}

  [[nodiscard]] std::string text(std::string_view name) const {
    const auto found = values_.find(name);
    return found != values_.end() ? found->second : std::string(find_spec(name)->default_value);
  }
  [[nodiscard]] std::int64_t number(std::string_view name) const {
    const auto value = integer_of(text(name));
    CHECK(value.has_value(), "the value has been checked");
    return *value;
  }
  [[nodiscard]] std::size_t choice(std::string_view name) const {
    const auto choices = find_spec(name)->choices;
    const auto found = std::ranges::find(choices, text(name));
    CHECK(found != choices.end(), "the value has been checked");
    return static_cast<std::size_t>(found - choices.begin());
  }

 private:
  const AssumptionValues& values_;
};

}  // namespace

std::span<const AssumptionSpec> assumption_specs() { return kSpecs; }

Result<Assumptions> make_assumptions(const AssumptionValues& values, std::string_view where) {
  std::vector<std::string> problems;
  for (const auto& [name, value] : values) {
    const AssumptionSpec* spec = find_spec(name);
    if (spec == nullptr) {
      std::vector<std::string_view> names;
      for (const AssumptionSpec& known : kSpecs) names.push_back(known.name);
      problems.push_back(
          fmt::format("{}: found {}, allowed {}", where, name, fmt::join(names, ", ")));
    } else if (const auto problem = problem_of(*spec, value)) {
      problems.push_back(fmt::format("{}.{}: {}", where, name, *problem));
    }
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  const Values read(values);
  return Assumptions{.batch_size = read.number("batch_size"),
                     .output_len = read.number("output_len"),
                     .tpot = static_cast<TpotReading>(read.choice("tpot")),
                     .tpot_tokens = static_cast<TpotTokens>(read.choice("tpot_tokens")),
                     .tps_tokens = static_cast<TpsTokens>(read.choice("tps_tokens")),
                     .vocab_size = read.number("vocab_size"),
                     .ffn = static_cast<FfnKind>(read.choice("ffn")),
                     .dtype = *parse_dtype(read.text("dtype")),
                     .cluster = read.text("cluster"),
                     .split = read.text("split"),
                     .scores = read.text("scores"),
                     .microbatches = read.number("microbatches"),
                     .unstated_len = read.number("unstated_len")};
}

Result<ModelSpec> assumed_model(std::string_view preset, const Assumptions& assumptions) {
  auto model = preset_model(
      preset,
      {.dtype = assumptions.dtype, .vocab_size = assumptions.vocab_size, .max_position = {}});
  if (!model) return model;
  model->gated_ffn = assumptions.ffn == FfnKind::gated;
  // The published architectures fix what their FFN is.
  model->architecture = Architecture::dense;
  return model;
}

}  // namespace weir
