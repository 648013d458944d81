#include "base/temporary_folder.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace weir {

Result<TemporaryFolder> TemporaryFolder::make(const std::string& purpose) {
  std::error_code error;
  std::string name =
      (std::filesystem::temp_directory_path(error) / ("weir-" + purpose + "-XXXXXX")).string();
  if (error || mkdtemp(name.data()) == nullptr)
    return run_failed(purpose + ": no temporary folder can be made");
  return TemporaryFolder(std::move(name));
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace weir
