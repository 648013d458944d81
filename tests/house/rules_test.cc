// Each rule of the house finds the violation that is planted in a small tree, and nothing else.

#include "tests/house/rules.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace weir::house {
namespace {

// A folder of files that lasts as long as the test.
class HouseRules : public testing::Test {
 protected:
  HouseRules() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    root_ = std::filesystem::path(testing::TempDir()) / (std::string("weir_house_") + test->name());
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }
  ~HouseRules() override { std::filesystem::remove_all(root_); }
  HouseRules(const HouseRules&) = delete;
  HouseRules& operator=(const HouseRules&) = delete;

  void plant(const std::string& path, std::string_view text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::binary) << text;
  }
  [[nodiscard]] std::vector<TextFile> tree() const { return read_tree(root_); }

  std::filesystem::path root_;
};

TextFile document(std::vector<std::string> lines) {
  return {.path = "ARCHITECTURE.md", .lines = std::move(lines)};
}

const std::vector<FolderRow> kTable = {
    {.folder = "base", .may_include = {}},
    {.folder = "plan", .may_include = {"base"}},
    {.folder = "sim", .may_include = {"base", "plan"}},
};

TEST_F(HouseRules, TheTreeHoldsWhatPeopleWriteAndNothingElse) {
  plant("README.md", "text\n");
  plant("src/base/check.cc", "int x;\n");
  plant("tests/plan/golden/plan.txt", "made\tby a test\n");
  plant("tests/fuzz/corpus/json/seed.txt", "\t");
  plant("build/CMakeLists.txt", "made by cmake\n");
  plant("src/base/picture.png", "bits");
  std::vector<std::string> paths;
  for (const TextFile& file : tree()) paths.push_back(file.path);
  EXPECT_EQ(paths, (std::vector<std::string>{"README.md", "src/base/check.cc"}));
}

TEST_F(HouseRules, TheTableSaysWhoMayIncludeWhom) {
  const auto table = read_include_table(document({
      "| folder | holds | may include |",
      "|---|---|---|",
      "| `src/base` | checks, results | nothing |",
      "| `src/plan` | the plan | base |",
      "| `src/app` | commands | all |",
  }));
  ASSERT_TRUE(table) << table.error().message;
  ASSERT_EQ(table->size(), 3U);
  EXPECT_EQ((*table)[0].folder, "base");
  EXPECT_TRUE((*table)[0].may_include.empty());
  EXPECT_TRUE((*table)[1].may_include.contains("base"));
  EXPECT_EQ((*table)[2].may_include.size(), 2U);
}

TEST_F(HouseRules, ATableWithAnArrowUpwardsIsRefused) {
  const auto table =
      read_include_table(document({"| `src/base` | a | plan |", "| `src/plan` | b | base |"}));
  ASSERT_FALSE(table);
  EXPECT_EQ(table.error().message,
            "ARCHITECTURE.md:1: src/base: found \"plan\", allowed the folders of the rows above "
            "it, \"all\" or \"nothing\"");
}

TEST_F(HouseRules, ATableWithAMissingColumnOrASecondRowIsRefused) {
  const auto narrow = read_include_table(document({"| `src/base` | nothing |"}));
  ASSERT_FALSE(narrow);
  EXPECT_EQ(narrow.error().message,
            "ARCHITECTURE.md:1: found 2 columns, allowed 3: folder, holds, may include");
  const auto twice = read_include_table(
      document({"| `src/base` | a | nothing |", "| `src/base` | a | nothing |"}));
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message, "ARCHITECTURE.md:2: src/base: found a second row");
}

TEST_F(HouseRules, ADocumentWithoutATableIsRefused) {
  EXPECT_FALSE(read_include_table(document({"# Architecture", "No table here."})));
}

TEST_F(HouseRules, AForbiddenIncludeIsFound) {
  plant("src/plan/plan.cc",
        "#include \"plan/plan.h\"\n#include \"base/result.h\"\n#include <vector>\n");
  plant("src/plan/lower.cc", "#include \"plan/lower.h\"\n\n  #  include  \"sim/simulate.h\"\n");
  EXPECT_EQ(forbidden_includes(tree(), kTable),
            Problems{"src/plan/lower.cc:3: found #include \"sim/simulate.h\", allowed in src/plan: "
                     "itself and base "
                     "(ARCHITECTURE.md)"});
}

TEST_F(HouseRules, AnIncludeThatIsNotFromTheIncludeRootIsFound) {
  plant("src/plan/plan.cc",
        "#include \"plan.h\"\n#include \"../base/result.h\"\n#include \"plan\"\n");
  EXPECT_EQ(forbidden_includes(tree(), kTable).size(), 3U);
}

TEST_F(HouseRules, TestsMayIncludeEverything) {
  plant("tests/base/check_test.cc", "#include \"sim/simulate.h\"\n");
  EXPECT_TRUE(forbidden_includes(tree(), kTable).empty());
}

TEST_F(HouseRules, AFolderThatIsNotInTheTableIsFound) {
  plant("src/extra/extra.cc", "int x;\n");
  EXPECT_EQ(forbidden_includes(tree(), kTable),
            Problems{"src/extra/extra.cc: src/extra has no row in the table of ARCHITECTURE.md"});
}

TEST_F(HouseRules, ConditionalCompilationIsFound) {
  plant("src/comm/comm.cc",
        "int a;\n#ifdef WITH_MPI\nint b;\n#else\nint c;\n#endif\n# if 0\n#endif\n");
  plant("src/kernel/simd.cc",
        "#if HWY_ONCE\n#endif\n#if defined(X_H) == defined(HWY_TARGET_TOGGLE)\n#endif\n");
  plant("tests/comm/comm_test.cc", "#ifdef __linux__\n#endif\n");
  const Problems problems = conditional_compilation(tree());
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_TRUE(problems[0].starts_with("src/comm/comm.cc:2: found #ifdef WITH_MPI, "))
      << problems[0];
  EXPECT_TRUE(problems[1].starts_with("src/comm/comm.cc:7: found #if 0, ")) << problems[1];
}

TEST_F(HouseRules, SectionsPerTargetAreNoConditionalCompilation) {
  plant("src/kernel/tile-inl.h",
        "// Tiles.\n#if defined(TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)\n#ifdef "
        "TILE_INL_H_\n#undef "
        "TILE_INL_H_\n#else\n#define TILE_INL_H_\n#endif\n#endif\n");
  plant("src/kernel/linear.cc",
        "#include <hwy/foreach_target.h>\n#ifndef LINEAR_ONCE\n#define LINEAR_ONCE\n#endif\n");
  EXPECT_EQ(conditional_compilation(tree()), Problems{});
  plant("src/kernel/toggle.h",
        "#if defined(A) == defined(HWY_TARGET_TOGGLE)\n#ifdef OTHER\n#endif\n#endif\n");
  plant("src/kernel/plain.cc", "#ifndef PLAIN_ONCE\n#define PLAIN_ONCE\n#endif\n");
  EXPECT_EQ(conditional_compilation(tree()).size(), 2U);
}

TEST_F(HouseRules, AFileOf601LinesIsFound) {
  std::string lines;
  for (int i = 0; i < 600; ++i) lines += "int x;\n";
  plant("src/base/fits.cc", lines);
  plant("tests/base/long_test.cc", lines + "int y;\n");
  const Problems problems = long_files(tree());
  ASSERT_EQ(problems.size(), 1U);
  EXPECT_TRUE(problems[0].starts_with("tests/base/long_test.cc: found 601 lines, allowed 600"))
      << problems[0];
}

TEST_F(HouseRules, ASourceThatNobodyCompilesIsFound) {
  plant("CMakeLists.txt", "add_subdirectory(src)\n");
  plant("src/CMakeLists.txt", "add_subdirectory(base)\n");
  plant("src/base/CMakeLists.txt",
        "weir_library(base\n  SOURCES check.cc cpu/simd.cc  # once also dead.cc\n)\n");
  plant("src/base/check.cc", "int a;\n");
  plant("src/base/cpu/simd.cc", "int b;\n");
  plant("src/base/dead.cc", "int c;\n");
  EXPECT_EQ(unlisted_sources(tree()),
            Problems{"src/base/dead.cc: not named in any CMakeLists.txt of its folder or above"});
}

TEST_F(HouseRules, AFolderThatNobodyAddsIsFound) {
  plant("CMakeLists.txt", "add_subdirectory(src)\n");
  plant("src/CMakeLists.txt", "add_subdirectory(base)\n");
  plant("src/plan/CMakeLists.txt", "weir_library(plan SOURCES plan.cc)\n");
  plant("src/plan/plan.cc", "int a;\n");
  EXPECT_EQ(
      unlisted_sources(tree()),
      Problems{"src/plan/CMakeLists.txt: its folder is not named in any CMakeLists.txt above"});
}

TEST_F(HouseRules, VagueNamesAreFound) {
  plant("src/plan/plan_utils.h", "");
  plant("src/helpers/x.cc", "");
  plant("src/engine/manager.cc", "");
  plant("src/comm/communicator.cc", "");  // Only whole words count.
  EXPECT_EQ(vague_names(tree()).size(), 3U);
}

TEST_F(HouseRules, AHeaderWithoutItsOpeningIsFound) {
  plant("src/base/good.h", "#pragma once\n// What this is for.\n\nint x();\n");
  plant("src/base/guarded.h", "// What this is for.\n#ifndef GUARDED_H\n#endif\n");
  plant("src/base/silent.h", "#pragma once\n\n#include <vector>\n");
  plant("src/kernel/simd.h",
        "// What this is for.\n#if defined(SIMD_H) == defined(HWY_TARGET_TOGGLE)\n#endif\n");
  EXPECT_EQ(headers_without_opening(tree()),
            (Problems{
                "src/base/guarded.h:1: allowed as first line of a header: #pragma once",
                "src/base/silent.h:2: a header opens with a comment that says what it is for",
            }));
}

TEST_F(HouseRules, TwoTypesOfOneNameAreFound) {
  plant("src/base/folder.h", "namespace weir {\nclass Folder {\n};\n}\n");
  plant("src/kernel/folder.h", "namespace weir::kernel {\nstruct Folder : Other {\n};\n}\n");
  plant("tests/base/folder.h", "namespace weir {\nclass Folder;\nstruct Folder final {\n};\n}\n");
  plant("tests/base/folder_test.cc", "namespace weir {\nclass Folder {\n};\n}\n");
  EXPECT_EQ(types_of_one_name(tree()),
            Problems{"tests/base/folder.h:3: found another weir::Folder, allowed the one at "
                     "src/base/folder.h:2"});
}

TEST_F(HouseRules, UntidyLinesAreFound) {
  const std::string note = std::string("TO") + "DO";  // Spelled so that this file passes the rule.
  plant("src/base/a.cc", "int a; \nint\tb;\nint c;  // " + note + ": more\nint d;\r\n");
  plant("src/base/b.cc", "int a;\nint b;");
  plant("src/base/c.cc", "");
  EXPECT_EQ(untidy_lines(tree()), (Problems{
                                      "src/base/a.cc:1: found trailing blanks",
                                      "src/base/a.cc:2: found a tab",
                                      "src/base/a.cc:3: found " + note + ", allowed finished work",
                                      "src/base/a.cc:4: found trailing blanks",
                                      "src/base/b.cc: found no newline at the end",
                                  }));
}

}  // namespace
}  // namespace weir::house
