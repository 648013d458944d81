#include "checkpoint/staging.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

namespace fs = std::filesystem;
using enum StagedFolder::Existing;

void touch(const std::string& path) { std::ofstream(path) << "old"; }

TEST(Staging, AFolderAppearsWhenItIsCommitted) {
  const TestFolder folder;
  auto staged = StagedFolder::create(folder.file("model") + "/", refuse);
  ASSERT_TRUE(staged) << staged.error().message;
  ASSERT_TRUE(write_text_file(staged->path() + "/config.json", "{}"));
  EXPECT_FALSE(fs::exists(folder.file("model")));
  ASSERT_TRUE(staged->commit());
  EXPECT_TRUE(fs::exists(folder.file("model/config.json")));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"model"});
}

TEST(Staging, AFolderThatIsNotCommittedLeavesNothing) {
  const TestFolder folder;
  {
    const auto staged = StagedFolder::create(folder.file("model"), refuse);
    ASSERT_TRUE(staged);
    ASSERT_TRUE(write_text_file(staged->path() + "/config.json", "{}"));
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{});
}

TEST(Staging, AnEmptyFolderIsFilled) {
  const TestFolder folder;
  fs::create_directory(folder.file("model"));
  auto staged = StagedFolder::create(folder.file("model"), refuse);
  ASSERT_TRUE(staged);
  ASSERT_TRUE(write_text_file(staged->path() + "/config.json", "{}"));
  ASSERT_TRUE(staged->commit());
  EXPECT_TRUE(fs::exists(folder.file("model/config.json")));
}

TEST(Staging, AModelIsReplacedOnlyOnDemand) {
  const TestFolder folder;
  fs::create_directory(folder.file("model"));
  touch(folder.file("model/model-00001-of-00002.safetensors"));
  const auto refused = StagedFolder::create(folder.file("model"), refuse);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message,
            folder.file("model") +
                ": found a folder that is not empty, allowed: an empty or a new one (or say that "
                "it may be replaced)");

  auto staged = StagedFolder::create(folder.file("model"), replace_model);
  ASSERT_TRUE(staged);
  ASSERT_TRUE(write_text_file(staged->path() + "/config.json", "{}"));
  ASSERT_TRUE(staged->commit());
  EXPECT_EQ(folder.names(), std::vector<std::string>{"model"});
  EXPECT_FALSE(fs::exists(folder.file("model/model-00001-of-00002.safetensors")));
}

TEST(Staging, AFolderWithOtherFilesIsNeverReplaced) {
  const TestFolder folder;
  fs::create_directories(folder.file("home"));
  touch(folder.file("home/config.json"));
  touch(folder.file("home/thesis.tex"));
  const auto staged = StagedFolder::create(folder.file("home"), replace_model);
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().message,
            folder.file("home") +
                ": is not replaced, because it holds thesis.tex, which is no file of a model");
  EXPECT_TRUE(fs::exists(folder.file("home/thesis.tex")));
}

TEST(Staging, ALinkIsFollowed) {
  const TestFolder folder;
  fs::create_directory(folder.file("disk"));
  fs::create_directory_symlink(folder.file("disk"), folder.file("link"));
  auto staged = StagedFolder::create(folder.file("link"), refuse);
  ASSERT_TRUE(staged);
  ASSERT_TRUE(staged->commit());
  EXPECT_TRUE(fs::is_symlink(folder.file("link")));
  EXPECT_TRUE(fs::is_directory(folder.file("disk")));
}

TEST(Staging, RefusesPlacesWhereNoFolderCanBe) {
  const TestFolder folder;
  touch(folder.file("file"));
  EXPECT_EQ(StagedFolder::create(folder.file("file"), replace_model).error().message,
            folder.file("file") + ": is there and is not a folder");
  EXPECT_EQ(StagedFolder::create(folder.file("no/model"), refuse).error().message,
            folder.file("no/model") + ": the folder " + folder.file("no") + " does not exist");
  EXPECT_EQ(StagedFolder::create("", refuse).error().message, "\"\": is not the name of a folder");
  EXPECT_EQ(StagedFolder::create("/", refuse).error().message,
            "\"/\": is not the name of a folder");
}

}  // namespace
}  // namespace weir
