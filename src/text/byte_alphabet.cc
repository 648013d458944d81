#include "text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "text/unicode.h"

namespace weir {
namespace {

constexpr std::size_t kHiddenBytes = 68;  // Bytes that are no printable character of Latin-1.
constexpr std::size_t kAlphabetEnd = 0x100 + kHiddenBytes;

constexpr bool is_printable(std::size_t byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char32_t, 256> kCharacterOfByte = [] {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    characters[byte] = is_printable(byte) ? static_cast<char32_t>(byte) : next++;
  }
  return characters;
}();
static_assert(kCharacterOfByte[0xAD] == kAlphabetEnd - 1);

constexpr std::array<std::optional<char>, kAlphabetEnd> kByteOfCharacter = [] {
  std::array<std::optional<char>, kAlphabetEnd> bytes{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    bytes[kCharacterOfByte[byte]] = static_cast<char>(static_cast<unsigned char>(byte));
  }
  return bytes;
}();

}  // namespace

void append_byte_characters(std::string& text, std::string_view bytes) {
  for (const char byte : bytes) {
    append_utf8(text, kCharacterOfByte[static_cast<unsigned char>(byte)]);
  }
}

void append_token_bytes(std::string& bytes, std::string_view token) {
  const std::size_t before = bytes.size();
  for (std::size_t at = 0; at < token.size();) {
    const Utf8Unit unit = utf8_unit(token, at);
    const bool known =
        unit.code_point < kAlphabetEnd && kByteOfCharacter[unit.code_point].has_value();
    if (!known) {
      bytes.resize(before);
      bytes += token;
      return;
    }
    bytes += *kByteOfCharacter[unit.code_point];
    at += unit.length;
  }
}

}  // namespace weir
