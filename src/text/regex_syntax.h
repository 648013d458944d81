#pragma once
// Patterns in a tokenizer.json are written for Oniguruma (Ruby syntax, Unicode 16); Weir matches
// with PCRE2. The two disagree on what \s, \v, \p{L}, a{2}+ or [a&&b] mean, so a pattern is not
// handed over: it is read with a grammar that covers what published tokenizers use, and written
// anew in terms on which PCRE2 has no opinion. Everything else is refused by name.

#include <string>
#include <string_view>

#include "base/result.h"

namespace weir {

inline constexpr std::size_t kMaxPatternBytes = 4096;  // DeepSeek-V3's longest: 217.

// The PCRE2 pattern (UTF, no other option) that matches what Oniguruma would match. Fails with
// "at byte N: found ..., allowed ...".
//
// The grammar: literals, . [...] [^...], \s \S \d \D \t \n \r \f \v \uHHHH \x{H...}, \p{P} \P{P}
// \p{^P}, groups (...) (?:...) (?i:...) (?=...) (?!...) (?<=...) (?<!...), alternation, and the
// quantifiers * + ? (also lazy or possessive) {n} {n,} {n,m}. A repetition without limit may not
// contain another one: such patterns take exponential time.
[[nodiscard]] Result<std::string> translate_regex(std::string_view pattern);

}  // namespace weir
