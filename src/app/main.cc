// The program: picks the command, and turns what it returns into an exit code.

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/interrupt.h"
#include "app/output.h"

namespace weir {
namespace {

ExitCode run_program(int argc, const char* const* argv) {
  CLI::App app("Plans, simulates and runs transformer inference that is split over devices.",
               "weir");
  app.set_version_flag("--version", "weir 0.1.0");
  app.require_subcommand(1);
  std::vector<std::unique_ptr<Command>> made;
  std::vector<CLI::App*> parsers;
  for (const CommandEntry& entry : commands()) {
    parsers.push_back(app.add_subcommand(std::string(entry.name), std::string(entry.summary)));
    made.push_back(entry.make());
    made.back()->declare(*parsers.back());
  }
  add_examples(app, "  weir demo\n  weir COMMAND --help");

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    app.exit(help_or_version);
    return ExitCode::success;
  } catch (const CLI::ParseError& error) {
    return print_error(describe(error, app));
  }
  catch_interrupts();
  for (std::size_t i = 0; i < parsers.size(); ++i) {
    if (!parsers[i]->parsed()) continue;
    const Result<ExitCode> code = made[i]->run();
    if (!code) return print_error(code.error());
    if (const Status flushed = flush_output(); !flushed) return print_error(flushed.error());
    return *code;
  }
  return ExitCode::wrong_input;
}

}  // namespace
}  // namespace weir

int main(int argc, char** argv) {
  try {
    return static_cast<int>(weir::run_program(argc, argv));
  } catch (const std::exception& error) {  // Memory, above all.
    return static_cast<int>(weir::print_error(
        {.kind = weir::ErrorKind::run_failed, .message = std::string("run: ") + error.what()}));
  }
}
