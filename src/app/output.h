#pragma once
// What the program says: results on stdout, errors as one line on stderr, progress on stderr where
// somebody watches.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "app/command.h"
#include "base/result.h"
#include "spec/cluster.h"

namespace weir {

// To stdout, at once.
void print(std::string_view text);
// One line of JSON to stdout. Text that is not UTF-8 is replaced.
void print_json(const nlohmann::json& document);
// "weir: MESSAGE" to stderr, on one line whatever the message holds; returns the error's exit code.
ExitCode print_error(const Error& error);
// "note: MESSAGE" to stderr: what is not wrong but may not have been meant.
void print_note(std::string_view message);
// Everything printed has arrived; an error where it could not be written.
[[nodiscard]] Status flush_output();

// Refuses a path whose folder does not exist, before the work whose result is to be written there.
// `flag` is what the message calls it.
[[nodiscard]] Status check_output_path(std::string_view flag,
                                       const std::optional<std::string>& path);

// As load_cluster reads it. There when it is complete; an earlier file of that name stays
// otherwise.
[[nodiscard]] Status write_cluster_file(const std::string& path, const ClusterSpec& cluster);

// One line on stderr that is overwritten by the next, and removed at the end.
class ProgressLine {
 public:
  enum class Shown { on_terminal, always };
  explicit ProgressLine(Shown shown);
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { clear(); }

  void show(std::string_view text);
  void clear();

 private:
  bool is_terminal_;
  bool enabled_;
  std::string last_;
};

}  // namespace weir
