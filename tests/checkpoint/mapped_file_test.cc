#include "checkpoint/mapped_file.h"

#include <fstream>
#include <utility>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

TEST(MappedFile, ShowsTheBytesAndKeepsThemWhenMoved) {
  const TestFolder folder;
  std::ofstream(folder.file("a")) << "weir";
  auto opened = MappedFile::open(folder.file("a"));
  ASSERT_TRUE(opened);
  const MappedFile moved = *std::move(opened);
  ASSERT_EQ(moved.bytes().size(), 4U);
  EXPECT_EQ(static_cast<char>(moved.bytes()[3]), 'r');
}

TEST(MappedFile, MapsAnEmptyFileToNoBytes) {
  const TestFolder folder;
  std::ofstream(folder.file("a")).flush();
  const auto opened = MappedFile::open(folder.file("a"));
  ASSERT_TRUE(opened);
  EXPECT_TRUE(opened->bytes().empty());
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const TestFolder folder;
  ASSERT_EQ(mkfifo(folder.file("pipe").c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::open(folder.file("no")).error().message,
            folder.file("no") + ": cannot be opened: No such file or directory");
  EXPECT_EQ(MappedFile::open(folder.path()).error().message,
            folder.path() + ": is not a regular file");
  EXPECT_EQ(MappedFile::open(folder.file("pipe")).error().message,
            folder.file("pipe") + ": is not a regular file");
}

}  // namespace
}  // namespace weir
