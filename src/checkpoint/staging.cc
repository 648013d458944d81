#include "checkpoint/staging.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/check.h"

namespace weir {
namespace {

namespace fs = std::filesystem;

// ".name.1234.partial" beside `path`: hidden, on the same file system, and no other process's.
std::string sibling(const fs::path& path, std::string_view suffix) {
  return path.parent_path() /
         fmt::format(".{}.{}.{}", path.filename().string(), ::getpid(), suffix);
}

tl::unexpected<Error> failed(std::string_view path, std::string_view what, int error) {
  return run_failed(fmt::format("{}: {}: {}", path, what, std::strerror(error)));
}

bool is_file_of_a_model(const fs::directory_entry& entry) {
  constexpr std::array<std::string_view, 5> kNames = {"config.json", "generation_config.json",
                                                      "tokenizer.json", "tokenizer_config.json",
                                                      "model.safetensors.index.json"};
  const std::string name = entry.path().filename().string();
  std::error_code error;
  return entry.is_regular_file(error) &&
         (std::ranges::find(kNames, name) != kNames.end() || name.ends_with(".safetensors"));
}

// Is there a folder at `path` that may be replaced, or nothing?
Status check_replaceable(const fs::path& path, StagedFolder::Existing existing) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) return {};
  if (status.type() != fs::file_type::directory) {
    return invalid_input(fmt::format("{}: is there and is not a folder", path.string()));
  }
  fs::directory_iterator entry(path, error);
  if (error) {
    return invalid_input(fmt::format("{}: cannot be read: {}", path.string(), error.message()));
  }
  for (; entry != fs::directory_iterator(); entry.increment(error)) {
    if (error) break;
    if (existing == StagedFolder::Existing::refuse) {
      return invalid_input(
          fmt::format("{}: found a folder that is not empty, allowed: an empty or "
                      "a new one (or say that it may be replaced)",
                      path.string()));
    }
    if (!is_file_of_a_model(*entry)) {
      return invalid_input(
          fmt::format("{}: is not replaced, because it holds {}, which is no file "
                      "of a model",
                      path.string(), entry->path().filename().string()));
    }
  }
  if (error) {
    return invalid_input(fmt::format("{}: cannot be read: {}", path.string(), error.message()));
  }
  return {};
}

}  // namespace

Result<StagedFile> StagedFile::create(const std::string& path) {
  std::string staged = sibling(path, "partial");
  const int descriptor = ::open(staged.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) return failed(path, "cannot be created", errno);
  return StagedFile(descriptor, path, std::move(staged));
}

StagedFile::StagedFile(StagedFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      staged_path_(std::exchange(other.staged_path_, {})) {}

StagedFile::~StagedFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!staged_path_.empty()) ::unlink(staged_path_.c_str());
}

Status StagedFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed(path_, "cannot be written", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Status StagedFile::commit() {
  CHECK(descriptor_ >= 0, "a staged file is committed once");
  // Without the flush, a crash soon after the rename could leave a file of zeros at `path_`.
  const bool flushed = ::fsync(descriptor_) == 0;
  const int flush_error = errno;
  const bool closed = ::close(std::exchange(descriptor_, -1)) == 0;
  if (!flushed) return failed(path_, "cannot be written", flush_error);
  if (!closed) return failed(path_, "cannot be written", errno);
  if (std::rename(staged_path_.c_str(), path_.c_str()) != 0) {
    return failed(path_, "cannot be put in place", errno);
  }
  staged_path_.clear();
  return {};
}

Status write_text_file(const std::string& path, std::string_view text) {
  auto file = StagedFile::create(path);
  if (!file) return tl::unexpected(file.error());
  if (auto written = file->write(text); !written) return written;
  return file->commit();
}

Result<StagedFolder> StagedFolder::create(const std::string& folder, Existing existing) {
  std::error_code error;
  fs::path path = fs::absolute(folder, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "models/tiny/"
  // A link is followed, so that the folder behind it is replaced and not the link.
  if (fs::is_symlink(path, error)) path = fs::weakly_canonical(path, error);
  if (folder.empty() || !path.has_filename()) {
    return invalid_input(fmt::format("\"{}\": is not the name of a folder", folder));
  }
  if (!fs::is_directory(path.parent_path(), error)) {
    return invalid_input(
        fmt::format("{}: the folder {} does not exist", folder, path.parent_path().string()));
  }
  if (auto free = check_replaceable(path, existing); !free) return tl::unexpected(free.error());
  std::string staged = sibling(path, "partial");
  fs::remove_all(staged, error);
  if (!fs::create_directory(staged, error)) {
    return run_failed(fmt::format("{}: cannot be created: {}", folder, error.message()));
  }
  return StagedFolder(path.string(), std::move(staged));
}

StagedFolder::StagedFolder(StagedFolder&& other) noexcept
    : path_(std::move(other.path_)), staged_path_(std::exchange(other.staged_path_, {})) {}

StagedFolder::~StagedFolder() {
  std::error_code ignored;
  if (!staged_path_.empty()) fs::remove_all(staged_path_, ignored);
}

Status StagedFolder::commit() {
  CHECK(!staged_path_.empty(), "a staged folder is committed once");
  // The old folder steps aside first: a folder can be renamed only onto an empty one.
  const std::string replaced = sibling(path_, "replaced");
  const bool had_old = std::rename(path_.c_str(), replaced.c_str()) == 0;
  if (!had_old && errno != ENOENT) return failed(path_, "cannot be replaced", errno);
  if (std::rename(staged_path_.c_str(), path_.c_str()) != 0) {
    const int reason = errno;
    if (had_old) std::rename(replaced.c_str(), path_.c_str());
    return failed(path_, "cannot be put in place", reason);
  }
  staged_path_.clear();
  std::error_code ignored;
  if (had_old) fs::remove_all(replaced, ignored);
  return {};
}

}  // namespace weir
