#pragma once
// The files of configs/, built into the program so that it finds them wherever it runs. The
// definition is written by cmake/embed_files.cmake.

#include <span>
#include <string_view>

namespace weir {

struct CatalogueFile {
  std::string_view name;  // Without folder and ".json".
  std::string_view text;
};

[[nodiscard]] std::span<const CatalogueFile> catalogue_files();  // In order of name.

}  // namespace weir
