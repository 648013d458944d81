#pragma once
// The real program, started as a user would.

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace weir {

struct ProgramResult {
  int exit_code = -1;  // 128 + signal where a signal ended it.
  std::string out;
  std::string err;
};

struct ProgramOptions {
  // Sends SIGINT as soon as this many bytes have come out of stdout and stderr together.
  std::optional<std::size_t> interrupt_after = {};
  // Called once, when the first output has come, or the end without any.
  std::function<void()> on_output = {};
  // Asked again and again; where it says so, the program is killed and that is no failure.
  std::function<bool()> give_up = {};
};

// Runs build/weir with `arguments`; stdin is empty. Kills it after a minute.
[[nodiscard]] ProgramResult run_weir(std::vector<std::string> arguments,
                                     ProgramOptions options = {});
// The same for any program; the first word of the command is looked for in PATH.
[[nodiscard]] ProgramResult run_program(std::vector<std::string> command,
                                        ProgramOptions options = {});

}  // namespace weir
