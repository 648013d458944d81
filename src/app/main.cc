// The program: picks the command, and turns what it returns into an exit code.

#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/rank_session.h"
#include "app/version.h"
#include "comm/launch.h"

namespace weir {
namespace {

ExitCode end_with(const Result<ExitCode>& code) {
  if (!code) return print_error(code.error());
  if (const Status flushed = flush_output(); !flushed) return print_error(flushed.error());
  return *code;
}

Error wants_one_rank(std::string_view command, const Launch& launch) {
  return {
      .kind = ErrorKind::invalid_input,
      .message = fmt::format("{}: found {} ranks, allowed 1 (run, calibrate and bench take more)",
                             command, launch.size)};
}

Error unexpected_end(const std::exception& error) {
  const std::string cause =
      dynamic_cast<const std::bad_alloc*>(&error) != nullptr ? "out of memory" : error.what();
  const auto launch = detect_launch();
  if (!launch || launch->size == 1) return {ErrorKind::run_failed, "run: " + cause};
  return {ErrorKind::run_failed,
          fmt::format("rank {} on host {}: {}", launch->rank, host_name(), cause)};
}

ExitCode run_program(int argc, const char* const* argv) {
  CLI::App app("Plans, simulates and runs transformer inference that is split over devices.",
               "weir");
  app.set_version_flag("--version", "weir " + std::string(kVersion));
  app.require_subcommand(1);
  std::vector<std::unique_ptr<Command>> made;
  std::vector<CLI::App*> parsers;
  for (const CommandEntry& entry : commands()) {
    parsers.push_back(app.add_subcommand(std::string(entry.name), std::string(entry.summary)));
    made.push_back(entry.make());
    made.back()->declare(*parsers.back());
  }
  add_examples(app, "  weir demo\n  weir COMMAND --help");

  const std::optional<Launch> launch = detect_launch();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    if (!launch || launch->rank == 0) app.exit(help_or_version);
    return ExitCode::success;
  } catch (const CLI::ParseError& error) {
    return end_with(refuse(describe(error, app)));
  }
  catch_interrupts();
  for (std::size_t i = 0; i < parsers.size(); ++i) {
    if (!parsers[i]->parsed()) continue;
    const CommandEntry& entry = commands()[i];
    if (launch && launch->size > 1 && !entry.takes_ranks)
      return end_with(refuse(wants_one_rank(entry.name, *launch)));
    return end_with(made[i]->run());
  }
  return ExitCode::wrong_input;
}

}  // namespace
}  // namespace weir

int main(int argc, char** argv) {
  try {
    return static_cast<int>(weir::run_program(argc, argv));
  } catch (const std::exception& error) {  // Memory, above all.
    return static_cast<int>(weir::print_error(weir::unexpected_end(error)));
  }
}
