#include "report/table.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"
#include "report/format.h"

namespace weir {
namespace {

constexpr std::size_t kGap = 2;

// All cells, printable, one per column.
std::vector<std::vector<std::string>> cells_of(const Table& table) {
  std::vector<std::vector<std::string>> lines;
  for (const Table::Row& row : table.rows) {
    CHECK(row.cells.size() <= table.columns.size(), "a row has more cells than columns");
    std::vector<std::string>& line = lines.emplace_back(table.columns.size());
    std::ranges::transform(row.cells, line.begin(), printable);
  }
  return lines;
}

std::vector<std::string> titles_of(const Table& table) {
  std::vector<std::string> titles;
  for (const Column& column : table.columns) titles.push_back(printable(column.title));
  return titles;
}

void append_line(std::string& text, std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  text += line;
  text += '\n';
}

std::string line_of(const std::vector<std::string>& cells, const std::vector<std::size_t>& widths,
                    const Table& table) {
  std::string line;
  for (std::size_t c = 0; c < cells.size(); ++c) {
    if (c > 0) line.append(kGap, ' ');
    const std::string padding(widths[c] - display_width(cells[c]), ' ');
    line += table.columns[c].align == Align::left ? cells[c] + padding : padding + cells[c];
  }
  return line;
}

std::string escaped(const std::string& cell) {
  std::string text;
  for (const char c : cell) {
    if (c == '|' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

}  // namespace

std::string render(const Table& table, std::size_t indent) {
  const std::vector<std::string> titles = titles_of(table);
  const std::vector<std::vector<std::string>> lines = cells_of(table);
  std::vector<std::size_t> widths(table.columns.size(), 0);
  std::size_t full_width = kGap * (std::max<std::size_t>(1, widths.size()) - 1);
  for (std::size_t c = 0; c < widths.size(); ++c) {
    widths[c] = display_width(titles[c]);
    for (const std::vector<std::string>& line : lines)
      widths[c] = std::max(widths[c], display_width(line[c]));
    full_width += widths[c];
  }
  const std::string margin(indent, ' ');
  std::string rule = margin;
  for (std::size_t i = 0; i < full_width; ++i) rule += "─";

  std::string text;
  if (std::ranges::any_of(titles, [](const std::string& title) { return !title.empty(); })) {
    append_line(text, margin + line_of(titles, widths, table));
    append_line(text, rule);
  }
  for (std::size_t r = 0; r < lines.size(); ++r) {
    if (table.rows[r].rule_above) append_line(text, rule);
    append_line(text, margin + line_of(lines[r], widths, table));
  }
  return text;
}

std::string render_markdown(const Table& table) {
  std::string text = "|";
  for (const std::string& title : titles_of(table)) text += fmt::format(" {} |", escaped(title));
  text += "\n|";
  for (const Column& column : table.columns)
    text += column.align == Align::left ? " :--- |" : " ---: |";
  text += "\n";
  for (const std::vector<std::string>& line : cells_of(table)) {
    text += "|";
    for (const std::string& cell : line) text += fmt::format(" {} |", escaped(cell));
    text += "\n";
  }
  return text;
}

}  // namespace weir
