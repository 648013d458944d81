#include "spec/cgroup_limits.h"

#include <charconv>
#include <string>

#include "base/json.h"

namespace weir {
namespace {

namespace fs = std::filesystem;

// Limit files hold one or two short numbers.
constexpr std::size_t kMaxLimitBytes = 4096;
// cgroup v1 says "no limit" with the largest number of whole pages in 63 bits.
constexpr std::int64_t kUnlimited = std::int64_t{1} << 60;

// The next number in `text`, which it leaves; nullopt for "max" and for -1.
std::optional<std::int64_t> take_limit(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \n"), text.size()));
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

std::string contents(const fs::path& file) {
  return read_text_file(file.string(), kMaxLimitBytes).value_or(std::string());
}

std::optional<std::int64_t> limit_in(const fs::path& file) {
  const std::string text = contents(file);
  std::string_view rest = text;
  return take_limit(rest);
}

void tighten_cpus(CgroupLimits& limits, std::optional<std::int64_t> quota,
                  std::optional<std::int64_t> period) {
  if (!quota || !period || *quota == 0 || *period == 0) return;
  const double cpus = static_cast<double>(*quota) / static_cast<double>(*period);
  limits.cpus = std::min(limits.cpus.value_or(cpus), cpus);
}

void tighten_memory(CgroupLimits& limits, std::optional<std::int64_t> bytes) {
  if (!bytes || *bytes == 0 || *bytes >= kUnlimited) return;
  limits.memory = std::min(limits.memory.value_or(Bytes{*bytes}), Bytes{*bytes});
}

void tighten_v2(CgroupLimits& limits, const fs::path& group) {
  const std::string text = contents(group / "cpu.max");  // "QUOTA PERIOD" or "max PERIOD"
  std::string_view rest = text;
  const auto quota = take_limit(rest);
  tighten_cpus(limits, quota, quota ? take_limit(rest) : std::nullopt);
  tighten_memory(limits, limit_in(group / "memory.max"));
}

void tighten_v1(CgroupLimits& limits, const fs::path& group) {
  tighten_cpus(limits, limit_in(group / "cpu.cfs_quota_us"), limit_in(group / "cpu.cfs_period_us"));
  tighten_memory(limits, limit_in(group / "memory.limit_in_bytes"));
}

// Applies `tighten` to mount/path and every folder above it up to the mount. A container may see
// the path of its host, which does not exist below its own mount; missing files limit nothing.
template <class Tighten>
void for_group_and_ancestors(const fs::path& mount, std::string_view path, Tighten tighten) {
  fs::path group = fs::path(path).relative_path().lexically_normal();
  while (!group.empty() && *group.begin() != "..") {
    tighten(mount / group);
    group = group.parent_path();
  }
  tighten(mount);
}

bool names_controller(std::string_view controllers, std::string_view wanted) {
  while (!controllers.empty()) {
    const std::size_t comma = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, comma) == wanted) return true;
    controllers.remove_prefix(std::min(comma + 1, controllers.size()));
  }
  return false;
}

}  // namespace

CgroupLimits cgroup_limits(std::string_view membership, const fs::path& root) {
  CgroupLimits limits;
  while (!membership.empty()) {
    const std::size_t end = std::min(membership.find('\n'), membership.size());
    const std::string_view line = membership.substr(0, end);  // "4:memory:/path", v2: "0::/path"
    membership.remove_prefix(std::min(end + 1, membership.size()));
    const std::size_t first = line.find(':');
    if (first == std::string_view::npos) continue;
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view path = line.substr(second + 1);
    if (controllers.empty()) {
      for_group_and_ancestors(root, path, [&](const fs::path& g) { tighten_v2(limits, g); });
    }
    for (const char* controller : {"cpu", "memory"}) {
      if (!names_controller(controllers, controller)) continue;
      for_group_and_ancestors(root / controller, path,
                              [&](const fs::path& g) { tighten_v1(limits, g); });
    }
  }
  return limits;
}

CgroupLimits cgroup_limits() {
  return cgroup_limits(contents("/proc/self/cgroup"), "/sys/fs/cgroup");
}

}  // namespace weir
