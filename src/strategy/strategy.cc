#include "strategy/strategy.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"
#include "strategy/attention_pool.h"
#include "strategy/cache_fit.h"
#include "strategy/context_parallel.h"
#include "strategy/tensor_pipeline.h"
#include "strategy/two_level.h"

namespace weir {
namespace {

// Index of the choice or value of the number that `text` names, within the spec's limits.
std::optional<std::int64_t> parse_value(const OptionSpec& spec, std::string_view text) {
  if (!spec.choices.empty()) {
    const auto place = std::ranges::find(spec.choices, text);
    if (place == spec.choices.end()) return std::nullopt;
    return place - spec.choices.begin();
  }
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (value < spec.min || value > spec.max) return std::nullopt;
  return value;
}

std::string allowed_values(const OptionSpec& spec) {
  if (!spec.choices.empty()) return fmt::format("one of: {}", fmt::join(spec.choices, ", "));
  return fmt::format("an integer in {}..{}", spec.min, spec.max);
}

std::size_t index_in(std::span<const OptionSpec> specs, std::string_view name) {
  const auto place = std::ranges::find(specs, name, &OptionSpec::name);
  CHECK(place != specs.end(), "a strategy asked for an option that it does not declare");
  return static_cast<std::size_t>(place - specs.begin());
}

}  // namespace

Result<Options> Options::parse(std::string_view strategy, std::span<const OptionSpec> specs,
                               const OptionValues& values) {
  std::vector<std::string> problems;
  for (const auto& [name, value] : values) {
    if (std::ranges::find(specs, name, &OptionSpec::name) != specs.end()) continue;
    std::vector<std::string_view> names;
    for (const OptionSpec& spec : specs) names.push_back(spec.name);
    problems.push_back(
        fmt::format("--{}: strategy {} has no such option, allowed: {}", name, strategy,
                    names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
  }
  Options options;
  options.specs_ = specs;
  for (const OptionSpec& spec : specs) {
    const auto given = values.find(spec.name);
    std::string_view text = spec.default_value;
    if (given != values.end()) text = given->second;
    const auto value = parse_value(spec, text);
    if (!value)
      problems.push_back(
          fmt::format("--{}: found {}, allowed {}", spec.name, text, allowed_values(spec)));
    options.values_.push_back(value.value_or(0));
    options.given_.push_back(given != values.end());
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return options;
}

std::int64_t Options::number(std::string_view name) const {
  return values_[index_in(specs_, name)];
}

std::size_t Options::choice(std::string_view name) const {
  return static_cast<std::size_t>(number(name));
}

std::string Options::to_string() const {
  std::string text;
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    if (!given_[i]) continue;
    const OptionSpec& spec = specs_[i];
    const auto value = values_[i];
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", spec.name,
                        spec.choices.empty() ? fmt::format("{}", value)
                                             : spec.choices[static_cast<std::size_t>(value)]);
  }
  return text;
}

std::span<const StrategyEntry> strategies() {
  static const std::array kStrategies = {single_strategy(),         tensor_pipeline_strategy(),
                                         attention_pool_strategy(), two_level_strategy(),
                                         cache_fit_strategy(),      context_parallel_strategy()};
  return kStrategies;
}

const StrategyEntry* find_strategy(std::string_view name) {
  const auto all = strategies();
  const auto place = std::ranges::find(all, name, &StrategyEntry::name);
  return place == all.end() ? nullptr : &*place;
}

Result<NamedStrategy> make_strategy(std::string_view name, const OptionValues& values,
                                    const ModelSpec& model, const DeviceFacts& devices) {
  const StrategyEntry* entry = find_strategy(name);
  if (entry == nullptr) {
    std::vector<std::string_view> names;
    for (const StrategyEntry& known : strategies()) names.push_back(known.name);
    return invalid_input(
        fmt::format("--strategy: found {}, allowed one of: {}", name, fmt::join(names, ", ")));
  }
  const auto options = Options::parse(name, entry->options, values);
  if (!options) return tl::unexpected(options.error());
  auto strategy = entry->make(model, *options, devices);
  if (!strategy) return tl::unexpected(strategy.error());
  const std::string text = options->to_string();
  return NamedStrategy{.label = text.empty() ? std::string(name) : fmt::format("{} {}", name, text),
                       .strategy = *std::move(strategy)};
}

}  // namespace weir
