#include "checkpoint/safetensors_writer.h"

#include <csignal>
#include <cstring>
#include <numeric>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "checkpoint/safetensors.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

// 0, 1, 2, ... in a tensor of this many elements.
TensorSource counting(std::string name, DType dtype, std::int64_t elements) {
  return {.name = std::move(name),
          .dtype = dtype,
          .shape = {elements},
          .fill = [next = 0.0F](std::span<float> out) mutable {
            for (float& value : out) value = next++;
          }};
}

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const TestFolder folder;
  // More elements than one chunk, an odd number of 2-byte elements before 4-byte ones, and a name
  // that needs escaping.
  const std::vector<TensorSource> tensors = {counting("half", DType::f16, 3),
                                             counting("long", DType::f32, 100'000),
                                             counting("br\"ain\n", DType::bf16, 5)};
  std::int64_t reported = 0;
  ASSERT_TRUE(write_safetensors(folder.file("m"), tensors,
                                [&](Bytes written) { reported = written.value; }));
  EXPECT_EQ(reported, 400'016);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"m"});

  const auto file = SafetensorsFile::open(folder.file("m"));
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_EQ(file->entries().size(), 3U);
  const SafetensorsEntry& wide = file->entries()[0];
  EXPECT_EQ(wide.name, "long");
  EXPECT_EQ(wide.begin % 8, 0);
  float last = 0;
  std::memcpy(&last, file->data(wide) + 4 * 99'999, sizeof(last));
  EXPECT_EQ(last, 99'999);
  EXPECT_EQ(file->entries()[1].name, "half");
  const SafetensorsEntry& brain = file->entries()[2];
  EXPECT_EQ(brain.name, "br\"ain\n");
  std::uint16_t bits = 0;
  std::memcpy(&bits, file->data(brain) + 2 * 4, sizeof(bits));
  EXPECT_EQ(bf16_to_f32(bits), 4);
}

TEST(SafetensorsWriter, ReplacesAFileOnlyWhenTheNewOneIsComplete) {
  const TestFolder folder;
  ASSERT_TRUE(write_safetensors(folder.file("m"), std::vector{counting("a", DType::f32, 1)}));
  TensorSource spying = counting("b", DType::f32, 2);
  spying.fill = [&](std::span<float>) {
    EXPECT_EQ(SafetensorsFile::open(folder.file("m"))->entries()[0].name, "a");
  };
  ASSERT_TRUE(write_safetensors(folder.file("m"), std::vector{spying}));
  EXPECT_EQ(SafetensorsFile::open(folder.file("m"))->entries()[0].name, "b");
}

// Lets files grow to `bytes` only, as a full disk would, until the end of the scope.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &old_limit_);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = old_limit_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_limit_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  void (*old_handler_)(int);
  rlimit old_limit_{};
};

TEST(SafetensorsWriter, LeavesNothingWhenTheDiskIsFull) {
  const TestFolder folder;
  Status status;
  {
    const FileSizeLimit limit(100'000);
    status = write_safetensors(folder.file("m"), std::vector{counting("a", DType::f32, 100'000)});
  }
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::run_failed);
  EXPECT_EQ(status.error().message, folder.file("m") + ": cannot be written: File too large");
  EXPECT_EQ(folder.names(), std::vector<std::string>{});
}

TEST(SafetensorsWriter, NamesAFolderThatIsNotThere) {
  const auto status =
      write_safetensors("/nonexistent/m", std::vector{counting("a", DType::f32, 1)});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "/nonexistent/m: cannot be created: No such file or directory");
}

}  // namespace
}  // namespace weir
