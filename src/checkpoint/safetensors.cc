#include "checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace weir {
namespace {

constexpr std::int64_t kLengthBytes = 8;

struct FormatDType {
  std::string_view name;
  std::int64_t bytes;
};

// Every dtype of the format with whole bytes: tensors that the model does not need (masks, position
// tables) may have them.
constexpr std::array kFormatDTypes = {
    FormatDType{"F32", 4},     FormatDType{"BF16", 2},    FormatDType{"F16", 2},
    FormatDType{"F64", 8},     FormatDType{"C64", 8},     FormatDType{"I64", 8},
    FormatDType{"U64", 8},     FormatDType{"I32", 4},     FormatDType{"U32", 4},
    FormatDType{"I16", 2},     FormatDType{"U16", 2},     FormatDType{"I8", 1},
    FormatDType{"U8", 1},      FormatDType{"BOOL", 1},    FormatDType{"F8_E4M3", 1},
    FormatDType{"F8_E5M2", 1}, FormatDType{"F8_E8M0", 1},
};

const FormatDType* find_dtype(std::string_view name) {
  const auto* found = std::ranges::find(kFormatDTypes, name, &FormatDType::name);
  return found == kFormatDTypes.end() ? nullptr : found;
}

// One tensor as the header claims it.
struct Claim {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<std::uint64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;  // Relative to the end of the header.
};

// Reads the header as a stream of events, so that neither nesting nor size of a hostile header
// builds a tree in memory, and so that a name that comes twice is seen.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  [[nodiscard]] const std::string& problem() const { return problem_; }
  [[nodiscard]] std::vector<Claim>& claims() { return claims_; }

  bool null() override { return unexpected("null"); }
  bool boolean(bool value) override { return unexpected(value ? "true" : "false"); }
  bool number_integer(std::int64_t value) override { return unexpected(fmt::format("{}", value)); }
  bool number_float(double, const std::string& text) override { return unexpected(text); }
  bool binary(nlohmann::json::binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(std::uint64_t value) override {
    if (state_ != State::numbers) return unexpected(fmt::format("{}", value));
    if (numbers_->size() == kMaxNumbers) {
      return refuse(fmt::format("more than {} numbers", kMaxNumbers), "fewer");
    }
    numbers_->push_back(value);
    return true;
  }

  bool string(std::string& value) override {
    if (state_ == State::metadata) return true;
    if (state_ != State::tensor || key_ != "dtype") return unexpected(shown(value));
    claims_.back().dtype = value;
    return true;
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::before:
        state_ = State::header;
        return true;
      case State::header:
        state_ = key_ == "__metadata__" ? State::metadata : State::tensor;
        if (state_ == State::tensor)
          claims_.push_back({.name = key_, .dtype = {}, .shape = {}, .offsets = {}});
        return true;
      case State::metadata:
      case State::tensor:
      case State::numbers:
        return unexpected("an object");
    }
    return false;
  }

  bool end_object() override {
    if (state_ == State::tensor) {
      const Claim& claim = claims_.back();
      key_.clear();
      if (!claim.dtype || !claim.shape || !claim.offsets || claim.offsets->size() != 2) {
        problem_ = fmt::format("tensor {}: allowed exactly dtype, shape and two data_offsets",
                               shown(claim.name));
        return false;
      }
    }
    state_ = State::header;
    return true;
  }

  bool key(std::string& name) override {
    if (state_ == State::metadata) return true;
    if (state_ == State::header && !names_.insert(name).second) {
      problem_ = fmt::format("{} is there twice", shown(name));
      return false;
    }
    if (state_ == State::tensor) {
      const Claim& claim = claims_.back();
      const bool repeated = (name == "dtype" && claim.dtype) || (name == "shape" && claim.shape) ||
                            (name == "data_offsets" && claim.offsets);
      if (repeated) {
        problem_ = fmt::format("tensor {}: {} is there twice", shown(claim.name), name);
        return false;
      }
    }
    key_ = name;
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ != State::tensor || (key_ != "shape" && key_ != "data_offsets")) {
      return unexpected("an array");
    }
    auto& target = key_ == "shape" ? claims_.back().shape : claims_.back().offsets;
    numbers_ = &target.emplace();
    state_ = State::numbers;
    return true;
  }

  bool end_array() override {
    state_ = State::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    problem_ = fmt::format("not valid JSON at byte {} of the header", position);
    return false;
  }

 private:
  enum class State { before, header, metadata, tensor, numbers };
  static constexpr std::size_t kMaxNumbers = 64;  // Dimensions of a tensor; published ones have 4.

  bool refuse(const std::string& found, std::string_view allowed) {
    const std::string where =
        claims_.empty() || state_ == State::header || state_ == State::metadata
            ? (key_.empty() ? "" : shown(key_) + ": ")
            : fmt::format("tensor {}: {}: ", shown(claims_.back().name), shown(key_));
    problem_ = fmt::format("{}found {}, allowed {}", where, found, allowed);
    return false;
  }

  bool unexpected(const std::string& found) {
    switch (state_) {
      case State::before:
      case State::header:
        return refuse(found, "an object");
      case State::metadata:
        return refuse(found, "only strings");
      case State::tensor:
        return refuse(found, "dtype: a string, shape and data_offsets: arrays");
      case State::numbers:
        return refuse(found, "whole numbers that are not negative");
    }
    return false;
  }

  State state_ = State::before;
  std::string key_;
  std::set<std::string> names_;
  std::vector<Claim> claims_;
  std::vector<std::uint64_t>* numbers_ = nullptr;
  std::string problem_;
};

// Bytes that shape and dtype need, nullopt where that is beyond any file.
std::optional<std::int64_t> bytes_needed(std::span<const std::uint64_t> shape,
                                         std::int64_t element_bytes) {
  std::int64_t bytes = element_bytes;
  for (const std::uint64_t extent : shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return bytes;
}

Result<SafetensorsEntry> check_claim(const Claim& claim, std::int64_t data_begin,
                                     std::int64_t data_bytes) {
  const std::string who = fmt::format("tensor {}", shown(claim.name));
  const FormatDType* dtype = find_dtype(*claim.dtype);
  if (dtype == nullptr) {
    std::vector<std::string_view> names;
    names.reserve(kFormatDTypes.size());
    for (const FormatDType& known : kFormatDTypes) names.push_back(known.name);
    return invalid_input(fmt::format("{}: dtype: found {}, allowed one of: {}", who,
                                     shown(*claim.dtype), fmt::join(names, ", ")));
  }
  const std::uint64_t begin = (*claim.offsets)[0];
  const std::uint64_t end = (*claim.offsets)[1];
  if (begin > end || end > static_cast<std::uint64_t>(data_bytes)) {
    return invalid_input(fmt::format("{}: data_offsets: found [{}, {}], allowed within 0..{}", who,
                                     begin, end, data_bytes));
  }
  const auto needed = bytes_needed(*claim.shape, dtype->bytes);
  if (!needed || *needed != static_cast<std::int64_t>(end - begin)) {
    return invalid_input(
        fmt::format("{}: found {} bytes of data, but shape [{}] of {} needs {}", who, end - begin,
                    fmt::join(*claim.shape, ", "), dtype->name,
                    needed ? fmt::format("{}", *needed) : "more than any file has"));
  }
  SafetensorsEntry entry{
      .name = claim.name,
      .format_dtype = dtype->name,
      .dtype = parse_dtype(dtype->name),
      .shape = {},
      .begin = data_begin + static_cast<std::int64_t>(begin),
      .end = data_begin + static_cast<std::int64_t>(end),
  };
  if (entry.begin % dtype->bytes != 0) {
    return invalid_input(
        fmt::format("{}: data begins at byte {} of the file, allowed a multiple of {} for {}", who,
                    entry.begin, dtype->bytes, dtype->name));
  }
  for (const std::uint64_t extent : *claim.shape) {
    // An empty tensor may claim any extents beside its zero.
    if (extent > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
      return invalid_input(fmt::format("{}: shape: found {}, allowed at most {}", who, extent,
                                       std::numeric_limits<std::int64_t>::max()));
    }
    entry.shape.push_back(static_cast<std::int64_t>(extent));
  }
  return entry;
}

// The tensors, in the order of their data, must fill the data without gaps or overlaps.
Status check_tiling(std::vector<SafetensorsEntry>& entries, std::int64_t data_begin,
                    std::int64_t file_bytes) {
  std::ranges::stable_sort(entries, [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::int64_t next = data_begin;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != next) {
      return invalid_input(
          fmt::format("tensor {}: data begins at byte {} of the file, which {} (allowed: {})",
                      shown(entry.name), entry.begin,
                      entry.begin < next ? "overlaps the tensor before it" : "leaves a gap", next));
    }
    next = entry.end;
  }
  if (next != file_bytes) {
    return invalid_input(
        fmt::format("found {} bytes after the last tensor, allowed none", file_bytes - next));
  }
  return {};
}

Result<std::vector<SafetensorsEntry>> parse(std::span<const std::byte> file) {
  const auto file_bytes = static_cast<std::int64_t>(file.size());
  if (file_bytes < kLengthBytes) {
    return invalid_input(
        fmt::format("found {} bytes, allowed at least {}", file_bytes, kLengthBytes));
  }
  std::uint64_t header_bytes = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    header_bytes |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  }
  const std::int64_t most = std::min(file_bytes - kLengthBytes, kMaxSafetensorsHeaderBytes);
  if (header_bytes > static_cast<std::uint64_t>(most)) {
    return invalid_input(
        fmt::format("header length: found {}, allowed at most {} (the file has {} bytes)",
                    header_bytes, most, file_bytes));
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                                static_cast<std::size_t>(header_bytes));
  if (!header.starts_with('{')) return invalid_input("header: allowed only a JSON object");

  HeaderReader reader;
  if (!nlohmann::json::sax_parse(header, &reader)) {
    return invalid_input(fmt::format("header: {}", reader.problem()));
  }
  const std::int64_t data_begin = kLengthBytes + static_cast<std::int64_t>(header_bytes);
  std::vector<SafetensorsEntry> entries;
  entries.reserve(reader.claims().size());
  for (const Claim& claim : reader.claims()) {
    auto entry = check_claim(claim, data_begin, file_bytes - data_begin);
    if (!entry) return tl::unexpected(entry.error());
    entries.push_back(*std::move(entry));
  }
  if (auto tiled = check_tiling(entries, data_begin, file_bytes); !tiled) {
    return tl::unexpected(tiled.error());
  }
  return entries;
}

bool is_plain_shard_name(std::string_view name) {
  return name.ends_with(".safetensors") && !name.starts_with('.') &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

}  // namespace

Result<std::vector<SafetensorsEntry>> parse_safetensors(std::span<const std::byte> file,
                                                        std::string_view source) {
  return parse(file).map_error([&](Error error) {
    error.message = fmt::format("{}: {}", source, error.message);
    return error;
  });
}

Result<std::map<std::string, std::string>> parse_safetensors_index(std::string_view text,
                                                                   std::string_view source) {
  const auto index = parse_json(text, source);
  if (!index) return tl::unexpected(index.error());
  std::vector<std::string> problems;
  ObjectReader reader(*index, std::string(source), problems);
  const nlohmann::json& weight_map = reader.raw("weight_map");
  std::map<std::string, std::string> files;
  if (!weight_map.is_object() || weight_map.empty()) {
    reader.problem("weight_map",
                   fmt::format("found {}, allowed an object that names a file for each tensor",
                               shown(weight_map)));
  } else {
    for (const auto& [name, file] : weight_map.items()) {
      if (file.is_string() && is_plain_shard_name(file.get_ref<const std::string&>())) {
        files.emplace(name, file.get<std::string>());
      } else {
        reader.problem(fmt::format("weight_map[{}]", shown(name)),
                       fmt::format("found {}, allowed the plain name of a .safetensors file in the "
                                   "same folder",
                                   shown(file)));
      }
    }
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return files;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  auto file = MappedFile::open(path);
  if (!file) return tl::unexpected(file.error());
  auto entries = parse_safetensors(file->bytes(), path);
  if (!entries) return tl::unexpected(entries.error());
  return SafetensorsFile(*std::move(file), *std::move(entries));
}

}  // namespace weir
