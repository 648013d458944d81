#include "text/regex.h"

#include <array>
#include <string>

#include <fmt/format.h>

#include "base/check.h"
#include "text/regex_syntax.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace weir {
namespace {

// Steps of one search from one start. Published patterns take tens, whatever the text.
constexpr std::uint32_t kMatchLimit = 1'000'000;
// The interpreter, which serves where just-in-time compilation is forbidden, counts every step
// back through a run of spaces.
constexpr std::uint32_t kHeapLimitKib = 64 * 1024;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 128> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

void RegexScratch::FreeData::operator()(pcre2_match_data* data) const {
  pcre2_match_data_free(data);
}
void RegexScratch::FreeContext::operator()(pcre2_match_context* context) const {
  pcre2_match_context_free(context);
}
void Regex::FreeCode::operator()(pcre2_code* code) const { pcre2_code_free(code); }

RegexScratch::RegexScratch()
    : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
  CHECK(data_ && context_, "out of memory");
  pcre2_set_match_limit(context_.get(), kMatchLimit);
  pcre2_set_heap_limit(context_.get(), kHeapLimitKib);
}

Result<Regex> Regex::compile(std::string_view pattern) {
  const Result<std::string> translated = translate_regex(pattern);
  if (!translated) return tl::unexpected(translated.error());
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()),
                                         translated->size(), PCRE2_UTF, &error, &offset, nullptr);
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
  static_cast<void>(pcre2_jit_compile(code, PCRE2_JIT_COMPLETE));
  return regex;
}

Status Regex::find_all(std::string_view text, RegexScratch& scratch,
                       std::vector<TextSpan>& matches) const {
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(scratch.data_.get());
  const auto* const subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::uint32_t options = PCRE2_NO_UTF_CHECK;
  for (std::size_t at = 0; at < text.size();) {
    const int count = pcre2_match(code_.get(), subject, text.size(), at, options,
                                  scratch.data_.get(), scratch.context_.get());
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
      options |= PCRE2_NO_JIT;  // The interpreter keeps its stack on the heap.
      continue;
    }
    if (count < 0) {
      return invalid_input(fmt::format("found a text on which the tokenizer's pattern fails: {}",
                                       pcre2_message(count)));
    }
    CHECK(ends[1] > at && ends[1] > ends[0], "PCRE2 promised no empty match");
    matches.push_back({.begin = ends[0], .end = ends[1]});
    at = ends[1];
  }
  return {};
}

}  // namespace weir
