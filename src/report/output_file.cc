#include "report/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"

namespace weir {
namespace {

tl::unexpected<Error> failed(const std::string& path, std::string_view what) {
  return run_failed(fmt::format("{}: {}: {}", path, what, std::generic_category().message(errno)));
}

}  // namespace

Result<OutputFile> OutputFile::create(const std::string& path) {
  std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  File file(std::fopen(temporary.c_str(), "wb"));
  if (!file) return failed(path, "cannot be written");
  return OutputFile(path, std::move(temporary), std::move(file));
}

OutputFile::~OutputFile() {
  if (!file_) return;
  file_.reset();
  std::remove(temporary_.c_str());
}

Status OutputFile::write(std::string_view text) {
  CHECK(file_ != nullptr, "written to after its commit");
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size())
    return failed(path_, "cannot be written");
  return {};
}

Status OutputFile::commit() {
  CHECK(file_ != nullptr, "committed twice");
  // Closing by hand, because a full disk may show only now.
  if (std::fclose(file_.release()) != 0) {
    const auto error = failed(path_, "cannot be written");
    std::remove(temporary_.c_str());
    return error;
  }
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const auto error = failed(path_, "cannot be put in place");
    std::remove(temporary_.c_str());
    return error;
  }
  return {};
}

}  // namespace weir
