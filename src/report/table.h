#pragma once
// Text tables for terminals, files and golden tests: the same bytes everywhere, no colours, no
// terminal asked for its width.

#include <cstdint>
#include <string>
#include <vector>

namespace weir {

enum class Align : std::uint8_t { left, right };

struct Column {
  std::string title;
  Align align = Align::right;
};

struct Table {
  struct Row {
    std::vector<std::string> cells;  // Fewer than columns: the rest is empty.
    bool rule_above = false;         // Sets a total apart.
  };

  std::vector<Column> columns;
  std::vector<Row> rows;
};

// Columns as wide as their widest cell, two spaces apart, a rule under the titles, no trailing
// whitespace, every line ended. Cells are made printable; surplus cells are a bug. Without any
// title, titles and rule are left out. `indent` spaces before each line.
[[nodiscard]] std::string render(const Table& table, std::size_t indent = 0);

// The same table as GitHub-flavoured Markdown.
[[nodiscard]] std::string render_markdown(const Table& table);

}  // namespace weir
