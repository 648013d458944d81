#pragma once
// The second stage: cuts a normalized text into pieces, within which alone the model merges, and
// rewrites them into the model's alphabet.

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/regex.h"

namespace weir {

// A text and its pieces: in order, without overlaps, none empty. What no piece covers is dropped.
struct Pieces {
  std::string text;
  std::vector<TextSpan> spans;
};

// What a match of a Split pattern is, for the pieces around it.
enum class SplitBehavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

class PreTokenizer {
 public:
  struct Split {
    std::variant<std::string, Regex> pattern;
    SplitBehavior behavior = SplitBehavior::isolated;
    bool invert = false;  // What matches is kept, what lies between is the delimiter.
  };
  struct Digits {
    bool individual = false;
  };
  struct ByteLevel {
    bool add_prefix_space = false;
    std::optional<Regex> regex;
  };
  enum class PrependScheme { first, never, always };
  struct Metaspace {
    std::string replacement;
    PrependScheme prepend = PrependScheme::always;
    bool split = true;
  };
  using Step = std::variant<Split, Digits, ByteLevel, Metaspace>;

  PreTokenizer() = default;  // One piece.
  // Reads Split, Digits, ByteLevel, Metaspace and Sequences of them, or null. What it cannot read
  // is added to the problems.
  [[nodiscard]] static PreTokenizer from_json(const nlohmann::json& value, const std::string& path,
                                              std::vector<std::string>& problems);

  // `at_beginning` says whether `text` is the beginning of what the user wrote.
  [[nodiscard]] Result<Pieces> cut(std::string_view text, bool at_beginning,
                                   RegexScratch& scratch) const;

  // Whether the result depends on `at_beginning`.
  [[nodiscard]] bool looks_at_beginning() const;

 private:
  std::vector<Step> steps_;
};

// Reads "Metaspace", which is a decoder too.
[[nodiscard]] PreTokenizer::Metaspace read_metaspace(ObjectReader& step);

}  // namespace weir
