#include "tests/house/rules.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <optional>
#include <regex>
#include <system_error>

#include <fmt/format.h>

namespace weir::house {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 6> kFolders = {"src",   "tests", "bench",
                                                      "cmake", "docs",  "examples"};
constexpr std::array<std::string_view, 4> kNotByHand = {"golden", "goldens", "corpus", "data"};
constexpr std::array<std::string_view, 9> kEndings = {".cc", ".h",  ".cu", ".cuh", ".cmake",
                                                      ".md", ".py", ".sh", ".txt"};
constexpr std::array<std::string_view, 7> kVagueWords = {"util",   "utils", "helper", "helpers",
                                                         "common", "misc",  "manager"};

template <class Range>
bool contains(const Range& range, std::string_view value) {
  return std::ranges::find(range, value) != std::ranges::end(range);
}

std::string ending(std::string_view path) { return fs::path(path).extension().string(); }

bool is_header(std::string_view path) { return ending(path) == ".h" || ending(path) == ".cuh"; }
bool is_unit(std::string_view path) { return ending(path) == ".cc" || ending(path) == ".cu"; }
bool is_source(std::string_view path) { return is_header(path) || is_unit(path); }
bool is_cmake_list(std::string_view path) { return fs::path(path).filename() == "CMakeLists.txt"; }

TextFile read_file(const fs::path& root, const fs::path& path) {
  TextFile file{.path = path.lexically_relative(root).generic_string(), .lines = {}};
  std::ifstream stream(path, std::ios::binary);
  for (std::string line; std::getline(stream, line);) {
    file.ends_with_newline = !stream.eof();
    file.lines.push_back(std::move(line));
  }
  return file;
}

std::vector<std::string> split(std::string_view text, std::string_view separators) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of(separators), text.size());
    if (end > 0) parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

std::string_view without_blanks(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// "plan" for "src/plan/lower.cc"; nothing for files that are not in a folder of src/.
std::optional<std::string> folder_of_source(const TextFile& file) {
  const auto parts = split(file.path, "/");
  if (parts.size() < 3 || parts[0] != "src" || !is_source(file.path)) return std::nullopt;
  return parts[1];
}

// The word and the rest of a preprocessor directive: {"include", "\"base/result.h\""}.
struct Directive {
  std::string_view word;
  std::string_view rest;
};
std::optional<Directive> directive(std::string_view line) {
  line = without_blanks(line);
  if (!line.starts_with('#')) return std::nullopt;
  line = without_blanks(line.substr(1));
  const std::size_t end =
      std::min(line.find_first_not_of("abcdefghijklmnopqrstuvwxyz"), line.size());
  return Directive{.word = line.substr(0, end), .rest = without_blanks(line.substr(end))};
}

// What an #include "..." names; nothing for other lines and for <...>.
std::optional<std::string> quoted_include(std::string_view line) {
  const auto found = directive(line);
  if (!found || found->word != "include" || !found->rest.starts_with('"')) return std::nullopt;
  return std::string(found->rest.substr(1, found->rest.find('"', 1) - 1));
}

bool mentions(const TextFile& file, std::string_view text) {
  return std::ranges::any_of(
      file.lines, [&](std::string_view line) { return line.find(text) != std::string_view::npos; });
}

// Whether the condition in a line belongs to how Highway compiles a file once per target: it names
// one of Highway's macros; or it asks for the macro that the toggle in the line above asked for; or
// it is a guard around what such a file defines once for all targets.
bool is_per_target(const TextFile& file, std::size_t line, const Directive& condition) {
  if (condition.rest.find("HWY_") != std::string_view::npos) return true;
  if (condition.word == "ifdef" && line > 0) {
    const std::string_view above = file.lines[line - 1];
    return above.find("HWY_TARGET_TOGGLE") != std::string_view::npos &&
           above.find(condition.rest) != std::string_view::npos;
  }
  return condition.word == "ifndef" && line + 1 < file.lines.size() &&
         file.lines[line + 1] == fmt::format("#define {}", condition.rest) &&
         mentions(file, "<hwy/foreach_target.h>");
}

std::string at(const TextFile& file, std::size_t line_index) {
  return fmt::format("{}:{}", file.path, line_index + 1);
}

Result<FolderRow> read_row(std::string_view line, const std::vector<FolderRow>& above) {
  const auto cells = split(line, "|");
  if (cells.size() != 3) {
    return invalid_input(
        fmt::format("found {} columns, allowed 3: folder, holds, may include", cells.size()));
  }
  FolderRow row;
  row.folder = split(split(cells[0], " `").front(), "/").back();
  const auto is_above = [&](std::string_view folder) {
    return std::ranges::find(above, folder, &FolderRow::folder) != above.end();
  };
  if (is_above(row.folder))
    return invalid_input(fmt::format("src/{}: found a second row", row.folder));
  for (const std::string& word : split(cells[2], " `,")) {
    if (word == "nothing") continue;
    if (word == "all") {
      for (const FolderRow& other : above) row.may_include.insert(other.folder);
    } else if (is_above(word)) {
      row.may_include.insert(word);
    } else {
      return invalid_input(
          fmt::format("src/{}: found \"{}\", allowed the folders of the rows above it, \"all\" or "
                      "\"nothing\"",
                      row.folder, word));
    }
  }
  return row;
}

// Whether a CMakeLists.txt names `path`, given relative to its folder.
bool lists(const TextFile& cmake_list, const std::string& path) {
  return std::ranges::any_of(cmake_list.lines, [&](std::string_view line) {
    const auto words = split(line.substr(0, line.find('#')), " \t()\"");
    return std::ranges::any_of(
        words, [&](const std::string& word) { return word == path || word.ends_with("/" + path); });
  });
}

}  // namespace

std::vector<TextFile> read_tree(const fs::path& root) {
  std::vector<TextFile> files;
  const auto add = [&](const fs::path& path) {
    if (contains(kEndings, path.extension().string()) || path.filename() == "dev") {
      files.push_back(read_file(root, path));
    }
  };
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.is_regular_file()) add(entry.path());
  }
  for (const std::string_view folder : kFolders) {
    std::error_code absent;
    for (auto it = fs::recursive_directory_iterator(root / folder, absent);
         it != fs::recursive_directory_iterator(); ++it) {
      if (it->is_directory() && contains(kNotByHand, it->path().filename().string()))
        it.disable_recursion_pending();
      if (it->is_regular_file()) add(it->path());
    }
  }
  std::ranges::sort(files, {}, &TextFile::path);
  return files;
}

Result<std::vector<FolderRow>> read_include_table(const TextFile& architecture) {
  std::vector<FolderRow> table;
  for (std::size_t i = 0; i < architecture.lines.size(); ++i) {
    if (!architecture.lines[i].starts_with("| `src/")) continue;
    auto row = read_row(architecture.lines[i], table);
    if (!row) return invalid_input(fmt::format("{}: {}", at(architecture, i), row.error().message));
    table.push_back(*std::move(row));
  }
  if (table.empty()) {
    return invalid_input(fmt::format(
        "{}: found no table of folders, allowed rows such as \"| `src/base` | results | "
        "nothing |\"",
        architecture.path));
  }
  return table;
}

Problems forbidden_includes(const std::vector<TextFile>& files,
                            const std::vector<FolderRow>& table) {
  Problems problems;
  for (const TextFile& file : files) {
    const auto folder = folder_of_source(file);
    if (!folder) continue;
    const auto row = std::ranges::find(table, *folder, &FolderRow::folder);
    if (row == table.end()) {
      problems.push_back(
          fmt::format("{}: src/{} has no row in the table of ARCHITECTURE.md", file.path, *folder));
      continue;
    }
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      const auto included = quoted_include(file.lines[i]);
      if (!included) continue;
      const std::string target = included->substr(0, included->find('/'));
      if (target == *folder && included->size() > target.size()) continue;
      if (row->may_include.contains(target)) continue;
      problems.push_back(fmt::format(
          "{}: found #include \"{}\", allowed in src/{}: itself and {} (ARCHITECTURE.md)",
          at(file, i), *included, *folder,
          row->may_include.empty() ? "nothing else"
                                   : fmt::format("{}", fmt::join(row->may_include, " "))));
    }
  }
  return problems;
}

Problems conditional_compilation(const std::vector<TextFile>& files) {
  constexpr std::array<std::string_view, 6> kConditions = {"if",   "ifdef",   "ifndef",
                                                           "elif", "elifdef", "elifndef"};
  Problems problems;
  for (const TextFile& file : files) {
    if (!folder_of_source(file)) continue;
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      const auto found = directive(file.lines[i]);
      if (!found || !contains(kConditions, found->word)) continue;
      if (is_per_target(file, i, *found)) continue;
      problems.push_back(fmt::format(
          "{}: found #{} {}, allowed no conditional compilation: an absent backend is a "
          "no_*.cc file with the same symbols",
          at(file, i), found->word, found->rest));
    }
  }
  return problems;
}

Problems long_files(const std::vector<TextFile>& files) {
  Problems problems;
  for (const TextFile& file : files) {
    if (is_source(file.path) && file.lines.size() > kMaxFileLines) {
      problems.push_back(fmt::format(
          "{}: found {} lines, allowed {}: there is a second idea in it that wants its own "
          "file",
          file.path, file.lines.size(), kMaxFileLines));
    }
  }
  return problems;
}

Problems unlisted_sources(const std::vector<TextFile>& files) {
  const auto listed_above = [&](const fs::path& path) {
    for (fs::path folder = path.parent_path();; folder = folder.parent_path()) {
      const std::string list = (folder / "CMakeLists.txt").generic_string();
      const auto found = std::ranges::find(files, list, &TextFile::path);
      if (found != files.end() && lists(*found, path.lexically_relative(folder).generic_string()))
        return true;
      if (folder.empty()) return false;
    }
  };
  Problems problems;
  for (const TextFile& file : files) {
    const fs::path path = file.path;
    if (is_unit(file.path) && !listed_above(path)) {
      problems.push_back(
          fmt::format("{}: not named in any CMakeLists.txt of its folder or above", file.path));
    }
    if (is_cmake_list(file.path) && path.has_parent_path() && !listed_above(path.parent_path())) {
      problems.push_back(
          fmt::format("{}: its folder is not named in any CMakeLists.txt above", file.path));
    }
  }
  return problems;
}

Problems vague_names(const std::vector<TextFile>& files) {
  Problems problems;
  for (const TextFile& file : files) {
    const std::string stem = fs::path(file.path).replace_extension().generic_string();
    for (const std::string& word : split(stem, "/_-.")) {
      if (contains(kVagueWords, word)) {
        problems.push_back(fmt::format(
            "{}: found \"{}\" in the name, allowed a name that says what the file holds", file.path,
            word));
      }
    }
  }
  return problems;
}

Problems headers_without_opening(const std::vector<TextFile>& files) {
  const auto starts_with = [](const TextFile& file, std::size_t line, std::string_view text) {
    return line < file.lines.size() && file.lines[line].starts_with(text);
  };
  Problems problems;
  for (const TextFile& file : files) {
    if (!is_header(file.path)) continue;
    const bool per_target = mentions(file, "HWY_TARGET_TOGGLE");
    if (!per_target && (file.lines.empty() || file.lines[0] != "#pragma once")) {
      problems.push_back(
          fmt::format("{}:1: allowed as first line of a header: #pragma once", file.path));
    } else if (!starts_with(file, per_target ? 0 : 1, "// ")) {
      problems.push_back(
          fmt::format("{}:{}: a header opens with a comment that says what it is for", file.path,
                      per_target ? 1 : 2));
    }
  }
  return problems;
}

Problems types_of_one_name(const std::vector<TextFile>& files) {
  static const std::regex kNamespace(R"(^namespace ([\w:]+) \{)");
  static const std::regex kType(
      R"(^(?:class|struct|enum class|union) (\w+)(?: final)?(?: :.*)? \{)");
  std::map<std::string, std::string> seen;  // Where each qualified name is defined.
  Problems problems;
  for (const TextFile& file : files) {
    if (!is_header(file.path) || mentions(file, "HWY_TARGET_TOGGLE")) continue;
    std::string space;
    std::smatch match;
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      if (std::regex_search(file.lines[i], match, kNamespace)) space = match[1];
      if (!std::regex_search(file.lines[i], match, kType)) continue;
      const std::string name = fmt::format("{}::{}", space, match[1].str());
      const auto [first, is_new] = seen.emplace(name, at(file, i));
      if (!is_new) {
        problems.push_back(fmt::format("{}: found another {}, allowed the one at {}", at(file, i),
                                       name, first->second));
      }
    }
  }
  return problems;
}

Problems untidy_lines(const std::vector<TextFile>& files) {
  // Spelled so that this file passes its own rule.
  static const std::array<std::string, 2> kNotes = {std::string("TO") + "DO",
                                                    std::string("FIX") + "ME"};
  Problems problems;
  for (const TextFile& file : files) {
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      if (line.ends_with(' ') || line.ends_with('\r'))
        problems.push_back(at(file, i) + ": found trailing blanks");
      if (line.find('\t') != std::string::npos) problems.push_back(at(file, i) + ": found a tab");
      for (const std::string_view note : kNotes) {
        if (line.find(note) != std::string::npos) {
          problems.push_back(fmt::format("{}: found {}, allowed finished work", at(file, i), note));
        }
      }
    }
    if (!file.ends_with_newline) problems.push_back(file.path + ": found no newline at the end");
  }
  return problems;
}

}  // namespace weir::house
