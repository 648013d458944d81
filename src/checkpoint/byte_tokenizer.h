#pragma once
// The tokenizer of the models that Weir writes itself: one token per byte, then tokens of their own
// for whole words such as "<end>". Any text has as many tokens as bytes, so a context of a wanted
// length is easy to make, and every id that a model can produce has a text.

#include <cstdint>
#include <span>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace weir {

inline constexpr std::int64_t kNumByteTokens = 256;  // Token id = byte value.

struct WordToken {
  std::string text;
  bool special = false;  // Left out when tokens are decoded for reading.
};

// A tokenizer.json (byte-level BPE without merges). The words have the ids from 256 on; the ids
// left up to `vocab_size` decode to "<unused-N>" and come out of no text. vocab_size must be at
// least 256 + words.size(), the words distinct and no part of each other.
[[nodiscard]] nlohmann::json byte_tokenizer(std::span<const WordToken> words,
                                            std::int64_t vocab_size);

}  // namespace weir
