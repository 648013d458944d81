#pragma once
// Reading the safetensors format: 8 bytes of little-endian header length, a JSON header that names
// tensors with their dtype, shape and place, then their data. The header is somebody else's claim:
// everything in it is checked against the file before a tensor is handed out.
// Source: "Format", README of huggingface/safetensors.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "checkpoint/mapped_file.h"

namespace weir {

// The reference implementation refuses longer headers too.
inline constexpr std::int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  std::string_view format_dtype;  // As the format spells it: "BF16", "I64".
  std::optional<DType> dtype;     // Absent for dtypes that Weir does not compute with.
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;  // Bytes from the start of the file, a multiple of the element size.
  std::int64_t end = 0;
};

// Checks the header in `file`, the content of a whole file, and returns the tensors in the order of
// their data. Then the tensors fill the file from the end of the header to its last byte without
// gaps or overlaps, each has exactly the bytes that its shape and dtype need, and names are unique.
// `source` begins each message.
[[nodiscard]] Result<std::vector<SafetensorsEntry>> parse_safetensors(
    std::span<const std::byte> file, std::string_view source);

// The weight_map of a model.safetensors.index.json: tensor name -> file name. File names are plain
// names without folders, so that an index cannot point outside its own folder.
[[nodiscard]] Result<std::map<std::string, std::string>> parse_safetensors_index(
    std::string_view text, std::string_view source);

// One mapped file and its checked header.
class SafetensorsFile {
 public:
  [[nodiscard]] static Result<SafetensorsFile> open(const std::string& path);

  [[nodiscard]] std::span<const SafetensorsEntry> entries() const { return entries_; }
  // Valid as long as the file (or what it was moved to) lives.
  [[nodiscard]] const std::byte* data(const SafetensorsEntry& entry) const {
    return file_.bytes().data() + entry.begin;
  }

 private:
  SafetensorsFile(MappedFile file, std::vector<SafetensorsEntry> entries)
      : file_(std::move(file)), entries_(std::move(entries)) {}

  MappedFile file_;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace weir
