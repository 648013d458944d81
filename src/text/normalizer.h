#pragma once
// The first stage: what is done to the characters of a text before it is cut into pieces.

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace weir {

// Longest text that a stage may produce; normalizers can multiply what they are given.
inline constexpr std::size_t kMaxStageBytes = std::size_t{256} << 20;

class Normalizer {
 public:
  struct Nfc {};
  struct Prepend {  // Only to a text that is not empty.
    std::string prefix;
  };
  struct Replace {
    std::string pattern;
    std::string content;
  };
  using Step = std::variant<Nfc, Prepend, Replace>;

  Normalizer() = default;  // Changes nothing.
  // Reads NFC, Prepend, Replace (of a string) and Sequences of them, or null. What it cannot read
  // is added to the problems.
  [[nodiscard]] static Normalizer from_json(const nlohmann::json& value, const std::string& path,
                                            std::vector<std::string>& problems);

  [[nodiscard]] Result<std::string> normalize(std::string_view text) const;

  [[nodiscard]] bool changes_nothing() const { return steps_.empty(); }
  // Whether the first character of the result always comes from the first one of the text.
  [[nodiscard]] bool keeps_beginning() const;

 private:
  std::vector<Step> steps_;
};

// `text` with every occurrence of `pattern` (not empty), leftmost first, replaced. Fails when the
// result exceeds kMaxStageBytes.
[[nodiscard]] Result<std::string> replace_all(std::string_view text, std::string_view pattern,
                                              std::string_view content);

// The members of a "Sequence" (under `key`), in order and flattened, or the value itself; none for
// null. Shared by every stage, since they nest in the same way.
struct NamedStep {
  std::string path;
  std::string type;
  const nlohmann::json* value = nullptr;
};
[[nodiscard]] std::vector<NamedStep> flatten_steps(const nlohmann::json& value,
                                                   const std::string& path, std::string_view key,
                                                   std::vector<std::string>& problems);

// A pattern as {"String": "..."}; anything else is a problem and reads as a harmless literal.
[[nodiscard]] std::string read_literal_pattern(ObjectReader& step);

}  // namespace weir
