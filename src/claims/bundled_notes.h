#pragma once
// The files of data/claims/, built into the program. The definition is written by
// cmake/embed_files.cmake.

#include <span>
#include <string_view>

namespace weir {

struct BundledNote {
  std::string_view name;  // Without folder and ".json".
  std::string_view text;
};

[[nodiscard]] std::span<const BundledNote> bundled_notes();

}  // namespace weir
