#include "spec/cgroup_limits.h"

#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace weir {
namespace {

namespace fs = std::filesystem;

// A tree of limit files in place of /sys/fs/cgroup.
class ControlGroups : public testing::Test {
 protected:
  ~ControlGroups() override { fs::remove_all(root_); }
  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  const fs::path root_ =
      fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(ControlGroups, LimitNothingWhereNothingCanBeRead) {
  EXPECT_EQ(cgroup_limits("0::/a\n", root_), CgroupLimits{});
  EXPECT_EQ(cgroup_limits("", root_), CgroupLimits{});
  EXPECT_EQ(cgroup_limits("nonsense\n::\n:\n1:cpu\n", root_), CgroupLimits{});
}

TEST_F(ControlGroups, OfVersion2TakeTheTightestOfTheAncestors) {
  write("cpu.max", "max 100000\n");
  write("memory.max", "4000\n");
  write("a/cpu.max", "150000 100000\n");
  write("a/memory.max", "max\n");
  write("a/b/cpu.max", "400000 100000\n");
  write("a/b/memory.max", "9000\n");
  EXPECT_EQ(cgroup_limits("0::/a/b\n", root_), (CgroupLimits{.cpus = 1.5, .memory = Bytes{4000}}));
}

TEST_F(ControlGroups, OfVersion1AreFoundByController) {
  write("cpu/a/cpu.cfs_quota_us", "50000\n");
  write("cpu/a/cpu.cfs_period_us", "100000\n");
  write("cpu/cpu.cfs_quota_us", "-1\n");
  write("cpu/cpu.cfs_period_us", "100000\n");
  write("memory/m/memory.limit_in_bytes", "123456789\n");
  write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(cgroup_limits("5:cpu,cpuacct:/a\n4:memory:/m\n0::/\n", root_),
            (CgroupLimits{.cpus = 0.5, .memory = Bytes{123456789}}));
}

TEST_F(ControlGroups, AreNotFollowedOutOfTheMount) {
  write("inside/memory.max", "5000\n");
  write("memory.max", "6000\n");
  EXPECT_EQ(cgroup_limits("0::/../..\n", root_ / "inside"),
            (CgroupLimits{.cpus = {}, .memory = Bytes{5000}}));
}

}  // namespace
}  // namespace weir
