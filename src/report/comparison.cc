#include "report/comparison.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "report/format.h"

namespace weir {
namespace {

using Cell = std::function<std::optional<std::string>(const RunSummary&)>;

template <class T, class Format>
std::optional<std::string> shown(const std::optional<T>& value, const Format& format) {
  if (!value) return std::nullopt;
  return format(*value);
}

std::string duration(Seconds time) { return format_duration(time); }
std::string mean(const Distribution& distribution) { return format_duration(distribution.mean); }
std::string rate(double per_second) { return format_quantity(per_second, ""); }

Cell share_of_time(TimeClass time_class) {
  return [time_class](const RunSummary& run) -> std::optional<std::string> {
    const Metrics& metrics = run.metrics;
    if (!metrics.breakdown || metrics.total_time <= SimTime{}) return std::nullopt;
    return format_share(to_seconds((*metrics.breakdown)[time_class]) /
                        to_seconds(metrics.total_time));
  };
}

std::optional<std::string> bytes_moved(const RunSummary& run) {
  if (run.bytes_moved) return format_bytes(static_cast<double>(run.bytes_moved->value));
  if (!run.metrics.breakdown) return std::nullopt;
  return format_bytes(run.metrics.work[OpClass::communication].bytes);
}

Cell speedup_over(const RunSummary& reference) {
  return [tpot = reference.metrics.tpot](const RunSummary& run) -> std::optional<std::string> {
    if (!tpot || !run.metrics.tpot || run.metrics.tpot->value <= 0) return std::nullopt;
    return format_ratio(*tpot / *run.metrics.tpot);
  };
}

using Columns = std::vector<std::pair<std::string, Cell>>;

Columns columns_of(const RunSummary& reference, ComparisonOptions options) {
  const auto itl = [](const RunSummary& run) { return shown(run.metrics.itl, mean); };
  const auto ttft = [](const RunSummary& run) { return shown(run.metrics.ttft, mean); };
  const auto tpot = [](const RunSummary& run) { return shown(run.metrics.tpot, duration); };
  const auto tps = [](const RunSummary& run) { return shown(run.metrics.tps, rate); };
  const auto busy = [](const RunSummary& run) {
    return shown(run.metrics.utilisation, format_share);
  };
  const auto peak_memory = [](const RunSummary& run) {
    return shown(run.peak_memory,
                 [](Bytes peak) { return format_bytes(static_cast<double>(peak.value)); });
  };
  const auto answers = [](const RunSummary& run) {
    return shown(run.answers_match,
                 [](bool match) { return std::string(match ? "same" : "DIFFERENT"); });
  };
  Columns columns = {{"ttft", ttft},
                     {"tpot", tpot},
                     {"itl", itl},
                     {"tps", tps},
                     {"speed-up", speedup_over(reference)},
                     {"utilisation", busy}};
  for (const TimeClass c : kTimeClasses) {
    if (options.breakdown || c == TimeClass::exposed_comm)
      columns.emplace_back(to_string(c), share_of_time(c));
  }
  columns.emplace_back("moved", bytes_moved);
  columns.emplace_back("peak memory", peak_memory);
  columns.emplace_back("answers", answers);
  return columns;
}

}  // namespace

Table comparison_of(std::span<const RunSummary> runs, ComparisonOptions options) {
  Table table{.columns = {{"run", Align::left}, {"devices"}}, .rows = {}};
  if (runs.empty()) return table;
  for (const RunSummary& run : runs) {
    table.rows.push_back(
        {.cells = {run.name, format_count(static_cast<double>(run.metrics.num_devices))}});
  }
  for (const auto& [title, cell] : columns_of(runs.front(), options)) {
    std::vector<std::optional<std::string>> cells;
    for (const RunSummary& run : runs) cells.push_back(cell(run));
    if (std::ranges::none_of(cells, [](const auto& text) { return text.has_value(); })) continue;
    table.columns.push_back({.title = title});
    for (std::size_t r = 0; r < runs.size(); ++r)
      table.rows[r].cells.push_back(cells[r].value_or(std::string(kUndefined)));
  }
  return table;
}

}  // namespace weir
