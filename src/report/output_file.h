#pragma once
// A file that is either complete or not there, also where the process is killed meanwhile: written
// without a name, which it gets once everything has been written. Where the file system knows no
// files without a name it is written under a temporary one beside its own, which a killed process
// leaves behind. Whoever reads the old content meanwhile keeps it.

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace weir {

class OutputFile {
 public:
  // Fails when no file can be created in that folder.
  [[nodiscard]] static Result<OutputFile> create(const std::string& path);

  OutputFile(OutputFile&&) noexcept = default;
  OutputFile& operator=(OutputFile&&) = delete;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();  // Without a commit nothing is left.

  [[nodiscard]] Status write(std::string_view text);
  // Call last, once.
  [[nodiscard]] Status commit();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, Close>;

  OutputFile(std::string path, File file, bool is_named);
  [[nodiscard]] bool name_it() const;

  std::string path_;
  std::string temporary_;  // The name in between.
  File file_;              // Null once committed or moved from.
  bool is_named_;          // From the beginning.
};

}  // namespace weir
