// The figures of kernel_bench, on one core and on all, side by side.

#include <fmt/format.h>
#include <map>
#include <thread>

#include "bench/engine/program.h"
#include "bench/engine/sections.h"
#include "report/table.h"

namespace weir::bench {
namespace {

// The parts of a line that two spaces or more hold apart.
std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t gap = std::min(line.find("  ", at), line.size());
    if (gap > at) fields.push_back(line.substr(at, gap - at));
    at = std::min(line.find_first_not_of(' ', gap), line.size());
  }
  return fields;
}

}  // namespace

Result<std::string> kernels_section(const SectionOptions& options) {
  const unsigned all = std::max(1U, std::thread::hardware_concurrency());
  std::vector<std::string> names;  // In the order in which they come.
  std::map<std::string, std::vector<std::string>> cells;
  std::string sentences;
  for (const unsigned cores : {1U, all}) {
    options.progress(fmt::format("kernel_bench on {} cores", cores));
    const std::array<std::string, 2> command = {options.programs + "/kernel_bench",
                                                std::to_string(cores)};
    const auto lines = lines_of(command);
    if (!lines) return tl::unexpected(lines.error());
    for (const std::string& line : *lines) {
      const std::vector<std::string> fields = fields_of(line);
      if (fields.size() < 4) {  // Peaks, and what has no ceiling.
        sentences += line + ".\n";
        continue;
      }
      if (!cells.contains(fields[0])) names.push_back(fields[0]);
      cells[fields[0]].push_back(fields[2] + ", " + fields[3]);
    }
  }
  Table table{.columns = {{"kernel", Align::left}, {"1 core"}, {fmt::format("{} cores", all)}},
              .rows = {}};
  for (const std::string& name : names) {
    std::vector<std::string> row = {name};
    row.insert(row.end(), cells[name].begin(), cells[name].end());
    table.rows.push_back({.cells = std::move(row)});
  }
  return fmt::format(
      "Medians; beside each the ceiling that was measured around it (multiply-adds, or reading "
      "memory), the median's share of it, and that of the fastest and the slowest "
      "repetition.\n\n{}\n{}\n",
      sentences, render_markdown(table));
}

}  // namespace weir::bench
