#include "text/regex.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "text/regex_syntax.h"

namespace weir {
namespace {

// The matches, joined by '|'; or the error.
std::string matches_of(std::string_view pattern, std::string_view text) {
  const Result<Regex> regex = Regex::compile(pattern);
  if (!regex) return regex.error().message;
  RegexScratch scratch;
  std::vector<TextSpan> spans;
  const Status found = regex->find_all(text, scratch, spans);
  if (!found) return found.error().message;
  std::string joined;
  for (const TextSpan& span : spans) {
    joined += joined.empty() ? "" : "|";
    joined += text.substr(span.begin, span.end - span.begin);
  }
  return joined;
}

std::string error_of(std::string_view pattern) {
  const Result<Regex> regex = Regex::compile(pattern);
  return regex ? "compiles" : regex.error().message;
}

TEST(Regex, FindsEveryMatchLeftmostFirst) {
  EXPECT_EQ(matches_of(R"(\p{N}{1,3}|\p{L}+)", "ab12345, c"), "ab|123|45|c");
  EXPECT_EQ(matches_of(R"(\s+(?!\S)|\s+)", "a   b"), "  | ");
  EXPECT_EQ(matches_of(R"((?<=a)b|a(?=c))", "ab ac bb"), "b|a");
  EXPECT_EQ(matches_of(R"(x)", ""), "");
}

TEST(Regex, MeansWhatOnigurumaMeans) {
  EXPECT_EQ(matches_of(R"(\s)", "a\u180Eb\u0085c"), "\u0085");  // PCRE2's \s has U+180E.
  EXPECT_EQ(matches_of(R"(\v)", "a\nb\vc"), "\v");              // PCRE2's \v has \n.
  EXPECT_EQ(matches_of(R"([^\s]+)", "a\u180E b"), "a\u180E|b");
  EXPECT_EQ(matches_of(R"([\S]+)", "a\u180E b"), "a\u180E|b");
  EXPECT_EQ(matches_of(R"(.+)", "a\rb\nc"), "a\rb|c");
  EXPECT_EQ(matches_of(R"((?i:'S|'LL))", "'s 'lL '\u017F"), "'s|'lL|'\u017F");
  EXPECT_EQ(matches_of(R"([\[\]^-]+)", "a[]b^-c"), "[]|^-");
}

TEST(Regex, KnowsTheLettersOfUnicode16) {
  EXPECT_EQ(matches_of(R"(\p{L}+)", "a\U0002EBF0\U00010D50 "), "a\U0002EBF0\U00010D50");
  EXPECT_EQ(matches_of(R"([^\p{L}]+)", "a\U0002EBF0!"), "!");
  EXPECT_EQ(matches_of(R"(\P{N}+)", "1\U00010D40a"), "a");
}

TEST(Regex, RefusesWhatThePatternLanguagesDisagreeOn) {
  EXPECT_EQ(error_of("a{2}+"),
            "at byte 4: found a quantifier after a quantifier, allowed one quantifier");
  EXPECT_EQ(error_of("[a&&b]"), "at byte 2: found a class within a class, allowed \\[ or \\&");
  EXPECT_EQ(error_of("[[a]b]"), "at byte 1: found a class within a class, allowed \\[ or \\&");
  EXPECT_EQ(error_of("^a"),
            "at byte 0: found an unescaped ^, allowed quantifiers after an atom, no ^ or $");
  EXPECT_TRUE(
      error_of(R"(\w+)").starts_with("at byte 1: found an unknown escape, allowed \\s \\S"));
  EXPECT_TRUE(error_of(R"(\p{Greek})").starts_with("at byte 0: found an unknown property"));
  EXPECT_TRUE(error_of(R"((a)\1)").starts_with("at byte 4: found an unknown escape"));
  EXPECT_TRUE(error_of("(?P<n>a)").starts_with("at byte 0: found an unknown kind of group"));
  EXPECT_TRUE(error_of("(*SKIP)a").starts_with("at byte 0: found an unknown kind of group"));
  EXPECT_TRUE(error_of("(?i:ss)").starts_with("at byte 6: found ss, st, ff, fi or fl"));
  EXPECT_TRUE(error_of(R"((?i:\p{Lu}))").starts_with("at byte 10: found a property within (?i:"));
  EXPECT_TRUE(error_of("[z-a]").starts_with("at byte 4: found a range that is empty"));
  EXPECT_TRUE(error_of(R"(\x{110000})").starts_with("at byte 3: found a malformed code point"));
  EXPECT_TRUE(error_of(R"(\uD800)").starts_with("at byte 2: found a malformed code point"));
  EXPECT_TRUE(error_of("(?=a)*b").starts_with("at byte 6: found a repeated assertion"));
}

TEST(Regex, RefusesWhatDoesNotParse) {
  EXPECT_EQ(error_of("(a"), "at byte 2: found an unclosed group, allowed balanced groups");
  EXPECT_EQ(error_of("a)"), "at byte 1: found an unmatched ), allowed balanced groups");
  EXPECT_EQ(error_of("[a"), "at byte 2: found an unclosed class, allowed balanced classes");
  EXPECT_TRUE(error_of("a\\").starts_with("at byte 2: found a \\ at the end"));
  EXPECT_TRUE(error_of("+a").starts_with("at byte 0: found an unescaped +"));
  EXPECT_TRUE(error_of("a{3,2}").starts_with("at byte 6: found a malformed or excessive count"));
  EXPECT_TRUE(error_of("a{9999}").starts_with("at byte 7: found a malformed or excessive count"));
  EXPECT_EQ(error_of("a\xFF"), "at byte 1: found invalid UTF-8");
}

TEST(Regex, RefusesAbsurdPatterns) {
  EXPECT_TRUE(error_of("(a+)+b").starts_with("at byte 5: found an unlimited repetition of an"));
  EXPECT_TRUE(
      error_of("(?:(?:a*)b?){2,}").starts_with("at byte 16: found an unlimited repetition"));
  EXPECT_EQ(error_of(std::string(5000, 'a')),
            "found a pattern of 5000 bytes, allowed at most 4096");
  EXPECT_TRUE(
      error_of(std::string(100, '(')).starts_with("at byte 32: found groups nested deeper"));
  EXPECT_NE(error_of("(((a{1000}){1000}){1000}){1000}"), "compiles");
  for (const char* const empty : {"", "a*", "a|", "(?=a)", "(a?)(b?)"}) {
    EXPECT_EQ(error_of(empty),
              "found a pattern that matches the empty text, allowed only patterns that take a "
              "character");
  }
}

TEST(Regex, FindsLongRunsThatTakeManySteps) {
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(matches_of(R"(\s*[\r\n]+|\s+)", spaces), spaces);
  std::string runs;
  std::string expected;
  for (int i = 0; i < 500; ++i) {
    runs += std::string(1000, ' ') + "a";
    expected += (i == 0 ? "" : "|") + std::string(1000, ' ') + "|a";
  }
  EXPECT_EQ(matches_of(R"(\s*[\r\n]+|\s+|a)", runs), expected);
}

TEST(Regex, GivesUpOnTextsThatTakeTooLong) {
  const std::string spaces(1 << 18, ' ');
  const std::string letters(1 << 18, 'a');
  constexpr const char* kError =
      "found a text on which the tokenizer's pattern fails: match limit exceeded";
  EXPECT_EQ(matches_of(R"(\s*[xy])", spaces), kError);
  EXPECT_EQ(matches_of(R"(a[^bcd]*[cd])", letters), kError);  // PCRE2 counts no steps here,
  EXPECT_EQ(matches_of(R"(a.*b)", letters), kError);          // nor here,
  EXPECT_EQ(matches_of(R"(a(?=a*+)b)", letters), kError);     // nor here.
  EXPECT_EQ(matches_of(R"(a*a*a*a*a*a*[bc])", letters), kError);
}

}  // namespace
}  // namespace weir
