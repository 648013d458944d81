#include "sim/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

namespace weir {
namespace {

// Takes one record off the front of `text`; nullopt where a quote does not close.
std::optional<std::vector<std::string>> take_record(std::string_view& text) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  std::size_t i = 0;
  for (; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c != '"') {
        fields.back() += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        fields.back() += '"';
        ++i;
      } else {
        quoted = false;
      }
    } else if (c == '"' && fields.back().empty()) {
      quoted = true;
    } else if (c == ',') {
      fields.emplace_back();
    } else if (c == '\n') {
      break;
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  if (quoted) return std::nullopt;
  text.remove_prefix(std::min(text.size(), i + 1));
  return fields;
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

Result<CsvTable> CsvTable::parse(std::string_view text, std::string_view source) {
  CsvTable table;
  std::int64_t line = 0;
  while (!text.empty()) {
    ++line;
    auto record = take_record(text);
    if (!record)
      return invalid_input(
          fmt::format("{}: row {}: found a quote that does not close", source, line));
    if (record->size() == 1 && record->front().empty()) continue;
    if (table.columns_.empty()) {
      table.columns_ = *std::move(record);
      continue;
    }
    if (record->size() != table.columns_.size()) {
      return invalid_input(fmt::format("{}: row {}: found {} fields, allowed {} as in the header",
                                       source, line, record->size(), table.columns_.size()));
    }
    table.rows_.push_back(*std::move(record));
  }
  for (std::size_t i = 0; i < table.columns_.size(); ++i) {
    if (table.index_of(table.columns_[i]) != i) {
      return invalid_input(
          fmt::format("{}: found column {} twice, allowed once", source, table.columns_[i]));
    }
  }
  return table;
}

std::optional<std::size_t> CsvTable::index_of(std::string_view column) const {
  const auto found = std::ranges::find(columns_, column);
  if (found == columns_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - columns_.begin());
}

bool CsvTable::has(std::string_view column) const { return index_of(column).has_value(); }

std::string_view CsvTable::text(std::size_t row, std::string_view column) const {
  const auto i = index_of(column);
  return i ? std::string_view(rows_[row][*i]) : std::string_view();
}

std::optional<double> CsvTable::number(std::size_t row, std::string_view column) const {
  const auto value = parse_number<double>(text(row, column));
  return value && std::isfinite(*value) ? value : std::nullopt;
}

std::optional<std::int64_t> CsvTable::integer(std::size_t row, std::string_view column) const {
  return parse_number<std::int64_t>(text(row, column));
}

}  // namespace weir
