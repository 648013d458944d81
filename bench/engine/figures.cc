#include "bench/engine/figures.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <thread>

#include <fmt/format.h>

#include "base/check.h"
#include "kernel/amx.h"
#include "measure/calibrate.h"
#include "measure/ceilings.h"
#include "measure/device_teams.h"
#include "spec/local_cluster.h"

namespace weir::bench {
namespace {

// The first "model name" of /proc/cpuinfo.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

Ceilings::Of ceilings_of(const std::vector<int>& cores) {
  Team team(static_cast<int>(cores.size()), cores);
  Ceilings::Of ceilings;
  // Pins the thread that measures, so not this one.
  std::thread([&] {
    team.pin_caller();
    ceilings = {.flops_per_s = fma_flops_per_s(team),
                .bytes_per_s = read_bytes_per_s(team),
                .amx_flops_per_s = amx_flops_per_s(team)};
  }).join();
  return ceilings;
}

}  // namespace

Summary summary_of(std::vector<double> values) {
  CHECK(!values.empty(), "a summary is of something");
  const auto [least, most] = std::ranges::minmax(values);
  return {.median = median(std::move(values)), .least = least, .most = most};
}

Summary rate_of(double amount, const Summary& seconds) {
  return {.median = amount / seconds.median,
          .least = amount / seconds.most,
          .most = amount / seconds.least};
}

std::string to_string(const Summary& summary) {
  return fmt::format("{:.4g} ({:.4g}..{:.4g})", summary.median, summary.least, summary.most);
}

Result<Ceilings> measure_ceilings() {
  const auto cluster = local_cluster({.num_devices = 1, .cores_per_device = {}});
  if (!cluster) return tl::unexpected(cluster.error());
  const std::vector<int> cores = cores_of(*cluster).front();
  return Ceilings{.one_core = ceilings_of({cores.front()}), .all_cores = ceilings_of(cores)};
}

Ceilings better_of(const Ceilings& a, const Ceilings& b) {
  const auto better = [](const Ceilings::Of& x, const Ceilings::Of& y) {
    return Ceilings::Of{.flops_per_s = std::max(x.flops_per_s, y.flops_per_s),
                        .bytes_per_s = std::max(x.bytes_per_s, y.bytes_per_s),
                        .amx_flops_per_s = std::max(x.amx_flops_per_s, y.amx_flops_per_s)};
  };
  return {.one_core = better(a.one_core, b.one_core),
          .all_cores = better(a.all_cores, b.all_cores)};
}

std::string to_string(const Ceilings& ceilings) {
  std::string text = fmt::format(
      "Ceilings in this run: {:.0f} GFLOP/s of f32 FMA and {:.1f} GB/s read from memory on one "
      "core, {:.0f} and {:.1f} on all.",
      ceilings.one_core.flops_per_s / kGiga, ceilings.one_core.bytes_per_s / kGiga,
      ceilings.all_cores.flops_per_s / kGiga, ceilings.all_cores.bytes_per_s / kGiga);
  if (ceilings.all_cores.amx_flops_per_s > 0) {
    constexpr double kProducts = kernel::products_of_pieces(DType::f16);
    text += fmt::format(
        " AMX tiles: {:.0f} and {:.0f} GFLOP/s of bf16; f16 values take {:.0f} such products "
        "for one, which leaves {:.0f} and {:.0f}.",
        ceilings.one_core.amx_flops_per_s / kGiga, ceilings.all_cores.amx_flops_per_s / kGiga,
        kProducts, ceilings.one_core.amx_flops_per_s / kGiga / kProducts,
        ceilings.all_cores.amx_flops_per_s / kGiga / kProducts);
  }
  return text;
}

Result<std::string> describe_machine() {
  const auto cluster = local_cluster({.num_devices = {}, .cores_per_device = 1});
  if (!cluster) return tl::unexpected(cluster.error());
  const DeviceType& type = cluster->device_types.front();
  const auto size = [](const std::optional<Bytes>& bytes) {
    return bytes ? fmt::format("{} KiB", bytes->value >> 10) : std::string("unknown");
  };
  return fmt::format(
      "{} cores of {}; of each core L1d {}, L2 {}, share of L3 {}; {} GiB memory",
      cluster->devices.size(), processor_name(), size(type.l1), size(type.l2), size(type.l3),
      (static_cast<std::int64_t>(cluster->devices.size()) * type.memory.value) >> 30);
}

Result<std::string> replace_section(std::string_view text, std::string_view name,
                                    std::string_view content) {
  const std::string begin = fmt::format("<!-- {}: begin -->\n", name);
  const std::string end = fmt::format("<!-- {}: end -->", name);
  const std::size_t first = text.find(begin);
  const std::size_t last = first == std::string_view::npos ? first : text.find(end, first);
  if (last == std::string_view::npos) {
    return invalid_input(
        fmt::format("found no lines \"<!-- {}: begin -->\" and \"<!-- {}: end -->\" "
                    "in this order",
                    name, name));
  }
  return fmt::format("{}{}{}", text.substr(0, first + begin.size()), content, text.substr(last));
}

}  // namespace weir::bench
