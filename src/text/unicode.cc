#include "text/unicode.h"

#include <fmt/format.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/unistr.h>

#include "base/check.h"
#include "text/unicode_additions.h"

namespace weir {
namespace {

struct LeadByte {
  std::size_t length = 0;  // Of the whole character; 0 where no character starts so.
  unsigned char second_min = 0x80;
  unsigned char second_max = 0xBF;
};

// The Unicode Standard, table 3-7.
LeadByte lead_byte(unsigned char byte) {
  if (byte < 0x80) return {.length = 1};
  if (byte < 0xC2) return {};
  if (byte < 0xE0) return {.length = 2};
  if (byte == 0xE0) return {.length = 3, .second_min = 0xA0};
  if (byte == 0xED) return {.length = 3, .second_max = 0x9F};
  if (byte < 0xF0) return {.length = 3};
  if (byte == 0xF0) return {.length = 4, .second_min = 0x90};
  if (byte < 0xF4) return {.length = 4};
  if (byte == 0xF4) return {.length = 4, .second_max = 0x8F};
  return {};
}

const icu::UnicodeSet& normalizable_characters() {
  static const icu::UnicodeSet characters = [] {
    UErrorCode status = U_ZERO_ERROR;
    icu::UnicodeSet set(u"[:age=9.0:]", status);
    CHECK(U_SUCCESS(status), "ICU knows the age of characters");
    set.freeze();
    return set;
  }();
  return characters;
}

}  // namespace

Utf8Unit utf8_unit(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const LeadByte lead = lead_byte(byte(0));
  if (lead.length == 0) return {.kind = Utf8Kind::ill_formed};
  if (lead.length == 1) return {.code_point = byte(0)};
  char32_t code_point = byte(0) & (0x7FU >> lead.length);
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (at + i == text.size()) return {.kind = Utf8Kind::truncated, .length = i};
    const unsigned char min = i == 1 ? lead.second_min : 0x80;
    const unsigned char max = i == 1 ? lead.second_max : 0xBF;
    if (byte(i) < min || byte(i) > max) return {.kind = Utf8Kind::ill_formed, .length = i};
    code_point = (code_point << 6U) | (byte(i) & 0x3FU);
  }
  return {.length = lead.length, .code_point = code_point};
}

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Unit unit = utf8_unit(text, at);
    if (unit.kind != Utf8Kind::complete) return at;
    at += unit.length;
  }
  return std::nullopt;
}

void append_utf8(std::string& text, char32_t code_point) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6U));
    put(0x80 | (code_point & 0x3FU));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12U));
    put(0x80 | ((code_point >> 6U) & 0x3FU));
    put(0x80 | (code_point & 0x3FU));
  } else {
    put(0xF0 | (code_point >> 18U));
    put(0x80 | ((code_point >> 12U) & 0x3FU));
    put(0x80 | ((code_point >> 6U) & 0x3FU));
    put(0x80 | (code_point & 0x3FU));
  }
}

void drain_utf8(std::string& bytes, std::string& text) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Unit unit = utf8_unit(bytes, at);
    if (unit.kind == Utf8Kind::truncated) break;
    if (unit.kind == Utf8Kind::complete) {
      text.append(bytes, at, unit.length);
    } else {
      text += kReplacementCharacter;
    }
    at += unit.length;
  }
  bytes.erase(0, at);
}

bool is_white_space(char32_t code_point) {
  return u_hasBinaryProperty(static_cast<UChar32>(code_point), UCHAR_WHITE_SPACE) != 0;
}

bool is_word_character(char32_t code_point) {
  const auto c = static_cast<UChar32>(code_point);
  constexpr std::uint32_t kCategories = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return u_hasBinaryProperty(c, UCHAR_ALPHABETIC) != 0 || (U_GET_GC_MASK(c) & kCategories) != 0 ||
         u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL) != 0 || is_added_word_character(code_point);
}

Result<std::string> to_nfc(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* const nfc = icu::Normalizer2::getNFCInstance(status);
  const icu::StringPiece piece(text.data(), static_cast<std::int32_t>(text.size()));
  if (U_SUCCESS(status) && nfc->isNormalizedUTF8(piece, status)) return std::string(text);
  std::string normalized;
  if (U_SUCCESS(status)) {
    const icu::FilteredNormalizer2 filtered(*nfc, normalizable_characters());
    icu::UnicodeString composed;
    filtered.normalize(icu::UnicodeString::fromUTF8(piece), composed, status);
    composed.toUTF8String(normalized);
  }
  if (U_FAILURE(status))
    return run_failed(fmt::format("NFC normalization failed: {}", u_errorName(status)));
  return normalized;
}

}  // namespace weir
