#pragma once
// One command of the program. A new one is a file with a class like the others, and a line in the
// table of commands.cc.

#include <memory>
#include <span>
#include <string_view>

#include "base/result.h"

namespace CLI {
class App;
}

namespace weir {

enum class ExitCode : int {
  success = 0,
  run_failed = 1,
  wrong_input = 2,    // Of the command line, or of what it names.
  interrupted = 130,  // By Ctrl-C, after printing what there was: 128 + SIGINT.
};

class Command {
 public:
  Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  virtual ~Command() = default;

  // Adds options and an example to `app`, which writes into this object when it parses.
  virtual void declare(CLI::App& app) = 0;
  // After parsing. An error becomes one line on stderr and the exit code of its kind.
  virtual Result<ExitCode> run() = 0;
};

struct CommandEntry {
  std::string_view name;
  std::string_view summary;
  std::unique_ptr<Command> (*make)();
  bool takes_ranks = false;  // Whether a launcher may start it as several ranks.
};
// All commands, in the order in which they are listed to people.
[[nodiscard]] std::span<const CommandEntry> commands();

[[nodiscard]] std::unique_ptr<Command> make_devices_command();
[[nodiscard]] std::unique_ptr<Command> make_model_command();
[[nodiscard]] std::unique_ptr<Command> make_strategies_command();
[[nodiscard]] std::unique_ptr<Command> make_plan_command();
[[nodiscard]] std::unique_ptr<Command> make_simulate_command();
[[nodiscard]] std::unique_ptr<Command> make_accuracy_command();
[[nodiscard]] std::unique_ptr<Command> make_calibrate_command();
[[nodiscard]] std::unique_ptr<Command> make_bench_command();
[[nodiscard]] std::unique_ptr<Command> make_claims_command();
[[nodiscard]] std::unique_ptr<Command> make_run_command();
[[nodiscard]] std::unique_ptr<Command> make_demo_command();

}  // namespace weir
