#include "report/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "base/json.h"

namespace weir {
namespace {

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string path() const { return folder_ / "out.json"; }
  [[nodiscard]] std::ptrdiff_t files() const {
    return std::distance(std::filesystem::directory_iterator(folder_), {});
  }

  std::filesystem::path folder_;
};

void write(const std::string& path, std::string_view text) {
  Result<OutputFile> file = OutputFile::create(path);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->write(text));
  ASSERT_TRUE(file->commit());
}

TEST_F(OutputFileTest, AppearsCompleteUnderItsName) {
  write(path(), "first");
  write(path(), "second");
  EXPECT_EQ(read_text_file(path()).value(), "second");
  EXPECT_EQ(files(), 1);
}

TEST_F(OutputFileTest, LeavesTheOldFileWhenNotCommitted) {
  write(path(), "old");
  {
    Result<OutputFile> file = OutputFile::create(path());
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write("new"));
    EXPECT_EQ(read_text_file(path()).value(), "old");
  }
  EXPECT_EQ(read_text_file(path()).value(), "old");
  EXPECT_EQ(files(), 1);
}

// What a process that is killed leaves behind is what is there now.
TEST_F(OutputFileTest, LeavesNoPartOfItWhereItIsNotCommitted) {
  const int probe = open(folder_.c_str(), O_TMPFILE | O_WRONLY, 0600);
  if (probe < 0) GTEST_SKIP() << "this file system has no files without a name";
  close(probe);
  Result<OutputFile> file = OutputFile::create(path());
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write(std::string(1 << 20, 'x')));
  EXPECT_EQ(files(), 0);
  ASSERT_TRUE(file->commit());
  EXPECT_EQ(files(), 1);
  EXPECT_EQ(read_text_file(path()).value().size(), 1U << 20);
}

TEST_F(OutputFileTest, HasThePermissionsOfAnyNewFile) {
  write(path(), "x");
  const std::string other = folder_ / "other";
  std::fclose(std::fopen(other.c_str(), "wb"));
  EXPECT_EQ(std::filesystem::status(path()).permissions(),
            std::filesystem::status(other).permissions());
}

TEST_F(OutputFileTest, FailsWhereTheFolderIsMissing) {
  const Result<OutputFile> file = OutputFile::create("/nonexistent/out.json");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error(),
            (Error{.kind = ErrorKind::run_failed,
                   .message = "/nonexistent/out.json: cannot be written: No such file or "
                              "directory"}));
}

TEST_F(OutputFileTest, FailsWhereTheNameIsAFolder) {
  std::filesystem::create_directories(std::filesystem::path(path()) / "inside");
  Result<OutputFile> file = OutputFile::create(path());
  ASSERT_TRUE(file);
  const Status status = file->commit();
  ASSERT_FALSE(status);
  EXPECT_TRUE(status.error().message.starts_with(path() + ": cannot be put in place: "))
      << status.error().message;
  EXPECT_EQ(files(), 1);
}

}  // namespace
}  // namespace weir
