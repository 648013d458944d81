#include "text/unicode_additions.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace weir {
namespace {

// Word characters first.
enum class Category {
  upper_letter,
  lower_letter,
  modifier_letter,
  other_letter,
  mark,
  digit,
  other_number,
  punctuation,
  symbol,
};

struct Addition {
  char32_t first = 0;
  char32_t last = 0;
  Category category = Category::symbol;
};

using enum Category;
// Source: the General_Category of Unicode 16 where Unicode 14 has Cn (DerivedGeneralCategory.txt).
constexpr std::array kAdditions = std::to_array<Addition>({
    {0x897, 0x897, mark},
    {0xCF3, 0xCF3, mark},
    {0xECE, 0xECE, mark},
    {0x1B4E, 0x1B4F, punctuation},
    {0x1B7F, 0x1B7F, punctuation},
    {0x1C89, 0x1C89, upper_letter},
    {0x1C8A, 0x1C8A, lower_letter},
    {0x2427, 0x2429, symbol},
    {0x2FFC, 0x2FFF, symbol},
    {0x31E4, 0x31E5, symbol},
    {0x31EF, 0x31EF, symbol},
    {0xA7CB, 0xA7CC, upper_letter},
    {0xA7CD, 0xA7CD, lower_letter},
    {0xA7DA, 0xA7DA, upper_letter},
    {0xA7DB, 0xA7DB, lower_letter},
    {0xA7DC, 0xA7DC, upper_letter},
    {0x105C0, 0x105F3, other_letter},
    {0x10D40, 0x10D49, digit},
    {0x10D4A, 0x10D4D, other_letter},
    {0x10D4E, 0x10D4E, modifier_letter},
    {0x10D4F, 0x10D4F, other_letter},
    {0x10D50, 0x10D65, upper_letter},
    {0x10D69, 0x10D6D, mark},
    {0x10D6E, 0x10D6E, punctuation},
    {0x10D6F, 0x10D6F, modifier_letter},
    {0x10D70, 0x10D85, lower_letter},
    {0x10D8E, 0x10D8F, symbol},
    {0x10EC2, 0x10EC4, other_letter},
    {0x10EFC, 0x10EFF, mark},
    {0x1123F, 0x11240, other_letter},
    {0x11241, 0x11241, mark},
    {0x11380, 0x11389, other_letter},
    {0x1138B, 0x1138B, other_letter},
    {0x1138E, 0x1138E, other_letter},
    {0x11390, 0x113B5, other_letter},
    {0x113B7, 0x113B7, other_letter},
    {0x113B8, 0x113C0, mark},
    {0x113C2, 0x113C2, mark},
    {0x113C5, 0x113C5, mark},
    {0x113C7, 0x113CA, mark},
    {0x113CC, 0x113D0, mark},
    {0x113D1, 0x113D1, other_letter},
    {0x113D2, 0x113D2, mark},
    {0x113D3, 0x113D3, other_letter},
    {0x113D4, 0x113D5, punctuation},
    {0x113D7, 0x113D8, punctuation},
    {0x113E1, 0x113E2, mark},
    {0x116D0, 0x116E3, digit},
    {0x11B00, 0x11B09, punctuation},
    {0x11BC0, 0x11BE0, other_letter},
    {0x11BE1, 0x11BE1, punctuation},
    {0x11BF0, 0x11BF9, digit},
    {0x11F00, 0x11F01, mark},
    {0x11F02, 0x11F02, other_letter},
    {0x11F03, 0x11F03, mark},
    {0x11F04, 0x11F10, other_letter},
    {0x11F12, 0x11F33, other_letter},
    {0x11F34, 0x11F3A, mark},
    {0x11F3E, 0x11F42, mark},
    {0x11F43, 0x11F4F, punctuation},
    {0x11F50, 0x11F59, digit},
    {0x11F5A, 0x11F5A, mark},
    {0x1342F, 0x1342F, other_letter},
    {0x13440, 0x13440, mark},
    {0x13441, 0x13446, other_letter},
    {0x13447, 0x13455, mark},
    {0x13460, 0x143FA, other_letter},
    {0x16100, 0x1611D, other_letter},
    {0x1611E, 0x1612F, mark},
    {0x16130, 0x16139, digit},
    {0x16D40, 0x16D42, modifier_letter},
    {0x16D43, 0x16D6A, other_letter},
    {0x16D6B, 0x16D6C, modifier_letter},
    {0x16D6D, 0x16D6F, punctuation},
    {0x16D70, 0x16D79, digit},
    {0x18CFF, 0x18CFF, other_letter},
    {0x1B132, 0x1B132, other_letter},
    {0x1B155, 0x1B155, other_letter},
    {0x1CC00, 0x1CCEF, symbol},
    {0x1CCF0, 0x1CCF9, digit},
    {0x1CD00, 0x1CEB3, symbol},
    {0x1D2C0, 0x1D2D3, other_number},
    {0x1DF25, 0x1DF2A, lower_letter},
    {0x1E030, 0x1E06D, modifier_letter},
    {0x1E08F, 0x1E08F, mark},
    {0x1E4D0, 0x1E4EA, other_letter},
    {0x1E4EB, 0x1E4EB, modifier_letter},
    {0x1E4EC, 0x1E4EF, mark},
    {0x1E4F0, 0x1E4F9, digit},
    {0x1E5D0, 0x1E5ED, other_letter},
    {0x1E5EE, 0x1E5EF, mark},
    {0x1E5F0, 0x1E5F0, other_letter},
    {0x1E5F1, 0x1E5FA, digit},
    {0x1E5FF, 0x1E5FF, punctuation},
    {0x1F6DC, 0x1F6DC, symbol},
    {0x1F774, 0x1F776, symbol},
    {0x1F77B, 0x1F77F, symbol},
    {0x1F7D9, 0x1F7D9, symbol},
    {0x1F8B2, 0x1F8BB, symbol},
    {0x1F8C0, 0x1F8C1, symbol},
    {0x1FA75, 0x1FA77, symbol},
    {0x1FA87, 0x1FA89, symbol},
    {0x1FA8F, 0x1FA8F, symbol},
    {0x1FAAD, 0x1FAAF, symbol},
    {0x1FABB, 0x1FABF, symbol},
    {0x1FAC6, 0x1FAC6, symbol},
    {0x1FACE, 0x1FACF, symbol},
    {0x1FADA, 0x1FADC, symbol},
    {0x1FADF, 0x1FADF, symbol},
    {0x1FAE8, 0x1FAE9, symbol},
    {0x1FAF7, 0x1FAF8, symbol},
    {0x1FBCB, 0x1FBEF, symbol},
    {0x2B739, 0x2B739, other_letter},
    {0x2EBF0, 0x2EE5D, other_letter},
    {0x31350, 0x323AF, other_letter},
});

struct Property {
  std::string_view name;
  std::array<bool, 9> holds{};  // By category.
};

constexpr auto kProperties = std::to_array<Property>({
    {"L", {true, true, true, true}},
    {"Lu", {true}},
    {"Ll", {false, true}},
    {"Lt", {}},
    {"Lm", {false, false, true}},
    {"Lo", {false, false, false, true}},
    {"M", {false, false, false, false, true}},
    {"Nd", {false, false, false, false, false, true}},
    {"N", {false, false, false, false, false, true, true}},
    {"P", {false, false, false, false, false, false, false, true}},
    {"S", {false, false, false, false, false, false, false, false, true}},
    {"Z", {}},
});

}  // namespace

bool is_regex_property(std::string_view name) {
  for (const Property& property : kProperties) {
    if (property.name == name) return true;
  }
  return false;
}

std::vector<CodePointRange> unicode_additions(std::string_view name) {
  std::vector<CodePointRange> ranges;
  for (const Property& property : kProperties) {
    if (property.name != name) continue;
    for (const Addition& addition : kAdditions) {
      if (!property.holds[static_cast<std::size_t>(addition.category)]) continue;
      if (!ranges.empty() && ranges.back().last + 1 == addition.first) {
        ranges.back().last = addition.last;
      } else {
        ranges.push_back({.first = addition.first, .last = addition.last});
      }
    }
  }
  return ranges;
}

bool is_added_word_character(char32_t code_point) {
  const auto after = std::ranges::upper_bound(kAdditions, code_point, {}, &Addition::first);
  if (after == kAdditions.begin()) return false;
  const Addition& addition = *std::prev(after);
  return code_point <= addition.last && addition.category <= Category::digit;
}

}  // namespace weir
