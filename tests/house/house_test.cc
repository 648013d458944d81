// The rules of the house, applied to this repository. A failure lists every violation.

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/house/rules.h"

namespace weir::house {
namespace {

class House : public testing::Test {
 protected:
  static void SetUpTestSuite() { files_ = read_tree(WEIR_SOURCE_DIR); }

  static std::string listed(const Problems& problems) {
    return fmt::format("{} violations:\n{}", problems.size(), fmt::join(problems, "\n"));
  }

  inline static std::vector<TextFile> files_;
};

TEST_F(House, IsReadAsAWhole) {
  const auto has = [&](std::string_view path) {
    return std::ranges::find(files_, path, &TextFile::path) != files_.end();
  };
  EXPECT_TRUE(has("dev"));
  EXPECT_TRUE(has("CMakeLists.txt"));
  EXPECT_TRUE(has("src/base/result.h"));
  EXPECT_TRUE(has("tests/house/house_test.cc"));
  EXPECT_TRUE(has("cmake/weir.cmake"));
}

TEST_F(House, IncludesOnlyWhatTheTableInArchitectureAllows) {
  const auto architecture = std::ranges::find(files_, "ARCHITECTURE.md", &TextFile::path);
  ASSERT_NE(architecture, files_.end());
  const auto table = read_include_table(*architecture);
  ASSERT_TRUE(table) << table.error().message;
  const Problems problems = forbidden_includes(files_, *table);
  EXPECT_TRUE(problems.empty()) << listed(problems);
}

TEST_F(House, HasNoConditionalCompilation) {
  const Problems problems = conditional_compilation(files_);
  EXPECT_TRUE(problems.empty()) << listed(problems);
}

TEST_F(House, HasNoLongFiles) {
  const Problems problems = long_files(files_);
  EXPECT_TRUE(problems.empty()) << listed(problems);
}

TEST_F(House, CompilesEverySource) {
  const Problems problems = unlisted_sources(files_);
  EXPECT_TRUE(problems.empty()) << listed(problems);
}

TEST_F(House, HasNoVagueFileNames) {
  const Problems problems = vague_names(files_);
  EXPECT_TRUE(problems.empty()) << listed(problems);
}

TEST_F(House, OpensEveryHeaderWithItsPurpose) {
  const Problems problems = headers_without_opening(files_);
  EXPECT_TRUE(problems.empty()) << listed(problems);
}

TEST_F(House, GivesEveryTypeANameOfItsOwn) {
  const Problems problems = types_of_one_name(files_);
  EXPECT_TRUE(problems.empty()) << listed(problems);
}

TEST_F(House, IsTidy) {
  const Problems problems = untidy_lines(files_);
  EXPECT_TRUE(problems.empty()) << listed(problems);
}

}  // namespace
}  // namespace weir::house
