#pragma once
// Files and folders that appear whole or not at all: they are written beside their final place
// under a hidden name and renamed when they are complete. Whoever fails half-way leaves nothing.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace weir {

// One file on its way to `path`. Movable, not copyable; removes what it wrote unless committed.
class StagedFile {
 public:
  // The folder of `path` must exist.
  [[nodiscard]] static Result<StagedFile> create(const std::string& path);

  StagedFile(StagedFile&& other) noexcept;
  StagedFile& operator=(StagedFile&&) = delete;
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;
  ~StagedFile();

  // Fails when the disk is full, among others; the file is then of no use.
  [[nodiscard]] Status write(std::span<const std::byte> bytes);
  [[nodiscard]] Status write(std::string_view text) {
    return write(std::as_bytes(std::span(text.data(), text.size())));
  }
  // Flushes to the disk and renames to `path`, replacing a file that is there. Call once, last.
  [[nodiscard]] Status commit();

 private:
  StagedFile(int descriptor, std::string path, std::string staged_path)
      : descriptor_(descriptor), path_(std::move(path)), staged_path_(std::move(staged_path)) {}

  int descriptor_ = -1;
  std::string path_;
  std::string staged_path_;  // Empty once committed or moved from.
};

// Writes a small file whole or not at all.
[[nodiscard]] Status write_text_file(const std::string& path, std::string_view text);

// One folder on its way to its place. Movable, not copyable; removes itself unless committed.
class StagedFolder {
 public:
  enum class Existing {
    refuse,         // Only where there is nothing, or an empty folder.
    replace_model,  // Also where there is a folder with nothing but the files of a model in it.
  };

  // The parent of `folder` must exist.
  [[nodiscard]] static Result<StagedFolder> create(const std::string& folder, Existing existing);

  StagedFolder(StagedFolder&& other) noexcept;
  StagedFolder& operator=(StagedFolder&&) = delete;
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;
  ~StagedFolder();

  // Where to write until `commit`.
  [[nodiscard]] const std::string& path() const { return staged_path_; }
  // Renames to the final place; what was there is removed afterwards. Call once, last.
  [[nodiscard]] Status commit();

 private:
  StagedFolder(std::string path, std::string staged_path)
      : path_(std::move(path)), staged_path_(std::move(staged_path)) {}

  std::string path_;
  std::string staged_path_;  // Empty once committed or moved from.
};

}  // namespace weir
