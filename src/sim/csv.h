#pragma once
// Tables of measurements as CSV (RFC 4180): a header line, then one row per line, fields separated
// by commas, quoted where they hold commas or quotes.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace weir {

class CsvTable {
 public:
  // Fails on rows longer or shorter than the header, on quotes that do not close, and on columns
  // named twice. `source` names the text in errors.
  static Result<CsvTable> parse(std::string_view text, std::string_view source);

  [[nodiscard]] std::size_t num_rows() const { return rows_.size(); }
  [[nodiscard]] bool has(std::string_view column) const;
  // Empty for columns that are not there.
  [[nodiscard]] std::string_view text(std::size_t row, std::string_view column) const;
  // nullopt where the field is no finite number (an empty one included).
  [[nodiscard]] std::optional<double> number(std::size_t row, std::string_view column) const;
  [[nodiscard]] std::optional<std::int64_t> integer(std::size_t row, std::string_view column) const;

 private:
  [[nodiscard]] std::optional<std::size_t> index_of(std::string_view column) const;

  std::vector<std::string> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace weir
