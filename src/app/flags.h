#pragma once
// Command-line options that check themselves: a wrong value is refused with the option's name, the
// value found and those allowed. Commands declare theirs with these functions alone: CLI11, which
// takes seconds to compile wherever it is included, stays in flags.cc and main.cc.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace weir {

struct FlagText {
  std::string name;  // "--prefill-chunk", or "-m,--model" with its short form.
  std::string help;  // One line.
  bool required = false;
  std::string value = "TEXT";  // What --help calls a value that is text.
  std::string group = {};      // The heading it has in --help, where that is one of its own.
};

// Each writes to `value` only when the option is given.
void add_integer(CLI::App& app, const FlagText& flag, IntegerLimits limits, std::int64_t& value);
void add_integer(CLI::App& app, const FlagText& flag, IntegerLimits limits,
                 std::optional<std::int64_t>& value);
void add_number(CLI::App& app, const FlagText& flag, NumberLimits limits, double& value);
void add_number(CLI::App& app, const FlagText& flag, NumberLimits limits,
                std::optional<double>& value);
void add_seed(CLI::App& app, std::uint64_t& value);  // --seed
void add_text(CLI::App& app, const FlagText& flag, std::string& value);
void add_text(CLI::App& app, const FlagText& flag, std::optional<std::string>& value);
void add_text(CLI::App& app, const FlagText& flag,
              const std::function<void(const std::string&)>& read);
// A file to write: "-", which is stdout, where the option is given without one.
void add_output(CLI::App& app, const FlagText& flag, std::optional<std::string>& path);
// May be given several times, with one value each.
void add_texts(CLI::App& app, const FlagText& flag, std::vector<std::string>& values);
// Index among `choices`, which must outlive the app.
void add_choice(CLI::App& app, const FlagText& flag, std::span<const std::string_view> choices,
                std::size_t& value);
void add_dtype(CLI::App& app, const FlagText& flag, std::optional<DType>& value);
void add_switch(CLI::App& app, const FlagText& flag, bool& value);
// Whether the command line has the option that was added as `name`.
[[nodiscard]] bool is_given(const CLI::App& app, const std::string& name);

// One of `app`'s subcommands, of which exactly one must be named.
[[nodiscard]] CLI::App& add_subcommand(CLI::App& app, const std::string& name,
                                       const std::string& summary);
[[nodiscard]] bool is_named(const CLI::App& subcommand);

// Shown below the options of --help.
void add_examples(CLI::App& app, const std::string& examples);

// What is wrong with the command line, in one line that names field, found and allowed.
[[nodiscard]] Error describe(const CLI::ParseError& error, const CLI::App& app);

}  // namespace weir
