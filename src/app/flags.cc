#include "app/flags.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "app/command.h"

namespace weir {
namespace {

// The long form of "-m,--model".
std::string long_name(const FlagText& flag) { return flag.name.substr(flag.name.find("--")); }

CLI::Option* add_value(CLI::App& app, const FlagText& flag, const std::string& type,
                       const std::function<void(const std::string&)>& read) {
  auto* option = app.add_option_function<std::string>(flag.name, read, flag.help);
  option->type_name(type)->required(flag.required);
  if (!flag.group.empty()) option->group(flag.group);
  return option;
}

[[noreturn]] void refuse(const FlagText& flag, const std::string& found,
                         const std::string& allowed) {
  throw CLI::ValidationError(
      long_name(flag),
      fmt::format("found {}, allowed {}", found.empty() ? "an empty value" : found, allowed));
}

template <class Number>
std::optional<Number> parse_number(const std::string& text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::int64_t read_integer(const FlagText& flag, IntegerLimits limits, const std::string& text) {
  const auto value = parse_number<std::int64_t>(text);
  if (value && *value >= limits.min && *value <= limits.max) return *value;
  refuse(flag, text, fmt::format("an integer in {}..{}", limits.min, limits.max));
}

double read_number(const FlagText& flag, NumberLimits limits, const std::string& text) {
  const auto value = parse_number<double>(text);
  if (value && *value >= limits.min && *value <= limits.max) return *value;
  refuse(flag, text, fmt::format("a number in {}..{}", limits.min, limits.max));
}

const CLI::App& parsed_leaf(const CLI::App& app) {
  const CLI::App* leaf = &app;
  while (!leaf->get_subcommands().empty()) leaf = leaf->get_subcommands().front();
  return *leaf;
}

// "weir model new"
std::string path_of(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name()
                                     : path_of(*app.get_parent()) + " " + app.get_name();
}

std::string names_of_subcommands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

void add_integer(CLI::App& app, const FlagText& flag, IntegerLimits limits, std::int64_t& value) {
  add_value(app, flag, "N", [flag, limits, &value](const std::string& text) {
    value = read_integer(flag, limits, text);
  });
}

void add_integer(CLI::App& app, const FlagText& flag, IntegerLimits limits,
                 std::optional<std::int64_t>& value) {
  add_value(app, flag, "N", [flag, limits, &value](const std::string& text) {
    value = read_integer(flag, limits, text);
  });
}

void add_number(CLI::App& app, const FlagText& flag, NumberLimits limits, double& value) {
  add_value(app, flag, "X", [flag, limits, &value](const std::string& text) {
    value = read_number(flag, limits, text);
  });
}

void add_number(CLI::App& app, const FlagText& flag, NumberLimits limits,
                std::optional<double>& value) {
  add_value(app, flag, "X", [flag, limits, &value](const std::string& text) {
    value = read_number(flag, limits, text);
  });
}

void add_seed(CLI::App& app, std::uint64_t& value) {
  const FlagText flag = {.name = "--seed", .help = "seed of what is random (default 0)"};
  add_value(app, flag, "N", [flag, &value](const std::string& text) {
    const auto number = parse_number<std::uint64_t>(text);
    if (!number) refuse(flag, text, "an integer in 0..18446744073709551615");
    value = *number;
  });
}

void add_text(CLI::App& app, const FlagText& flag, std::string& value) {
  add_text(app, flag, [&value](const std::string& text) { value = text; });
}

void add_text(CLI::App& app, const FlagText& flag, std::optional<std::string>& value) {
  add_text(app, flag, [&value](const std::string& text) { value = text; });
}

void add_text(CLI::App& app, const FlagText& flag,
              const std::function<void(const std::string&)>& read) {
  add_value(app, flag, flag.value, read);
}

void add_output(CLI::App& app, const FlagText& flag, std::optional<std::string>& path) {
  add_value(app, flag, "[FILE]", [&path](const std::string& text) {
    path = text.empty() ? "-" : text;
  })->expected(0, 1);
}

void add_texts(CLI::App& app, const FlagText& flag, std::vector<std::string>& values) {
  app.add_option(flag.name, values, flag.help)
      ->type_name(flag.value)
      ->required(flag.required)
      ->allow_extra_args(false);
}

void add_choice(CLI::App& app, const FlagText& flag, std::span<const std::string_view> choices,
                std::size_t& value) {
  add_value(app, flag, fmt::format("{}", fmt::join(choices, "|")),
            [flag, choices, &value](const std::string& text) {
              const auto place = std::ranges::find(choices, text);
              if (place == choices.end())
                refuse(flag, text, fmt::format("one of: {}", fmt::join(choices, ", ")));
              value = static_cast<std::size_t>(place - choices.begin());
            });
}

void add_dtype(CLI::App& app, const FlagText& flag, std::optional<DType>& value) {
  add_value(app, flag, "f32|bf16|f16", [flag, &value](const std::string& text) {
    const auto dtype = parse_dtype(text);
    if (!dtype) refuse(flag, text, "one of: f32, bf16, f16");
    value = *dtype;
  });
}

void add_switch(CLI::App& app, const FlagText& flag, bool& value) {
  app.add_flag(flag.name, value, flag.help);
}

bool is_given(const CLI::App& app, const std::string& name) { return app.count(name) != 0; }

CLI::App& add_subcommand(CLI::App& app, const std::string& name, const std::string& summary) {
  app.require_subcommand(1);
  return *app.add_subcommand(name, summary);
}

bool is_named(const CLI::App& subcommand) { return subcommand.parsed(); }

void add_examples(CLI::App& app, const std::string& examples) {
  app.footer("\nExamples:\n" + examples);
}

Error describe(const CLI::ParseError& error, const CLI::App& app) {
  const CLI::App& leaf = parsed_leaf(app);
  const std::string what = error.what();
  const std::string help = fmt::format("(see `{} --help`)", path_of(leaf));
  const auto wrong = [](std::string message) {
    return Error{.kind = ErrorKind::invalid_input, .message = std::move(message)};
  };
  const std::vector<std::string> extras = app.remaining(true);
  const auto code = static_cast<CLI::ExitCodes>(error.get_exit_code());
  const std::string commands = names_of_subcommands(leaf);
  if (!commands.empty() &&
      (code == CLI::ExitCodes::RequiredError || code == CLI::ExitCodes::ExtrasError)) {
    return wrong(fmt::format("command: found {}, allowed one of: {}",
                             extras.empty() ? "none" : extras.front(), commands));
  }
  if (code == CLI::ExitCodes::ExtrasError && !extras.empty()) {
    return wrong(fmt::format("{}: found an unknown {}, allowed what {} has {}", extras.front(),
                             extras.front().starts_with("-") ? "option" : "argument", path_of(leaf),
                             help));
  }
  if (code == CLI::ExitCodes::RequiredError) {  // "--model is required"
    return wrong(
        fmt::format("{}: found nothing, allowed a value {}", what.substr(0, what.find(' ')), help));
  }
  if (code == CLI::ExitCodes::ArgumentMismatch) {  // "--model: 1 required TEXT missing"
    return wrong(fmt::format("{}: found another number of values than the one that is allowed {}",
                             what.substr(0, what.find(':')), help));
  }
  return wrong(what);
}

}  // namespace weir
