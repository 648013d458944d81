#pragma once
// A file mapped read-only into memory: opening it reads nothing, and afterwards only pages that are
// touched are read, by whichever thread touches them first.

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace weir {

// Movable, not copyable; `bytes()` is valid as long as the object (or what it was moved to) lives.
// Reading the bytes ends the process with SIGBUS if another program has cut the file short
// meanwhile.
class MappedFile {
 public:
  // Fails on anything but a regular file that can be read. An empty file maps to an empty span.
  [[nodiscard]] static Result<MappedFile> open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<std::byte> bytes) : bytes_(bytes) {}

  std::span<std::byte> bytes_;
};

}  // namespace weir
