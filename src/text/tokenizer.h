#pragma once
// Text to token ids and back, as a Hugging Face tokenizer.json says. The file describes a row of
// stages, of which Weir runs those that Llama, Mistral, Qwen, DeepSeek and their kin use:
//
//   text -> added tokens -> normalizer -> pre-tokenizer -> byte-pair encoding -> post-processor
//   ids  -> tokens -> decoder -> text
//
// The ids equal those of the `tokenizers` library (0.23), which defines the format. A file that
// asks for anything else (another model, normalizer, truncation, ...) is refused by name rather
// than read approximately. A Tokenizer is immutable and safe to share between threads.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"

namespace weir {

// Longest text that is encoded in one go.
inline constexpr std::size_t kMaxTextBytes = std::size_t{64} << 20;

struct EncodeOptions {
  bool add_special_tokens = true;  // Those of the post-processor; in the text they always count.
};

struct DecodeOptions {
  bool skip_special_tokens = false;
};

class Tokenizer {
 public:
  // Reads the text of a tokenizer.json; `source` is what error messages call it.
  [[nodiscard]] static Result<Tokenizer> from_json(std::string_view text, std::string_view source);
  // Reads `folder`/tokenizer.json.
  [[nodiscard]] static Result<Tokenizer> load(const std::string& folder);

  // Fails on invalid UTF-8 (naming the byte), and on texts longer than kMaxTextBytes.
  [[nodiscard]] Result<std::vector<std::int64_t>> encode(std::string_view text,
                                                         EncodeOptions options = {}) const;

  // Well-formed UTF-8 for any ids; ids that no token has are skipped, as the reference does.
  [[nodiscard]] std::string decode(std::span<const std::int64_t> ids,
                                   DecodeOptions options = {}) const;

  // One more than the largest id: the rows that an embedding needs at least.
  [[nodiscard]] std::int64_t vocab_size() const { return vocab_size_; }
  [[nodiscard]] std::optional<std::int64_t> token_to_id(std::string_view token) const;
  // The token as the file spells it; null where no token has the id.
  [[nodiscard]] const std::string* id_to_token(std::int64_t id) const;
  [[nodiscard]] bool is_special(std::int64_t id) const;
  // In the order of the file.
  [[nodiscard]] std::span<const AddedToken> added_tokens() const { return added_tokens_; }

  // What goes into a decoder for an id; nothing for unknown and for skipped ones.
  [[nodiscard]] std::optional<std::string_view> token_text(std::int64_t id,
                                                           DecodeOptions options) const;
  // A copy of it decodes one text.
  [[nodiscard]] const Decoder& decoder() const { return decoder_; }

 private:
  // What decoding needs to know of an added token.
  struct AddedText {
    std::size_t index = 0;  // Into added_tokens_.
    std::string text;       // Its normalized form, which the decoder undoes.
    bool skippable = false;
  };

  Tokenizer() = default;
  static Tokenizer read(const nlohmann::json& document, std::vector<std::string>& problems);
  void index_added_tokens(std::vector<std::string>& problems);
  void check_ids(std::vector<std::string>& problems) const;
  [[nodiscard]] Status encode_between_added_tokens(std::string_view text, bool at_beginning,
                                                   RegexScratch& scratch, BpeWorkspace& workspace,
                                                   std::vector<std::int64_t>& ids) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Bpe model_;
  PostProcessor post_processor_;
  Decoder decoder_;
  std::vector<AddedToken> added_tokens_;
  std::unordered_map<std::int64_t, AddedText> added_by_id_;
  StringMap<std::int64_t> added_ids_;
  AddedTokenMatcher before_normalization_{{}};
  AddedTokenMatcher after_normalization_{{}};
  std::int64_t vocab_size_ = 0;
};

// Decodes ids one by one, as they are generated. What it has returned is never taken back: bytes
// that later ids may complete are held back. The returned texts, with flush() at the end, join to
// exactly what decode() makes of all the ids. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, DecodeOptions options = {});

  // The text that this id makes certain; may be empty.
  [[nodiscard]] std::string push(std::int64_t id);
  // The rest (an incomplete character as U+FFFD); the decoder is then as new.
  [[nodiscard]] std::string flush();

 private:
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  Decoder decoder_;
};

}  // namespace weir
