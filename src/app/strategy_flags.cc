#include "app/strategy_flags.h"

#include <algorithm>
#include <map>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/flags.h"

namespace weir {
namespace {

std::string values_of(const OptionSpec& spec) {
  if (!spec.choices.empty()) return fmt::format("{}", fmt::join(spec.choices, "|"));
  return fmt::format("{}..{}", spec.min, spec.max);
}

std::string indented(std::string_view text, std::string_view indent) {
  std::string result(indent);
  for (const char c : text) {
    result += c;
    if (c == '\n') result += indent;
  }
  return result + "\n";
}

}  // namespace

void add_strategy_flags(CLI::App& app, StrategyChoice& choice) {
  std::vector<std::string_view> names;
  std::map<std::string, std::vector<std::string>> flags;  // Option name -> help per strategy.
  for (const StrategyEntry& strategy : strategies()) {
    names.push_back(strategy.name);
    for (const OptionSpec& spec : strategy.options) {
      flags[std::string(spec.name)].push_back(fmt::format("{}: {} ({}, default {})", strategy.name,
                                                          spec.help, values_of(spec),
                                                          spec.default_value));
    }
  }
  add_text(app,
           {.name = "-s,--strategy",
            .help = fmt::format("how to split: {} (default single)", fmt::join(names, ", ")),
            .value = "NAME"},
           choice.name);
  for (const auto& [name, help] : flags) {
    const std::string key = name;
    // Words are joined as in JSON and reports; hyphens, as other flags have them, do as well.
    std::string hyphenated = name;
    std::ranges::replace(hyphenated, '_', '-');
    const std::string spellings =
        hyphenated == name ? "--" + name : fmt::format("--{},--{}", name, hyphenated);
    add_text(app,
             {.name = spellings,
              .help = fmt::format("{}", fmt::join(help, "; ")),
              .value = "VALUE",
              .group = "Strategy options"},
             [&choice, key](const std::string& text) { choice.values[key] = text; });
  }
}

std::string strategy_help() {
  std::string text;
  for (const StrategyEntry& strategy : strategies()) {
    if (!text.empty()) text += '\n';
    text += fmt::format("{}\n", strategy.name) + indented(strategy.help, "  ");
    for (const OptionSpec& spec : strategy.options) {
      text += fmt::format("    --{} {}  {} (default {})\n", spec.name, values_of(spec), spec.help,
                          spec.default_value);
    }
  }
  return text;
}

}  // namespace weir
