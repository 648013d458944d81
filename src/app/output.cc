#include "app/output.h"

#include <cstdio>
#include <filesystem>

#include <fmt/format.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "report/output_file.h"

namespace weir {
namespace {

void write(std::FILE* stream, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);  // Errors stay with the stream until flush_output asks for them.
}

ExitCode exit_code_of(const Error& error) {
  switch (error.kind) {
    case ErrorKind::invalid_input:
      return ExitCode::wrong_input;
    case ErrorKind::run_failed:
      break;
  }
  return ExitCode::run_failed;
}

// Whatever it holds.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return text + "\n";
}

}  // namespace

void print(std::string_view text) { write(stdout, text); }

void print_json(const nlohmann::json& document) {
  print(document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

Status write_cluster_file(const std::string& path, const ClusterSpec& cluster) {
  auto file = OutputFile::create(path);
  if (!file) return tl::unexpected(file.error());
  if (auto written = file->write(cluster_to_json(cluster).dump(1) + "\n"); !written) return written;
  return file->commit();
}

ExitCode print_error(const Error& error) {
  write(stderr, one_line("weir: " + error.message));
  return exit_code_of(error);
}

void print_note(std::string_view message) {
  write(stderr, one_line("note: " + std::string(message)));
}

Status flush_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return {};
  return run_failed("stdout: found that not all output could be written, allowed no loss");
}

Status check_output_path(std::string_view flag, const std::optional<std::string>& path) {
  if (!path) return {};
  std::error_code ignored;
  const auto folder = std::filesystem::absolute(*path).parent_path();
  if (!path->empty() && std::filesystem::is_directory(folder, ignored) &&
      !std::filesystem::is_directory(*path, ignored)) {
    return {};
  }
  return invalid_input(fmt::format("{}: found {}, allowed a file in an existing folder", flag,
                                   path->empty() ? "an empty path" : *path));
}

ProgressLine::ProgressLine(Shown shown)
    : is_terminal_(isatty(STDERR_FILENO) != 0), enabled_(is_terminal_ || shown == Shown::always) {}

void ProgressLine::show(std::string_view text) {
  if (!enabled_ || text == last_) return;
  // A terminal's line is overwritten; a file gets one line per change.
  write(stderr, is_terminal_ ? fmt::format("\r\x1b[K{}", text) : fmt::format("{}\n", text));
  last_ = text;
}

void ProgressLine::clear() {
  if (enabled_ && is_terminal_ && !last_.empty()) write(stderr, "\r\x1b[K");
  last_.clear();
}

}  // namespace weir
