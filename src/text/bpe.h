#pragma once
// Byte-pair encoding: a word is cut into characters, then the adjacent pair whose merge has the
// lowest rank is merged, again and again (Sennrich et al., arXiv:1508.07909). A heap of pending
// merges over a linked list makes that n log n in the length of the word.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json.h"

namespace weir {

// Largest id that a vocabulary may use. Published vocabularies end near 260'000.
inline constexpr std::int64_t kMaxTokenId = 4'000'000;

// So that a map of strings can be asked for a string_view.
struct StringHash {
  // NOLINTNEXTLINE(readability-identifier-naming): the name that the standard library looks for.
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};
template <class Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

// From a pair of adjacent tokens to what they merge into.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = 0;
    std::uint32_t merged = 0;
  };
  // Makes room for that many merges; must come before the first `set`.
  void reserve(std::size_t count);
  void set(std::uint32_t left, std::uint32_t right, Merge merge);  // The last one wins.
  [[nodiscard]] std::optional<Merge> find(std::uint32_t left, std::uint32_t right) const;

 private:
  struct Slot {
    std::uint64_t pair = kEmpty;
    Merge merge;
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // No pair: ids are below 2^22.
  [[nodiscard]] std::size_t slot_of(std::uint64_t pair) const;

  std::vector<Slot> slots_;  // A power of two of them, at most half in use.
  unsigned shift_ = 0;
};

// What encoding writes while it works, and the words that it has met before. One per call, so that
// a Bpe can be shared between threads.
struct BpeWorkspace {
  struct Symbol {
    std::uint32_t id = 0;
    std::int32_t previous = kNone;
    std::int32_t next = kNone;
    bool merged_away = false;
    static constexpr std::int32_t kNone = -1;  // The end of the list.
  };
  struct Pending {
    std::uint32_t rank = 0;
    std::uint32_t position = 0;
    std::uint32_t merged = 0;
  };
  std::vector<Symbol> symbols;
  std::vector<Pending> heap;
  std::vector<std::int64_t> known_ids;
  StringMap<std::pair<std::size_t, std::size_t>> known_words;  // To a range of known_ids.
};

class Bpe {
 public:
  Bpe() = default;
  // Reads the "model" of a tokenizer.json. What it cannot read is added to the problems; what it
  // returns then must not be used.
  [[nodiscard]] static Bpe from_json(const nlohmann::json& value,
                                     std::vector<std::string>& problems);

  // Appends the ids of one word, which is a piece as the pre-tokenizer cuts it. Characters that
  // the vocabulary lacks become their byte tokens or the unknown token; without these they vanish,
  // as in the reference.
  void encode(std::string_view word, BpeWorkspace& workspace, std::vector<std::int64_t>& ids) const;

  [[nodiscard]] std::optional<std::int64_t> token_to_id(std::string_view token) const;
  // Null where no token has the id.
  [[nodiscard]] const std::string* id_to_token(std::int64_t id) const;
  [[nodiscard]] std::size_t num_tokens() const { return ids_.size(); }
  [[nodiscard]] std::int64_t largest_id() const;  // -1 for an empty vocabulary.

 private:
  void read_vocab(ObjectReader& model, std::vector<std::string>& problems);
  void read_merges(ObjectReader& model, std::vector<std::string>& problems);
  void add_merge(std::pair<std::string_view, std::string_view> parts, std::uint32_t rank,
                 const std::string& path, std::vector<std::string>& problems);
  void read_unknown_token(ObjectReader& model);
  void index_characters();

  void cut_into_symbols(std::string_view word, BpeWorkspace& workspace) const;
  [[nodiscard]] bool append_byte_symbols(std::string_view character, BpeWorkspace& workspace) const;
  [[nodiscard]] std::optional<std::uint32_t> character_id(std::string_view character,
                                                          char32_t code_point) const;
  void merge_symbols(BpeWorkspace& workspace) const;
  void push_merge(std::int32_t left, BpeWorkspace& workspace) const;

  // Code points below this are looked up in an array: the byte-level alphabet ends at U+0143.
  static constexpr std::size_t kDirectCharacters = 0x180;

  StringMap<std::uint32_t> ids_;
  std::unordered_map<std::uint32_t, std::string> tokens_;
  MergeTable merges_;
  std::array<std::optional<std::uint32_t>, kDirectCharacters> character_ids_{};
  std::array<std::optional<std::uint32_t>, 256> byte_ids_{};
  std::optional<std::uint32_t> unknown_id_;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace weir
