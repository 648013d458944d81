// One long prompt after the other, each in a fresh executor: the memory of the process beside that
// of the KV cache.

#include <fmt/format.h>
#include <sys/resource.h>
#include <array>
#include <fstream>
#include <string>

#include "bench/engine/model_run.h"
#include "bench/engine/sections.h"
#include "report/table.h"

namespace weir::bench {
namespace {

constexpr double kMib = 1 << 20;

// The largest resident set of this process since the last reset.
double peak_resident_mib() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
}

void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace

Result<std::string> long_prompt_section(const SectionOptions& options) {
  const ModelSpec spec = small_model();
  const auto model = ModelOnDisk::make(spec);
  if (!model) return tl::unexpected(model.error());
  Table table{.columns = {{"prompt"},
                          {"prefill, s"},
                          {"tokens/s"},
                          {"peak memory, MiB"},
                          {"KV cache, MiB"},
                          {"the rest, MiB"}},
              .rows = {}};
  constexpr std::array<std::int64_t, 3> kLengths{32768, 65536, 131072};
  for (const std::int64_t length : kLengths) {
    options.progress(fmt::format("long prompt: {} tokens", length));
    auto run = ModelRun::make(*model, {.strategy = "single", .cores_per_device = 2});
    if (!run) return tl::unexpected(run.error());
    reset_peak();
    const auto times = (*run)->run({.length = length});
    if (!times) return tl::unexpected(times.error());
    const double peak = peak_resident_mib();
    const double kv = static_cast<double>(length * spec.num_layers *
                                          kv_bytes_per_token_per_layer(spec, DType::f16)) /
                      kMib;
    table.rows.push_back({{std::to_string(length), fmt::format("{:.1f}", times->prefill),
                           fmt::format("{:.0f}", static_cast<double>(length) / times->prefill),
                           fmt::format("{:.0f}", peak), fmt::format("{:.0f}", kv),
                           fmt::format("{:.0f}", peak - kv)}});
  }
  return fmt::format(
      "{}, f16 weights and cache, one device of two cores, one run each. The rest are weights, as "
      "packed and as mapped from the file, and activations of a chunk.\n\n{}\n",
      kSmallTitle, render_markdown(table));
}

}  // namespace weir::bench
