#include "app/sweep_page.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "report/format.h"
#include "report/table.h"

namespace weir {
namespace {

constexpr std::string_view kSpeedUp =
    "generation time of the baseline / of the point; the baseline is the point with the fewest "
    "devices that fits, for the same requests";
constexpr std::string_view kEfficiency = "speed-up / (devices / devices of the baseline)";
// Wider grids are easier to read point by point.
constexpr std::size_t kMostColumns = 12;

std::string optional_seconds(const std::optional<Seconds>& time) {
  return format_or_undefined(time, [](Seconds value) { return format_duration(value); });
}

std::string ratio(const std::optional<double>& value) {
  return format_or_undefined(value, format_ratio);
}

std::string share(const std::optional<double>& value) {
  return format_or_undefined(value, format_share);
}

std::string_view state_of(const SweepPoint& point) {
  if (!point.figures) return "impossible";
  return point.figures->shortage ? "does not fit" : "";
}

// Why points are impossible or do not fit: each reason once, with the first point that has it.
std::string reasons(const Sweep& sweep) {
  std::vector<std::pair<std::string, std::string>> seen;  // Reason, point.
  std::map<std::string, std::int64_t> times;
  for (const SweepPoint& point : sweep.points) {
    if (state_of(point).empty()) continue;
    const std::string reason = point.figures
                                   ? fmt::format("does not fit: {}", *point.figures->shortage)
                                   : fmt::format("impossible: {}", point.problem);
    if (times[reason]++ > 0) continue;
    std::vector<std::string> where;
    for (std::size_t a = 0; a < sweep.axes.size(); ++a)
      where.push_back(fmt::format("{}={}", sweep.axes[a].name, point.values[a]));
    seen.emplace_back(reason, fmt::format("{}", fmt::join(where, " ")));
  }
  std::string text;
  for (const auto& [reason, where] : seen) {
    const std::int64_t more = times[reason] - 1;
    text += fmt::format("{}{}: {}\n", where, more > 0 ? fmt::format(" and {} more", more) : "",
                        printable(reason));
  }
  return text;
}

std::string definitions(const Sweep& sweep) {
  if (!sweep.compares_setups()) return "";
  return fmt::format("speed-up: {}\nefficiency: {}\n", kSpeedUp, kEfficiency);
}

// A row per point.
Table point_table(const Sweep& sweep) {
  Table table;
  for (const SweepAxis& axis : sweep.axes) table.columns.push_back({axis.name});
  for (const char* title : {"devices", "ttft", "tpot", "itl", "output tok/s"})
    table.columns.push_back({title});
  const bool compares = sweep.compares_setups();
  if (compares) {
    table.columns.push_back({"speed-up"});
    table.columns.push_back({"efficiency"});
  }
  for (const char* title : {"peak memory", "J/token", "USD/M tokens"})
    table.columns.push_back({title});
  table.columns.push_back({"", Align::left});
  for (const SweepPoint& point : sweep.points) {
    Table::Row row;
    for (const std::int64_t value : point.values) row.cells.push_back(fmt::format("{}", value));
    if (const auto& f = point.figures) {
      row.cells.push_back(fmt::format("{}", f->num_devices));
      row.cells.push_back(format_duration(f->ttft));
      row.cells.push_back(format_duration(f->tpot));
      row.cells.push_back(optional_seconds(f->itl));
      row.cells.push_back(format_count(f->output_tps));
      if (compares) {
        row.cells.push_back(ratio(f->speed_up));
        row.cells.push_back(share(f->efficiency));
      }
      row.cells.push_back(format_bytes(static_cast<double>(f->peak_bytes)));
      row.cells.push_back(format_quantity(f->joules_per_token, ""));
      row.cells.push_back(format_or_undefined(
          f->usd_per_million_tokens, [](double usd) { return fmt::format("{:.2f}", usd); }));
    }
    row.cells.resize(table.columns.size() - 1, std::string(kUndefined));
    row.cells.emplace_back(state_of(point));
    table.rows.push_back(std::move(row));
  }
  return table;
}

// The grid's axes: of lengths across, of the strategy down.
struct Grid {
  std::size_t across = 0;
  std::size_t down = 0;
};

std::optional<Grid> grid_of(const Sweep& sweep) {
  if (sweep.axes.size() != 2 || sweep.interrupted) return std::nullopt;
  const bool first = is_work_axis(sweep.axes[0]);
  if (first == is_work_axis(sweep.axes[1])) return std::nullopt;
  const Grid grid = first ? Grid{.across = 0, .down = 1} : Grid{.across = 1, .down = 0};
  if (sweep.axes[grid.across].values.size() > kMostColumns) return std::nullopt;
  return grid;
}

class GridPage {
 public:
  GridPage(const Sweep& sweep, Grid grid) : sweep_(sweep), grid_(grid) {}

  std::string text() const {
    std::string text = fmt::format("{}\n", best_table());
    text += figure_table("ttft", [](const SweepFigures& f) { return format_duration(f.ttft); });
    text += "\n";
    text += figure_table("tpot", [](const SweepFigures& f) { return format_duration(f.tpot); });
    text += "\n";
    text += figure_table("itl", [](const SweepFigures& f) { return optional_seconds(f.itl); });
    text += "\n";
    text += figure_table("efficiency", [](const SweepFigures& f) { return share(f.efficiency); });
    return text;
  }

 private:
  using Cell = std::function<std::string(const SweepFigures&)>;

  [[nodiscard]] const SweepAxis& across() const { return sweep_.axes[grid_.across]; }
  [[nodiscard]] const SweepAxis& down() const { return sweep_.axes[grid_.down]; }

  [[nodiscard]] const SweepPoint& point(std::size_t column, std::size_t row) const {
    return grid_.across == 0 ? sweep_.points[column * down().values.size() + row]
                             : sweep_.points[row * across().values.size() + column];
  }

  [[nodiscard]] std::string figure_table(const std::string& figure, const Cell& cell) const {
    Table table;
    table.columns.push_back({fmt::format("{}: {} \\ {}", figure, down().name, across().name)});
    for (const std::int64_t value : across().values)
      table.columns.push_back({fmt::format("{}", value)});
    for (std::size_t row = 0; row < down().values.size(); ++row) {
      Table::Row cells;
      cells.cells.push_back(fmt::format("{}", down().values[row]));
      for (std::size_t column = 0; column < across().values.size(); ++column) {
        const SweepPoint& here = point(column, row);
        cells.cells.push_back(state_of(here).empty() ? cell(*here.figures)
                                                     : std::string(state_of(here)));
      }
      table.rows.push_back(std::move(cells));
    }
    return render(table);
  }

  [[nodiscard]] std::string best_table() const {
    const std::string best_by = fmt::format("best {} by ", down().name);
    Table table = {.columns = {{across().name},
                               {best_by + "tpot"},
                               {"devices"},
                               {"tpot"},
                               {"speed-up"},
                               {"efficiency"},
                               {best_by + "ttft"},
                               {"ttft"},
                               {best_by + "itl"},
                               {"itl"}},
                   .rows = {}};
    for (const auto& group : sweep_.groups()) {
      const SweepPoint& any = sweep_.points[group.front()];
      Table::Row row = {.cells = {fmt::format("{}", any.values[grid_.across])}};
      if (const auto best = best_of(sweep_, group)) {
        const SweepPoint& by_tpot = sweep_.points[best->tpot];
        const SweepPoint& by_ttft = sweep_.points[best->ttft];
        const SweepPoint& by_itl = sweep_.points[best->itl];
        for (std::string cell :
             {fmt::format("{}", by_tpot.values[grid_.down]),
              fmt::format("{}", by_tpot.figures->num_devices),
              format_duration(by_tpot.figures->tpot), ratio(by_tpot.figures->speed_up),
              share(by_tpot.figures->efficiency), fmt::format("{}", by_ttft.values[grid_.down]),
              format_duration(by_ttft.figures->ttft), fmt::format("{}", by_itl.values[grid_.down]),
              optional_seconds(by_itl.figures->itl)})
          row.cells.push_back(std::move(cell));
      } else {
        row.cells.emplace_back("none");
      }
      table.rows.push_back(std::move(row));
    }
    return render(table);
  }

  const Sweep& sweep_;
  Grid grid_;
};

// "best by tpot: tp=8 (12.3 ms), by ttft: ...", for each work where there are several.
std::string best_lines(const Sweep& sweep) {
  if (!sweep.compares_setups()) return "";
  std::string text;
  for (const auto& group : sweep.groups()) {
    const auto best = best_of(sweep, group);
    if (!best || group.size() == 1) continue;
    const auto name = [&](std::size_t p) {
      std::vector<std::string> parts;
      for (std::size_t a = 0; a < sweep.axes.size(); ++a)
        parts.push_back(fmt::format("{}={}", sweep.axes[a].name, sweep.points[p].values[a]));
      return fmt::format("{}", fmt::join(parts, " "));
    };
    text += fmt::format("best by tpot: {} ({}), by ttft: {} ({}), by itl: {} ({})\n",
                        name(best->tpot), format_duration(sweep.points[best->tpot].figures->tpot),
                        name(best->ttft), format_duration(sweep.points[best->ttft].figures->ttft),
                        name(best->itl), optional_seconds(sweep.points[best->itl].figures->itl));
  }
  return text;
}

// As in other JSON, words are joined by underscores.
std::string key_of(const SweepAxis& axis) {
  std::string key = axis.name;
  std::ranges::replace(key, '-', '_');
  return key;
}

nlohmann::json optional_number(const std::optional<double>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

nlohmann::json point_to_json(const Sweep& sweep, const SweepPoint& point) {
  nlohmann::json document;
  for (std::size_t a = 0; a < sweep.axes.size(); ++a)
    document[key_of(sweep.axes[a])] = point.values[a];
  document["valid"] = point.figures.has_value();
  if (!point.figures) {
    document["reason"] = point.problem;
    return document;
  }
  const SweepFigures& f = *point.figures;
  document["strategy"] = f.label;
  document["devices"] = f.num_devices;
  document["ttft_s"] = f.ttft.value;
  document["tpot_s"] = f.tpot.value;
  document["itl_s"] = f.itl ? nlohmann::json(f.itl->value) : nlohmann::json();
  document["output_tps"] = f.output_tps;
  document["peak_memory"] = f.peak_bytes;
  document["fits"] = !f.shortage.has_value();
  document["shortage"] = f.shortage ? nlohmann::json(*f.shortage) : nlohmann::json();
  document["joules_per_token"] = f.joules_per_token;
  document["usd_per_million_tokens"] = optional_number(f.usd_per_million_tokens);
  document["speed_up"] = optional_number(f.speed_up);
  document["efficiency"] = optional_number(f.efficiency);
  return document;
}

nlohmann::json best_to_json(const Sweep& sweep) {
  nlohmann::json all = nlohmann::json::array();
  for (const auto& group : sweep.groups()) {
    const auto best = best_of(sweep, group);
    nlohmann::json entry = {{"tpot", nullptr}, {"ttft", nullptr}, {"itl", nullptr}};
    for (std::size_t a = 0; a < sweep.axes.size(); ++a) {
      if (is_work_axis(sweep.axes[a]))
        entry[key_of(sweep.axes[a])] = sweep.points[group.front()].values[a];
    }
    if (best) {
      const auto choice = [&](std::size_t p) {
        nlohmann::json chosen;
        for (std::size_t a = 0; a < sweep.axes.size(); ++a) {
          if (!is_work_axis(sweep.axes[a]))
            chosen[key_of(sweep.axes[a])] = sweep.points[p].values[a];
        }
        return chosen;
      };
      entry["tpot"] = choice(best->tpot);
      entry["tpot"]["tpot_s"] = sweep.points[best->tpot].figures->tpot.value;
      entry["ttft"] = choice(best->ttft);
      entry["ttft"]["ttft_s"] = sweep.points[best->ttft].figures->ttft.value;
      if (const auto itl = sweep.points[best->itl].figures->itl) {
        entry["itl"] = choice(best->itl);
        entry["itl"]["itl_s"] = itl->value;
      }
    }
    all.push_back(std::move(entry));
  }
  return all;
}

}  // namespace

std::string sweep_page(const Sweep& sweep) {
  std::string text;
  if (const auto grid = grid_of(sweep)) {
    text = GridPage(sweep, *grid).text();
  } else {
    text = render(point_table(sweep));
    if (const std::string best = best_lines(sweep); !best.empty())
      text += fmt::format("\n{}", best);
  }
  if (const std::string why = reasons(sweep); !why.empty()) text += fmt::format("\n{}", why);
  if (const std::string what = definitions(sweep); !what.empty()) text += fmt::format("\n{}", what);
  return text;
}

nlohmann::json sweep_to_json(const Sweep& sweep) {
  nlohmann::json axes = nlohmann::json::array();
  for (const SweepAxis& axis : sweep.axes)
    axes.push_back(nlohmann::json::object({{"name", key_of(axis)}, {"values", axis.values}}));
  nlohmann::json points = nlohmann::json::array();
  for (const SweepPoint& point : sweep.points) points.push_back(point_to_json(sweep, point));
  nlohmann::json document = {
      {"axes", axes},
      {"points", points},
      {"best", sweep.compares_setups() ? best_to_json(sweep) : nlohmann::json::array()},
      {"interrupted", sweep.interrupted}};
  document["definitions"] =
      nlohmann::json::object({{"speed_up", kSpeedUp}, {"efficiency", kEfficiency}});
  return document;
}

}  // namespace weir
