#pragma once
// A compiled pattern of a tokenizer.json. Compiled once, immutable, safe to share between threads;
// what a search needs to write lies in a `RegexScratch`, one per thread or call.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"

// Declared here, so that the macros of pcre2.h stay in regex.cc.
struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace weir {

// Bytes begin..end-1 of a text.
struct TextSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const TextSpan&) const = default;
};

struct RegexScratch {
  struct FreeData {
    void operator()(pcre2_real_match_data_8* data) const;
  };
  struct FreeContext {
    void operator()(pcre2_real_match_context_8* context) const;
  };

  RegexScratch();

  std::unique_ptr<pcre2_real_match_data_8, FreeData> data;
  std::unique_ptr<pcre2_real_match_context_8, FreeContext> context;
};

class Regex {
 public:
  // Fails where text/regex_syntax.h does, and for patterns that can match nothing at all, which
  // would split a text between any two characters.
  [[nodiscard]] static Result<Regex> compile(std::string_view pattern);

  // Appends every match in `text`, leftmost first, without overlaps. `text` is well-formed UTF-8.
  // Fails when backtracking takes more steps than a budget that is linear in the text.
  [[nodiscard]] Status find_all(std::string_view text, RegexScratch& scratch,
                                std::vector<TextSpan>& matches) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  explicit Regex(pcre2_real_code_8* code) : code_(code) {}

  // Both return what pcre2_match does: `match` once, `attempt` with as much out of the budget as it
  // takes to be certain.
  [[nodiscard]] int match(std::string_view text, std::size_t at, std::uint32_t options,
                          RegexScratch& scratch) const;
  [[nodiscard]] int attempt(std::string_view text, std::size_t at, std::uint64_t& budget,
                            RegexScratch& scratch) const;

  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;
};

}  // namespace weir
