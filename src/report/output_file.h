#pragma once
// A file that is either complete or not there: written under a temporary name beside its own, and
// renamed once everything has been written. Whoever reads the old content meanwhile keeps it.

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace weir {

class OutputFile {
 public:
  // Fails when the temporary file cannot be created.
  [[nodiscard]] static Result<OutputFile> create(const std::string& path);

  OutputFile(OutputFile&&) noexcept = default;
  OutputFile& operator=(OutputFile&&) = delete;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();  // Without a commit the temporary file is removed.

  [[nodiscard]] Status write(std::string_view text);
  // Call last, once.
  [[nodiscard]] Status commit();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, Close>;

  OutputFile(std::string path, std::string temporary, File file)
      : path_(std::move(path)), temporary_(std::move(temporary)), file_(std::move(file)) {}

  std::string path_;
  std::string temporary_;
  File file_;  // Null once committed or moved from.
};

}  // namespace weir
