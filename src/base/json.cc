#include "base/json.h"

#include <cmath>
#include <cstdio>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

using nlohmann::json;

const json& null_json() {
  static const json null;
  return null;
}

const json& empty_object() {
  static const json empty = json::object();
  return empty;
}

// The deepest nesting of brackets outside strings; parsing is then safe whatever the parser does
// with depth.
int nesting_depth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

std::optional<std::int64_t> exact_integer(const json& value) {
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return std::nullopt;
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  // Some writers print 4096 as 4096.0; beyond 2^53 a double no longer says which integer was meant.
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::abs(number) <= 0x1p53 && number == std::floor(number))
      return static_cast<std::int64_t>(number);
  }
  return std::nullopt;
}

std::string allowed(IntegerLimits limits) {
  const IntegerLimits open;
  if (limits.min == open.min && limits.max == open.max) return "an integer";
  if (limits.max == open.max) return fmt::format("an integer of at least {}", limits.min);
  return fmt::format("an integer in {}..{}", limits.min, limits.max);
}

std::string allowed(NumberLimits limits) {
  const NumberLimits open;
  if (limits.min == open.min && limits.max == open.max) return "a finite number";
  if (limits.max == open.max) return fmt::format("a number of at least {}", limits.min);
  return fmt::format("a number in {}..{}", limits.min, limits.max);
}

template <class Number, class Limits>
Number within(Limits limits) {
  const Number zero{};
  return zero < limits.min ? limits.min : (limits.max < zero ? limits.max : zero);
}

}  // namespace

std::string shown(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  constexpr std::size_t kLongest = 60;
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

Result<json> parse_json(std::string_view text, std::string_view source) {
  if (text.size() > kMaxJsonBytes) {
    return invalid_input(
        fmt::format("{}: found {} bytes, allowed at most {}", source, text.size(), kMaxJsonBytes));
  }
  if (const int depth = nesting_depth(text); depth > kMaxJsonDepth) {
    return invalid_input(fmt::format("{}: found nesting of depth {}, allowed at most {}", source,
                                     depth, kMaxJsonDepth));
  }
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    std::string reason = error.what();
    if (const auto start = reason.find("] "); start != std::string::npos)
      reason = reason.substr(start + 2);
    for (char& c : reason) {
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    }
    return invalid_input(fmt::format("{}: not valid JSON: {}", source, reason));
  }
}

Result<std::string> read_text_file(const std::string& path, std::size_t max_bytes) {
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rb"), close);
  if (!file) return invalid_input(fmt::format("{}: cannot be opened for reading", path));
  std::string text;
  std::string chunk(std::size_t{1} << 16, '\0');
  while (const std::size_t count = std::fread(chunk.data(), 1, chunk.size(), file.get())) {
    text.append(chunk, 0, count);
    if (text.size() > max_bytes) {
      return invalid_input(
          fmt::format("{}: found more than {} bytes, which is the most allowed", path, max_bytes));
    }
  }
  if (std::ferror(file.get()) != 0)
    return invalid_input(fmt::format("{}: cannot be read (is it a folder?)", path));
  return text;
}

Result<json> read_json_file(const std::string& path) {
  return read_text_file(path).and_then(
      [&](const std::string& text) { return parse_json(text, path); });
}

ObjectReader::ObjectReader(const json& value, std::string path, std::vector<std::string>& problems)
    : value_(&value), path_(std::move(path)), problems_(&problems) {
  if (!value.is_object()) {
    problems_->push_back(fmt::format("{}: found {}, allowed an object", path_, shown(value)));
    value_ = &empty_object();
  }
}

std::string ObjectReader::path_of(std::string_view key) const {
  std::string path = path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  // The document chooses its keys, and a message is one line.
  for (char& c : path) {
    if (static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  return path;
}

bool ObjectReader::has(std::string_view key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const json& ObjectReader::raw(std::string_view key) {
  asked_.emplace(key);
  const auto found = value_->find(key);
  return found == value_->end() ? null_json() : *found;
}

void ObjectReader::ignore(std::string_view key) { asked_.emplace(key); }

void ObjectReader::problem(std::string_view key, std::string_view text) {
  problems_->push_back(fmt::format("{}: {}", path_of(key), text));
}

std::optional<std::int64_t> ObjectReader::optional_integer(std::string_view key,
                                                           IntegerLimits limits) {
  const json& value = raw(key);
  if (value.is_null()) return std::nullopt;
  const std::optional<std::int64_t> number = exact_integer(value);
  if (number && *number >= limits.min && *number <= limits.max) return number;
  problem(key, fmt::format("found {}, allowed {}", shown(value), allowed(limits)));
  return within<std::int64_t>(limits);
}

std::int64_t ObjectReader::integer(std::string_view key, IntegerLimits limits) {
  if (const auto value = optional_integer(key, limits)) return *value;
  problem(key, fmt::format("missing, allowed {}", allowed(limits)));
  return within<std::int64_t>(limits);
}

std::optional<double> ObjectReader::optional_number(std::string_view key, NumberLimits limits) {
  const json& value = raw(key);
  if (value.is_null()) return std::nullopt;
  if (value.is_number()) {
    const double number = value.get<double>();
    if (std::isfinite(number) && number >= limits.min && number <= limits.max) return number;
  }
  problem(key, fmt::format("found {}, allowed {}", shown(value), allowed(limits)));
  return within<double>(limits);
}

double ObjectReader::number(std::string_view key, NumberLimits limits) {
  if (const auto value = optional_number(key, limits)) return *value;
  problem(key, fmt::format("missing, allowed {}", allowed(limits)));
  return within<double>(limits);
}

std::optional<std::string> ObjectReader::optional_string(std::string_view key) {
  const json& value = raw(key);
  if (value.is_null()) return std::nullopt;
  if (value.is_string()) return value.get<std::string>();
  problem(key, fmt::format("found {}, allowed a string", shown(value)));
  return std::string();
}

std::string ObjectReader::string(std::string_view key) {
  if (auto value = optional_string(key)) return *std::move(value);
  problem(key, "missing, allowed a string");
  return {};
}

std::optional<bool> ObjectReader::optional_boolean(std::string_view key) {
  const json& value = raw(key);
  if (value.is_null()) return std::nullopt;
  if (value.is_boolean()) return value.get<bool>();
  problem(key, fmt::format("found {}, allowed true or false", shown(value)));
  return false;
}

bool ObjectReader::boolean(std::string_view key) {
  if (const auto value = optional_boolean(key)) return *value;
  problem(key, "missing, allowed true or false");
  return false;
}

ObjectReader ObjectReader::object(std::string_view key) {
  return {raw(key), path_of(key), *problems_};
}

std::vector<ObjectReader> ObjectReader::objects(std::string_view key) {
  const json& value = raw(key);
  std::vector<ObjectReader> readers;
  if (!value.is_array()) {
    problem(key, fmt::format("found {}, allowed an array of objects", shown(value)));
    return readers;
  }
  readers.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    readers.emplace_back(value[i], fmt::format("{}[{}]", path_of(key), i), *problems_);
  }
  return readers;
}

std::vector<std::int64_t> ObjectReader::integers(std::string_view key, IntegerLimits limits) {
  const json& value = raw(key);
  std::vector<std::int64_t> numbers;
  if (!value.is_array()) {
    problem(key, fmt::format("found {}, allowed an array of integers", shown(value)));
    return numbers;
  }
  numbers.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::optional<std::int64_t> number = exact_integer(value[i]);
    if (number && *number >= limits.min && *number <= limits.max) {
      numbers.push_back(*number);
    } else {
      problem(fmt::format("{}[{}]", key, i),
              fmt::format("found {}, allowed {}", shown(value[i]), allowed(limits)));
      numbers.push_back(within<std::int64_t>(limits));
    }
  }
  return numbers;
}

std::vector<double> ObjectReader::numbers(std::string_view key, NumberLimits limits) {
  const json& value = raw(key);
  std::vector<double> numbers;
  if (!value.is_array()) {
    problem(key, fmt::format("found {}, allowed an array of numbers", shown(value)));
    return numbers;
  }
  numbers.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    const double number = value[i].is_number() ? value[i].get<double>() : std::nan("");
    if (number >= limits.min && number <= limits.max) {
      numbers.push_back(number);
    } else {
      problem(fmt::format("{}[{}]", key, i),
              fmt::format("found {}, allowed {}", shown(value[i]), allowed(limits)));
      numbers.push_back(within<double>(limits));
    }
  }
  return numbers;
}

std::vector<std::string> ObjectReader::strings(std::string_view key) {
  const json& value = raw(key);
  std::vector<std::string> strings;
  if (!value.is_array()) {
    problem(key, fmt::format("found {}, allowed an array of strings", shown(value)));
    return strings;
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (value[i].is_string()) {
      strings.push_back(value[i].get<std::string>());
    } else {
      problem(fmt::format("{}[{}]", key, i),
              fmt::format("found {}, allowed a string", shown(value[i])));
      strings.emplace_back();
    }
  }
  return strings;
}

std::size_t ObjectReader::choice(std::string_view key,
                                 std::span<const std::string_view> allowed_names) {
  const json& value = raw(key);
  std::string names;
  for (std::size_t i = 0; i < allowed_names.size(); ++i) {
    if (value.is_string() && value.get_ref<const std::string&>() == allowed_names[i]) return i;
    names += (i == 0 ? "" : ", ") + std::string(allowed_names[i]);
  }
  problem(key, fmt::format("found {}, allowed one of: {}",
                           value.is_null() ? "nothing" : shown(value), names));
  return 0;
}

void ObjectReader::refuse_unknown_keys() {
  for (const auto& [key, unused] : value_->items()) {
    if (!asked_.contains(key)) problem(key, "unknown key");
  }
}

}  // namespace weir
