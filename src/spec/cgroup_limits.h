#pragma once
// What Linux control groups (v1 and v2) allow this process: a container's share of the machine.

#include <filesystem>
#include <optional>
#include <string_view>

#include "base/units.h"

namespace weir {

struct CgroupLimits {
  std::optional<double> cpus = {};  // CPU seconds per second.
  std::optional<Bytes> memory = {};

  bool operator==(const CgroupLimits&) const = default;
};

// The tightest limits of the group and its ancestors. `membership` is the text of
// /proc/self/cgroup, `root` where the controllers are mounted. What cannot be read limits nothing.
[[nodiscard]] CgroupLimits cgroup_limits(std::string_view membership,
                                         const std::filesystem::path& root);
// Of this process.
[[nodiscard]] CgroupLimits cgroup_limits();

}  // namespace weir
