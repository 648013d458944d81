// Whatever the bytes, reading them as JSON ends in a value or in an error of one line, and an
// object reader copes with every value.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto value = weir::parse_json(text, "input");
  if (!value) {
    CHECK(value.error().message.find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  std::vector<std::string> problems;
  weir::ObjectReader reader(*value, "root", problems);
  const std::int64_t integer = reader.integer("a", {.min = 1, .max = 9});
  CHECK(integer >= 1 && integer <= 9, "a field is within its limits whatever was found");
  const double number = reader.number("b", {.min = -1, .max = 1});
  CHECK(number >= -1 && number <= 1, "a field is within its limits whatever was found");
  (void)reader.string("c");
  (void)reader.optional_boolean("d");
  for (weir::ObjectReader& element : reader.objects("e")) (void)element.optional_integer("a", {});
  (void)reader.integers("f", {.min = 0});
  (void)reader.strings("g");
  reader.refuse_unknown_keys();
  for (const std::string& problem : problems) {
    CHECK(problem.find('\n') == std::string::npos, "a problem is one line");
  }
  return 0;
}
