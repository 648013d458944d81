#pragma once
// The last stage: from tokens back to text. A decoder is a row of steps; tokens pass through it one
// by one, and a step holds back only what later tokens can still change. So decoding a whole row of
// tokens and streaming them are the same code.

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"

namespace weir {

class Decoder {
 public:
  struct Join {  // No decoder at all: tokens with a space between them.
    bool is_first = true;
  };
  struct Replace {
    std::string pattern;
    std::string content;
  };
  // Tokens <0x00>..<0xFF> stand for bytes. A run of them is one text if it is UTF-8, else one
  // U+FFFD per token; so a run is held back until it ends.
  struct ByteFallback {
    std::string run;
  };
  // Removes up to `count` times `character` from the beginning of each token, or of the whole.
  struct Strip {
    std::string character;
    std::size_t count = 0;
    bool of_whole = false;
    std::size_t stripped = 0;  // Of the whole.
  };
  struct Metaspace {  // The replacement is a space, but in the first token nothing, if so asked.
    std::string replacement;
    bool drop_in_first = true;
    bool is_first = true;
  };
  struct ByteLevel {  // Tokens spell bytes; an incomplete character is held back.
    std::string bytes;
  };
  // The steps carry their state with them: a Decoder is copied for each text to be decoded.
  using Step = std::variant<Join, Replace, ByteFallback, Strip, Metaspace, ByteLevel>;

  // Reads ByteLevel, ByteFallback, Fuse, Metaspace, Replace (of a string), Strip and Sequences of
  // them, or null. What it cannot read is added to the problems.
  [[nodiscard]] static Decoder from_json(const nlohmann::json& value, const std::string& path,
                                         std::vector<std::string>& problems);

  // Appends the text that the token makes certain. All of it is well-formed UTF-8 if the token is.
  void push(std::string_view token, std::string& text) { push_from(0, token, text); }
  // Appends what was held back; no push may follow.
  void finish(std::string& text);

 private:
  void push_from(std::size_t step, std::string_view token, std::string& text);

  std::vector<Step> steps_{Join{}};
};

}  // namespace weir
