#pragma once
// The byte-level alphabet that GPT-2 introduced: every byte is written as one printable character,
// so that any byte string is a text without spaces or control characters. Printable bytes of
// Latin-1 stand for themselves, the other 68 are numbered upwards from U+0100.

#include <optional>
#include <string>
#include <string_view>

namespace weir {

// Appends the alphabet's spelling of `bytes`.
void append_byte_characters(std::string& text, std::string_view bytes);

// Appends the bytes that a token spells. A token with any character outside the alphabet spells
// its own UTF-8, as the reference library has it.
void append_token_bytes(std::string& bytes, std::string_view token);

}  // namespace weir
