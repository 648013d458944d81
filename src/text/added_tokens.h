#pragma once
// Tokens that stand outside the model: they are found in the text before anything else looks at
// it, so that no merge can produce or break them.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/regex.h"

namespace weir {

struct AddedToken {
  std::int64_t id = 0;
  std::string content;
  bool special = false;      // Left out of decoded text on request.
  bool single_word = false;  // Found only where no word character is beside it.
  bool lstrip = false;       // Takes the white space before it along.
  bool rstrip = false;       // Takes the white space after it along.
  bool normalized = false;   // Looked for after normalization, in normalized form.

  bool operator==(const AddedToken&) const = default;
};

// Reads "added_tokens". Empty contents and repeated entries are left out, as the reference does.
[[nodiscard]] std::vector<AddedToken> read_added_tokens(ObjectReader& document,
                                                        std::vector<std::string>& problems);

// Finds a set of added tokens in a text: leftmost first, the longest of those that begin there.
class AddedTokenMatcher {
 public:
  struct Pattern {
    std::string text;
    AddedToken token;
  };
  // A part of the text: an added token, or (without id) what lies between two of them.
  struct Segment {
    TextSpan span;
    std::optional<std::int64_t> id;
  };

  // The texts must be distinct and not empty.
  explicit AddedTokenMatcher(std::vector<Pattern> patterns);

  // The segments in order; none is empty. They cover the text, once, except where one token strips
  // white space with which another begins: both then claim it, as in the reference.
  [[nodiscard]] std::vector<Segment> split(std::string_view text) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::uint32_t>> children;  // Sorted by byte.
    std::optional<std::uint32_t> pattern;                           // That ends here.
  };
  struct Found {
    std::uint32_t pattern = 0;
    std::size_t length = 0;
  };
  void insert(std::uint32_t pattern);
  [[nodiscard]] std::optional<Found> longest_at(std::string_view text, std::size_t at) const;

  std::vector<Pattern> patterns_;
  std::vector<Node> nodes_;
  std::array<bool, 256> begins_{};  // Whether a pattern begins with the byte.
};

}  // namespace weir
