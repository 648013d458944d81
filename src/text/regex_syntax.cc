#include "text/regex_syntax.h"

#include <optional>
#include <vector>

#include <fmt/format.h>

#include "text/unicode.h"
#include "text/unicode_additions.h"

namespace weir {
namespace {

constexpr int kMaxGroupDepth = 32;
constexpr int kMaxRepeat = 1000;
constexpr char32_t kLastCodePoint = 0x10FFFF;

// White_Space of Unicode 16, which has not changed since Unicode 6.3.
constexpr std::string_view kWhiteSpace =
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"
    "\\x{205F}\\x{3000}";
constexpr std::string_view kNotWhiteSpace =
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}"
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"
    "\\x{3001}-\\x{10FFFF}";

bool is_ascii_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_ascii_digit(char32_t c) { return c >= '0' && c <= '9'; }

// A set of characters as the inside of a PCRE2 class, or its complement.
struct CharacterSet {
  std::string members;
  bool negated = false;
};

CharacterSet property_set(std::string_view name, bool negated) {
  CharacterSet set{.members = fmt::format("\\p{{{}}}", name), .negated = negated};
  for (const CodePointRange& range : unicode_additions(name)) {
    set.members += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", static_cast<std::uint32_t>(range.first),
                               static_cast<std::uint32_t>(range.last));
  }
  return set;
}

// Oniguruma also folds these pairs with one character (s + s with U+00DF, f + i with a ligature),
// PCRE2 does not.
bool folds_as_pair(char32_t first, char32_t second) {
  const char32_t a = first | 0x20U;
  const char32_t b = second | 0x20U;
  return (a == 's' && (b == 's' || b == 't')) || (a == 'f' && (b == 'f' || b == 'i' || b == 'l'));
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> translate() {
    if (pattern_.size() > kMaxPatternBytes) {
      return invalid_input(fmt::format("found a pattern of {} bytes, allowed at most {}",
                                       pattern_.size(), kMaxPatternBytes));
    }
    if (const auto at = find_invalid_utf8(pattern_))
      return invalid_input(fmt::format("at byte {}: found invalid UTF-8", *at));
    alternatives();
    if (!error_ && at_ < pattern_.size()) refuse("an unmatched )", "balanced groups");
    if (error_) return invalid_input(*error_);
    return std::move(out_);
  }

 private:
  bool done() const { return error_ || at_ >= pattern_.size(); }
  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    at_ += text.size();
    return true;
  }
  char32_t take_character() {
    const Utf8Unit unit = utf8_unit(pattern_, at_);
    at_ += unit.length;
    return unit.code_point;
  }
  void refuse(std::string_view found, std::string_view allowed) {
    if (!error_) error_ = fmt::format("at byte {}: found {}, allowed {}", at_, found, allowed);
  }
  void put(char32_t c) { out_ += fmt::format("\\x{{{:X}}}", static_cast<std::uint32_t>(c)); }
  void put(const CharacterSet& set) {
    out_ += fmt::format("[{}{}]", set.negated ? "^" : "", set.members);
  }

  // One alternation, up to the closing bracket or the end. Says whether it contains an unlimited
  // repetition.
  bool alternatives() {
    bool unlimited = false;
    while (!done() && !next_is(")")) {
      if (take("|")) {
        out_ += '|';
        previous_literal_.reset();
      } else {
        unlimited = term() || unlimited;
      }
    }
    return unlimited;
  }

  // One atom with its quantifier.
  bool term() {
    const bool is_assertion = next_is("(?=") || next_is("(?!") || next_is("(?<");
    const bool contains_unlimited = next_is("(") ? group() : (atom(), false);
    if (done()) return contains_unlimited;
    const std::size_t before = at_;
    const std::optional<bool> unlimited = quantifier();
    if (at_ == before) return contains_unlimited;
    previous_literal_.reset();
    if (is_assertion) refuse("a repeated assertion", "assertions that are not repeated");
    if (unlimited.value_or(false) && contains_unlimited) {
      refuse("an unlimited repetition of an unlimited repetition", "at most one level of * or +");
    }
    return contains_unlimited || unlimited.value_or(false);
  }

  bool group() {
    const bool outer_ignores_case = ignore_case_;
    if (++depth_ > kMaxGroupDepth) {
      refuse("groups nested deeper than 32", "at most 32 levels");
      return false;
    }
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?i:"}) {
      if (!take(opening)) continue;
      if (opening == "(?i:") ignore_case_ = true;
      out_ += opening;
      return finish_group(outer_ignores_case);
    }
    if (next_is("(?") || next_is("(*")) {
      refuse("an unknown kind of group",
             "(...) (?:...) (?i:...) (?=...) (?!...) (?<=...) (?<!...)");
      return false;
    }
    take("(");
    out_ += "(?:";
    return finish_group(outer_ignores_case);
  }

  bool finish_group(bool outer_ignores_case) {
    previous_literal_.reset();
    const bool unlimited = alternatives();
    if (!error_ && !take(")")) refuse("an unclosed group", "balanced groups");
    out_ += ')';
    --depth_;
    ignore_case_ = outer_ignores_case;
    previous_literal_.reset();
    return unlimited;
  }

  // Writes one quantifier where there is one; says whether it has no upper limit.
  std::optional<bool> quantifier() {
    if (take("{")) return counted_quantifier();
    const char c = pattern_[at_];
    if (c != '*' && c != '+' && c != '?') return std::nullopt;
    ++at_;
    out_ += c;
    if (take("?")) {
      out_ += '?';
    } else if (take("+")) {
      out_ += '+';
    }
    refuse_second_quantifier();
    return c != '?';
  }

  bool counted_quantifier() {
    constexpr std::string_view kAllowed = "{n}, {n,} or {n,m} with n <= m <= 1000";
    const std::optional<int> min = count();
    std::optional<int> max = min;
    const bool open = take(",");
    if (open) max = count();
    const bool unlimited = open && !max;
    if (!min || !take("}") || *min > kMaxRepeat || (max && (*max > kMaxRepeat || *max < *min))) {
      refuse("a malformed or excessive count", kAllowed);
      return unlimited;
    }
    out_ += open ? fmt::format("{{{},{}}}", *min, max ? fmt::to_string(*max) : "")
                 : fmt::format("{{{}}}", *min);
    // {n}+ repeats in Ruby syntax and is possessive in PCRE2; {n}? differs as well.
    refuse_second_quantifier();
    return unlimited;
  }

  std::optional<int> count() {
    std::optional<int> number;
    while (at_ < pattern_.size() && is_ascii_digit(static_cast<unsigned char>(pattern_[at_]))) {
      number = std::min(number.value_or(0) * 10 + (pattern_[at_++] - '0'), kMaxRepeat + 1);
    }
    return number;
  }

  void refuse_second_quantifier() {
    if (next_is("*") || next_is("+") || next_is("?") || next_is("{"))
      refuse("a quantifier after a quantifier", "one quantifier");
  }

  void atom() {
    constexpr std::string_view kMeta = "*+?{^$";
    if (next_is("[")) return character_class();
    if (take(".")) {
      previous_literal_.reset();
      out_ += "[^\\x{A}]";
      return;
    }
    if (kMeta.find(pattern_[at_]) != std::string_view::npos) {
      return refuse(fmt::format("an unescaped {}", pattern_[at_]),
                    "quantifiers after an atom, no ^ or $");
    }
    if (!next_is("\\")) return literal(take_character());
    if (const std::optional<CharacterSet> set = set_escape()) {
      if (ignore_case_) refuse("a property within (?i:...)", "literals and classes of literals");
      previous_literal_.reset();
      return put(*set);
    }
    if (!error_) literal(character_escape());
  }

  void literal(char32_t c) {
    if (ignore_case_) {
      if (c >= 0x80) refuse("a non-ASCII literal within (?i:...)", "ASCII literals");
      if (previous_literal_ && folds_as_pair(*previous_literal_, c))
        refuse("ss, st, ff, fi or fl within (?i:...)", "letters that fold one by one");
    }
    previous_literal_ = c;
    put(c);
  }

  // \s \S \d \D \p{..} \P{..}; nullopt for other escapes, at which nothing is taken.
  std::optional<CharacterSet> set_escape() {
    if (take("\\s")) return CharacterSet{.members = std::string(kWhiteSpace)};
    if (take("\\S")) return CharacterSet{.members = std::string(kNotWhiteSpace)};
    if (take("\\d")) return property_set("Nd", false);
    if (take("\\D")) return property_set("Nd", true);
    if (!next_is("\\p") && !next_is("\\P")) return std::nullopt;
    const bool upper = next_is("\\P");
    const std::size_t close = pattern_.find('}', at_);
    if (pattern_.substr(at_ + 2, 1) == "{" && close != std::string_view::npos) {
      std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
      const bool caret = name.starts_with('^');
      if (caret) name.remove_prefix(1);
      if (is_regex_property(name)) {
        at_ = close + 1;
        return property_set(name, upper != caret);
      }
    }
    refuse("an unknown property", "\\p{L} and Lu Ll Lt Lm Lo M N Nd P S Z, \\P{..}, \\p{^..}");
    return std::nullopt;
  }

  char32_t character_escape() {
    constexpr std::string_view kAllowed =
        "\\s \\S \\d \\D \\t \\n \\r \\f \\v \\uHHHH \\x{H} \\p{..} and escaped punctuation";
    take("\\");
    if (take("t")) return '\t';
    if (take("n")) return '\n';
    if (take("r")) return '\r';
    if (take("f")) return '\f';
    if (take("v")) return '\v';
    if (take("u")) return hexadecimal(pattern_.substr(at_, 4), 4);
    if (take("x{")) {
      const std::size_t close = pattern_.find('}', at_);
      const std::string_view digits = pattern_.substr(at_, close - at_);
      const char32_t c = hexadecimal(digits, 1);
      take("}");
      return c;
    }
    if (done()) {
      refuse("a \\ at the end", kAllowed);
      return 0;
    }
    const auto c = static_cast<unsigned char>(pattern_[at_]);
    if (c >= 0x80 || c < 0x20 || is_ascii_letter(c) || is_ascii_digit(c)) {
      refuse("an unknown escape", kAllowed);
      return 0;
    }
    return take_character();
  }

  char32_t hexadecimal(std::string_view digits, std::size_t min_digits) {
    char32_t value = 0;
    bool good = digits.size() >= min_digits && digits.size() <= 6;
    for (const char digit : digits) {
      const char32_t c = static_cast<unsigned char>(digit);
      const bool letter = is_ascii_letter(c) && (c | 0x20U) <= 'f';
      good = good && (letter || is_ascii_digit(c));
      value = value * 16 + (letter ? (c | 0x20U) - 'a' + 10 : c - '0');
    }
    if (!good || value > kLastCodePoint || (value >= 0xD800 && value < 0xE000)) {
      refuse("a malformed code point", "hexadecimal digits up to 10FFFF");
      return 0;
    }
    at_ += digits.size();
    return value;
  }

  void character_class() {
    take("[");
    out_ += '[';
    if (take("^")) out_ += '^';
    if (next_is("]")) refuse("a class that begins with ]", "\\] within a class");
    previous_literal_.reset();
    bool first = true;
    while (!done() && !next_is("]")) {
      class_item(first);
      first = false;
    }
    if (!error_ && !take("]")) refuse("an unclosed class", "balanced classes");
    out_ += ']';
  }

  void class_item(bool first) {
    if (next_is("[") || next_is("&&")) return refuse("a class within a class", "\\[ or \\&");
    if (next_is("\\")) {
      if (const std::optional<CharacterSet> set = set_escape()) {
        if (ignore_case_) refuse("a property within (?i:...)", "literals and classes of literals");
        if (set->negated && !set->members.starts_with("\\x"))
          refuse("a negated property within a class", "\\p{..}");
        out_ += set->members;
        if (next_is("-") && !next_is("-]")) refuse("a range from a property", "\\-");
        return;
      }
      if (error_) return;
    }
    const bool plain_hyphen = next_is("-");
    if (plain_hyphen && !first && !next_is("-]")) return refuse("an unescaped -", "\\-");
    const char32_t low = class_character();
    put(low);
    if (plain_hyphen || !next_is("-") || next_is("-]")) return;
    take("-");
    if (done() || next_is("[") || next_is("&&")) return refuse("a malformed range", "a-z");
    const char32_t high = class_character();
    if (high < low || ignore_case_)
      return refuse("a range that is empty or within (?i:...)", "a-z");
    out_ += '-';
    put(high);
    if (next_is("-") && !next_is("-]")) refuse("a range from a range", "\\-");
  }

  char32_t class_character() {
    const char32_t c = next_is("\\") ? character_escape() : take_character();
    if (ignore_case_ && c >= 0x80) refuse("a non-ASCII literal within (?i:...)", "ASCII literals");
    return c;
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
  int depth_ = 0;
  bool ignore_case_ = false;
  std::optional<char32_t> previous_literal_;
  std::string out_;
  std::optional<std::string> error_;
};

}  // namespace

Result<std::string> translate_regex(std::string_view pattern) {
  return Translator(pattern).translate();
}

}  // namespace weir
