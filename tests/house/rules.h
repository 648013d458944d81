#pragma once
// The rules of the house that a machine can check: who may include whom, what files look like, what
// they are called. Each rule reads a tree of files and returns one line per violation, "path:line:
// what was found, what is allowed". house_test.cc applies them to this repository, rules_test.cc to
// small trees with a violation planted.

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace weir::house {

struct TextFile {
  std::string path;  // Relative to the root of the tree, with '/'.
  std::vector<std::string> lines;
  bool ends_with_newline = true;
};

// All files that people write: sources, CMake files, documents and scripts at the top level and
// below the folders that hold them. Golden files and fuzzing seeds are left out, as is everything
// that a build makes. Sorted by path.
[[nodiscard]] std::vector<TextFile> read_tree(const std::filesystem::path& root);

using Problems = std::vector<std::string>;

// One row of the table in ARCHITECTURE.md: a folder of src/ and the folders that it may include
// besides itself.
struct FolderRow {
  std::string folder;
  std::set<std::string, std::less<>> may_include;
};

// Reads the rows "| `src/plan` | what it holds | base spec layout |". The last column lists
// folders, or says "nothing", or "all", which means all rows above. Fails where there is no such
// row, a row has other than three columns, a folder comes twice, or a row allows a folder that is
// not above it: rows go from the ground up, so that no cycle can be written down.
[[nodiscard]] Result<std::vector<FolderRow>> read_include_table(const TextFile& architecture);

// Every #include "..." of a file in src/ names a file of its own folder or of one that the table
// allows, from src/ on; and every folder of src/ that has sources is in the table.
[[nodiscard]] Problems forbidden_includes(const std::vector<TextFile>& files,
                                          const std::vector<FolderRow>& table);

// src/ has no conditional compilation but for what Highway needs to compile a file once per target:
// conditions on its HWY_ macros, the toggle of a header that is included once per target, and
// guards around what is defined once for all targets.
[[nodiscard]] Problems conditional_compilation(const std::vector<TextFile>& files);

// Sources have at most kMaxFileLines lines.
inline constexpr std::size_t kMaxFileLines = 600;
[[nodiscard]] Problems long_files(const std::vector<TextFile>& files);

// Every .cc and .cu file is named in the CMakeLists.txt of its folder or of one above it, and every
// folder with a CMakeLists.txt in that of its parent: nothing lies about that is never compiled.
[[nodiscard]] Problems unlisted_sources(const std::vector<TextFile>& files);

// No file or folder is called utils, helpers, common, misc or manager, nor has such a word in its
// name.
[[nodiscard]] Problems vague_names(const std::vector<TextFile>& files);

// A header starts with #pragma once and then a comment that says what it is for. One that Highway
// includes once per target has Highway's toggle instead, and starts with the comment.
[[nodiscard]] Problems headers_without_opening(const std::vector<TextFile>& files);

// Within a namespace a name stands for one type, whichever header defines it: programs that two of
// one name come together in would take a member of one for that of the other. Headers that Highway
// includes once per target are left out.
[[nodiscard]] Problems types_of_one_name(const std::vector<TextFile>& files);

// No trailing blanks, no tabs, no notes about work left to do, a newline at the end.
[[nodiscard]] Problems untidy_lines(const std::vector<TextFile>& files);

}  // namespace weir::house
