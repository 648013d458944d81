#pragma once
// Characters that Unicode 15 and 16 assigned. Published tokenizers are defined by a library that
// knows Unicode 16, PCRE2 10.42 knows Unicode 14: a pattern's \p{L} must be widened by these. None
// of them had another category before, so that widening is harmless where PCRE2 is newer.

#include <string_view>
#include <vector>

namespace weir {

struct CodePointRange {
  char32_t first = 0;
  char32_t last = 0;
  bool operator==(const CodePointRange&) const = default;
};

// Whether \p{name} is a property that patterns may use: L Lu Ll Lt Lm Lo M N Nd P S Z.
[[nodiscard]] bool is_regex_property(std::string_view name);

// What Unicode 15 and 16 added to that property, in ascending order.
[[nodiscard]] std::vector<CodePointRange> unicode_additions(std::string_view name);

// Whether Unicode 15 or 16 assigned the character as a letter, mark or decimal digit.
[[nodiscard]] bool is_added_word_character(char32_t code_point);

}  // namespace weir
