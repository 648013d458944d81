// Any bytes are a table or an error; what a table says of its rows can be asked.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sim/csv.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto table = weir::CsvTable::parse(text, "input");
  if (!table) return 0;
  for (std::size_t row = 0; row < table->num_rows(); ++row) {
    (void)table->number(row, "us");
    (void)table->integer(row, "n");
  }
  return 0;
}
