#pragma once
// A folder of its own under the system's folder for temporary files, removed with all that is in
// it.

#include <string>
#include <utility>

#include "base/result.h"

namespace weir {

class TemporaryFolder {
 public:
  // `purpose` is a part of its name and of the message where none can be made.
  [[nodiscard]] static Result<TemporaryFolder> make(const std::string& purpose);
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}

  std::string path_;
};

}  // namespace weir
