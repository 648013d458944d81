#pragma once
// The little of Unicode that tokenizers need: UTF-8 step by step, the character properties that
// added tokens ask for, and canonical composition (NFC).

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace weir {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// What stands at one place of a byte string.
//   complete: a whole character of `length` bytes;  truncated: the bytes end within a character,
//   `length` of them are there;  ill_formed: `length` bytes that no continuation can repair, the
//   "maximal subpart" that is replaced by one U+FFFD (The Unicode Standard, section 3.9).
enum class Utf8Kind { complete, truncated, ill_formed };
struct Utf8Unit {
  Utf8Kind kind = Utf8Kind::complete;
  std::size_t length = 1;
  char32_t code_point = 0;  // Of a complete unit.
};
// Requires at < text.size().
[[nodiscard]] Utf8Unit utf8_unit(std::string_view text, std::size_t at);

// Offset of the first byte that is not part of well-formed UTF-8.
[[nodiscard]] std::optional<std::size_t> find_invalid_utf8(std::string_view text);

void append_utf8(std::string& text, char32_t code_point);

// Moves all that can be decided from the front of `bytes` to `text`, each ill-formed subpart as
// U+FFFD; a truncated character stays in `bytes`.
void drain_utf8(std::string& bytes, std::string& text);

// White_Space, and \w as UTS #18 defines it (annex C), both of Unicode 16.
[[nodiscard]] bool is_white_space(char32_t code_point);
[[nodiscard]] bool is_word_character(char32_t code_point);

// Normalization form C of well-formed UTF-8, as of Unicode 9: the reference composes and reorders
// by the tables of that version, so that younger characters stay as and where they are. Fails only
// where the Unicode library does.
[[nodiscard]] Result<std::string> to_nfc(std::string_view text);

}  // namespace weir
