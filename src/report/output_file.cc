#include "report/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"

namespace weir {
namespace {

tl::unexpected<Error> failed(const std::string& path, std::string_view what) {
  return run_failed(fmt::format("{}: {}: {}", path, what, std::generic_category().message(errno)));
}

// What a descriptor can be given a name by.
constexpr const char* kDescriptors = "/proc/self/fd";

// Null where the file system or this process cannot do that.
std::FILE* open_nameless(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path() / ".";
  if (access(kDescriptors, X_OK) != 0) return nullptr;
  constexpr mode_t kLikeFopen = 0666;  // Less the process's mask.
  const int descriptor = open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, kLikeFopen);
  return descriptor < 0 ? nullptr : fdopen(descriptor, "wb");
}

}  // namespace

OutputFile::OutputFile(std::string path, File file, bool is_named)
    : path_(std::move(path)),
      temporary_(fmt::format("{}.{}.tmp", path_, ::getpid())),
      file_(std::move(file)),
      is_named_(is_named) {}

Result<OutputFile> OutputFile::create(const std::string& path) {
  File nameless(open_nameless(path));
  if (nameless) return OutputFile(path, std::move(nameless), false);
  OutputFile named(path, nullptr, true);
  named.file_.reset(std::fopen(named.temporary_.c_str(), "wb"));
  if (!named.file_) return failed(path, "cannot be written");
  return named;
}

OutputFile::~OutputFile() {
  if (!file_) return;
  file_.reset();
  if (is_named_) std::remove(temporary_.c_str());
}

Status OutputFile::write(std::string_view text) {
  CHECK(file_ != nullptr, "written to after its commit");
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size())
    return failed(path_, "cannot be written");
  return {};
}

// A name that is taken cannot be given, so it is a temporary one in either case.
bool OutputFile::name_it() const {
  if (std::fflush(file_.get()) != 0) return false;
  if (is_named_) return true;
  std::remove(temporary_.c_str());  // Of a process of the same number that was killed.
  const std::string descriptor = fmt::format("{}/{}", kDescriptors, fileno(file_.get()));
  return linkat(AT_FDCWD, descriptor.c_str(), AT_FDCWD, temporary_.c_str(), AT_SYMLINK_FOLLOW) == 0;
}

Status OutputFile::commit() {
  CHECK(file_ != nullptr, "committed twice");
  const auto give_up = [this](std::string_view what) {
    const auto error = failed(path_, what);
    std::remove(temporary_.c_str());
    return error;
  };
  if (!name_it()) {
    const auto error = give_up("cannot be written");
    file_.reset();
    return error;
  }
  // Closing by hand, because a full disk may show only now.
  if (std::fclose(file_.release()) != 0) return give_up("cannot be written");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return give_up("cannot be put in place");
  return {};
}

}  // namespace weir
