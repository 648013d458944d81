#include "bench/engine/program.h"

#include <fmt/format.h>
#include <array>
#include <cstdio>
#include <sstream>

namespace weir::bench {
namespace {

std::string quoted(const std::string& argument) {
  std::string text = "'";
  for (const char c : argument) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace

Result<std::vector<std::string>> lines_of(std::span<const std::string> command) {
  std::string text;
  for (const std::string& argument : command) text += quoted(argument) + ' ';
  FILE* const pipe = popen(text.c_str(), "r");
  if (pipe == nullptr) return run_failed(fmt::format("{}: cannot be started", command.front()));
  std::string output;
  std::array<char, 4096> part{};
  for (std::size_t got = 0; (got = fread(part.data(), 1, part.size(), pipe)) > 0;)
    output.append(part.data(), got);
  if (const int status = pclose(pipe); status != 0)
    return run_failed(fmt::format("{}: ended with status {}", command.front(), status));
  std::istringstream stream(output);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace weir::bench
