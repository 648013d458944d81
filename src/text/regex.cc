#include "text/regex.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include <fmt/format.h>

#include "base/check.h"
#include "text/regex_syntax.h"
#include "text/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace weir {
namespace {

// One attempt to match at one place may backtrack kNearSteps times and look kNearBytes ahead.
// Published patterns need tens of both, except in long runs (of spaces, of one letter). An attempt
// that needs more is repeated with four times as much, and so on, out of one budget for the whole
// text. So every search ends in time linear in the text, whatever the pattern.
constexpr std::uint64_t kNearSteps = 256;
constexpr std::size_t kNearBytes = 1024;
constexpr std::uint64_t kFarBudgetPerByte = 64;
constexpr std::uint64_t kFarBudget = 1U << 26U;
constexpr std::uint64_t kMostSteps = std::numeric_limits<std::uint32_t>::max();
// For the interpreter, which serves where just-in-time compilation is forbidden.
constexpr std::uint32_t kHeapLimitKib = 64 * 1024;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 128> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

// The last place up to `at` where a character begins.
std::size_t character_floor(std::string_view text, std::size_t at) {
  while ((static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80) --at;
  return at;
}

}  // namespace

void RegexScratch::FreeData::operator()(pcre2_match_data* freed) const {
  pcre2_match_data_free(freed);
}
void RegexScratch::FreeContext::operator()(pcre2_match_context* freed) const {
  pcre2_match_context_free(freed);
}
void Regex::FreeCode::operator()(pcre2_code* code) const { pcre2_code_free(code); }

RegexScratch::RegexScratch()
    : data(pcre2_match_data_create(1, nullptr)), context(pcre2_match_context_create(nullptr)) {
  CHECK(data && context, "out of memory");
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
}

Result<Regex> Regex::compile(std::string_view pattern) {
  const Result<std::string> translated = translate_regex(pattern);
  if (!translated) return tl::unexpected(translated.error());
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Anchored here, not when matching: that would not be done by compiled code.
  pcre2_code* const code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                    PCRE2_UTF | PCRE2_ANCHORED, &error, &offset, nullptr);
  if (code == nullptr) return invalid_input(fmt::format("found {}", pcre2_message(error)));
  Regex regex(code);
  std::uint32_t matches_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    return invalid_input(
        "found a pattern that matches the empty text, allowed only patterns that "
        "take a character");
  }
  // Failure means that this machine forbids or lacks it; matching then interprets.
  static_cast<void>(pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD));
  return regex;
}

int Regex::match(std::string_view text, std::size_t at, std::uint32_t options,
                 RegexScratch& scratch) const {
  const auto* const subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  options |= PCRE2_NO_UTF_CHECK;
  int count = pcre2_match(code_.get(), subject, text.size(), at, options, scratch.data.get(),
                          scratch.context.get());
  if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
    // The interpreter keeps its stack on the heap.
    count = pcre2_match(code_.get(), subject, text.size(), at, options | PCRE2_NO_JIT,
                        scratch.data.get(), scratch.context.get());
  }
  return count;
}

int Regex::attempt(std::string_view text, std::size_t at, std::uint64_t& budget,
                   RegexScratch& scratch) const {
  std::uint64_t steps = kNearSteps;
  std::size_t ahead = kNearBytes;
  for (;;) {
    pcre2_set_match_limit(scratch.context.get(),
                          static_cast<std::uint32_t>(std::min(steps, kMostSteps)));
    const bool sees_all = text.size() - at <= ahead;
    const std::string_view seen =
        sees_all ? text : text.substr(0, character_floor(text, at + ahead));
    // PCRE2 then says where it would have looked further.
    const std::uint32_t options = sees_all ? 0 : PCRE2_PARTIAL_HARD;
    const int count = match(seen, at, options, scratch);
    std::uint64_t charge = 0;
    if (count == PCRE2_ERROR_PARTIAL) {
      charge = ahead *= 4;
    } else if (count == PCRE2_ERROR_MATCHLIMIT) {
      charge = steps *= 4;
    } else {
      return count;
    }
    if (charge > budget) return PCRE2_ERROR_MATCHLIMIT;
    budget -= charge;
  }
}

Status Regex::find_all(std::string_view text, RegexScratch& scratch,
                       std::vector<TextSpan>& matches) const {
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(scratch.data.get());
  std::uint64_t budget = kFarBudget + kFarBudgetPerByte * text.size();
  for (std::size_t at = 0; at < text.size();) {
    const int count = attempt(text, at, budget, scratch);
    if (count == PCRE2_ERROR_NOMATCH) {
      at += utf8_unit(text, at).length;
      continue;
    }
    if (count < 0) {
      return invalid_input(fmt::format("found a text on which the tokenizer's pattern fails: {}",
                                       pcre2_message(count)));
    }
    CHECK(ends[0] == at && ends[1] > at, "PCRE2 promised an anchored match that is not empty");
    matches.push_back({.begin = ends[0], .end = ends[1]});
    at = ends[1];
  }
  return {};
}

}  // namespace weir
