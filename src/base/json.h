#pragma once
// Reading JSON that somebody else wrote: every field is checked, every problem is gathered with its
// path, and keys that nobody asked for are refused. Used by all loaders (model, cluster, workload,
// plan); writing uses nlohmann::json directly.

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace weir {

// Largest JSON document that Weir reads, so that a hostile file cannot exhaust memory.
// tokenizer.json of 250k tokens: 20 MB.
inline constexpr std::size_t kMaxJsonBytes = std::size_t{256} << 20;
// Deepest nesting that is accepted.
inline constexpr int kMaxJsonDepth = 64;

// Parses `text`. Fails on a syntax error (naming source and byte), invalid UTF-8, excessive size or
// nesting.
[[nodiscard]] Result<nlohmann::json> parse_json(std::string_view text, std::string_view source);

// Reads and parses a file. Fails also when it cannot be read.
[[nodiscard]] Result<nlohmann::json> read_json_file(const std::string& path);
[[nodiscard]] Result<std::string> read_text_file(const std::string& path,
                                                 std::size_t max_bytes = kMaxJsonBytes);

struct IntegerLimits {
  std::int64_t min = std::numeric_limits<std::int64_t>::min();
  std::int64_t max = std::numeric_limits<std::int64_t>::max();
};
struct NumberLimits {
  double min = std::numeric_limits<double>::lowest();
  double max = std::numeric_limits<double>::max();
};

// One JSON object on its way into a struct. A field that is missing, of the wrong type or out of
// its limits adds one line to `problems` ("model.num_layers: found -3, allowed 1..1000") and reads
// as a harmless value within the limits, so that reading goes on and finds the rest. The json and
// the problems must outlive the reader.
class ObjectReader {
 public:
  // `path` is what messages call this object. A value that is no object is one problem, then reads
  // as {}.
  ObjectReader(const nlohmann::json& value, std::string path, std::vector<std::string>& problems);

  [[nodiscard]] bool has(std::string_view key) const;  // Present and not null.

  // Required fields.
  [[nodiscard]] std::int64_t integer(std::string_view key, IntegerLimits limits);
  [[nodiscard]] double number(std::string_view key, NumberLimits limits);
  [[nodiscard]] std::string string(std::string_view key);
  [[nodiscard]] bool boolean(std::string_view key);
  [[nodiscard]] ObjectReader object(std::string_view key);
  [[nodiscard]] std::vector<ObjectReader> objects(std::string_view key);  // An array of objects.
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key, IntegerLimits limits);
  [[nodiscard]] std::vector<double> numbers(std::string_view key, NumberLimits limits);
  [[nodiscard]] std::vector<std::string> strings(std::string_view key);
  // Index of the string among `allowed`.
  [[nodiscard]] std::size_t choice(std::string_view key, std::span<const std::string_view> allowed);

  // Optional fields: nullopt where the key is missing or null.
  [[nodiscard]] std::optional<std::int64_t> optional_integer(std::string_view key,
                                                             IntegerLimits limits);
  [[nodiscard]] std::optional<double> optional_number(std::string_view key, NumberLimits limits);
  [[nodiscard]] std::optional<std::string> optional_string(std::string_view key);
  [[nodiscard]] std::optional<bool> optional_boolean(std::string_view key);

  // Marks a key as read without reading it (known and irrelevant here).
  void ignore(std::string_view key);
  // Adds a problem for every key that nothing has asked for. Call last.
  void refuse_unknown_keys();

  void problem(std::string_view key, std::string_view text);  // Adds "path.key: text".
  [[nodiscard]] const std::string& path() const { return path_; }
  // The raw value of a key, null where absent. Marks the key as read.
  [[nodiscard]] const nlohmann::json& raw(std::string_view key);

 private:
  [[nodiscard]] std::string path_of(std::string_view key) const;

  const nlohmann::json* value_;
  std::string path_;
  std::vector<std::string>* problems_;
  std::set<std::string, std::less<>> asked_;
};

// The value as one short line for a message: long or nested values are cut.
[[nodiscard]] std::string shown(const nlohmann::json& value);

}  // namespace weir
