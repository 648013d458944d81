#include "report/metrics_page.h"

#include <algorithm>
#include <span>

#include <fmt/format.h>

#include "report/format.h"
#include "report/table.h"

namespace weir {
namespace {

constexpr std::size_t kIndent = 2;
constexpr std::size_t kBarWidth = 20;

std::string plural(std::int64_t count, std::string_view thing) {
  return fmt::format("{} {}{}", format_count(static_cast<double>(count)), thing,
                     count == 1 ? "" : "s");
}

std::string spread(const std::optional<Distribution>& distribution) {
  if (!distribution) return std::string(kUndefined);
  std::string text = format_duration(distribution->mean);
  if (distribution->count > 1) {
    text += fmt::format(" mean, {} p50, {} p99, {} max", format_duration(distribution->p50),
                        format_duration(distribution->p99), format_duration(distribution->max));
  }
  return text;
}

std::string duration_text(Seconds time) { return format_duration(time); }

std::string steps_line(const Distribution& steps) {
  return fmt::format("{}, {}", plural(steps.count, "step"), spread(steps));
}

std::string throughput(const Metrics& metrics) {
  if (!metrics.tps || !metrics.output_tps) return std::string(kUndefined);
  return fmt::format("{} tokens/s ({} of them output)", format_quantity(*metrics.tps, ""),
                     format_quantity(*metrics.output_tps, ""));
}

std::string summary(const Metrics& metrics) {
  Table table{.columns = {{"", Align::left}, {"", Align::left}}, .rows = {}};
  const auto line = [&](std::string_view name, std::string value) {
    table.rows.push_back({.cells = {std::string(name), std::move(value)}});
  };
  // A step by itself knows of no requests.
  if (metrics.num_requests == 0 && metrics.num_devices > 0) {
    line("step", fmt::format("{} on {}", format_duration(metrics.total_time),
                             plural(metrics.num_devices, "device")));
    return render(table);
  }
  line("run",
       fmt::format("{} on {}: {}, {} in, {} out", format_duration(metrics.total_time),
                   plural(metrics.num_devices, "device"), plural(metrics.num_requests, "request"),
                   plural(metrics.input_tokens, "token"),
                   format_count(static_cast<double>(metrics.output_tokens))));
  line("ttft", spread(metrics.ttft));
  line("tpot", format_or_undefined(metrics.tpot, duration_text));
  line("itl", spread(metrics.itl));
  line("tps", throughput(metrics));
  if (metrics.prefill_steps) line("prefill", steps_line(*metrics.prefill_steps));
  if (metrics.decode_steps) line("decode", steps_line(*metrics.decode_steps));
  return render(table);
}

double share_of(SimTime part, SimTime whole) {
  return whole > SimTime{} ? to_seconds(part) / to_seconds(whole) : 0;
}

std::string breakdown(const Metrics& metrics) {
  Table table{.columns = {{"time (mean over devices)", Align::left},
                          {"time"},
                          {"share"},
                          {"", Align::left}},
              .rows = {}};
  for (const TimeClass c : kTimeClasses) {
    const double share = share_of((*metrics.breakdown)[c], metrics.total_time);
    table.rows.push_back(
        {.cells = {std::string(to_string(c)), format_duration((*metrics.breakdown)[c]),
                   format_share(share), format_bar(share, kBarWidth)}});
  }
  table.rows.push_back(
      {.cells = {"total", format_duration(metrics.breakdown->total()), format_share(1)},
       .rule_above = true});
  return render(table, kIndent);
}

// Without resource management, which is the time outside of steps and so the same for all.
std::string devices(const Metrics& metrics, std::size_t max_devices) {
  Table table{.columns = {{"device", Align::left},
                          {"utilisation"},
                          {"", Align::left},
                          {"attention"},
                          {"linear"},
                          {"elementwise"},
                          {"exposed_comm"},
                          {"synchronisation"},
                          {"idle"}},
              .rows = {}};
  const std::size_t listed = std::min(max_devices, metrics.devices.size());
  for (std::size_t d = 0; d < listed; ++d) {
    const DeviceMetrics& device = metrics.devices[d];
    const double busy = device.utilisation.value_or(0);
    std::vector<std::string> cells = {device.name,
                                      format_or_undefined(device.utilisation, format_share),
                                      format_bar(busy, kBarWidth)};
    for (const TimeClass c : kTimeClasses) {
      if (c != TimeClass::resource_management)
        cells.push_back(format_share(share_of(device.breakdown[c], metrics.total_time)));
    }
    table.rows.push_back({.cells = std::move(cells)});
  }
  std::string text = listed > 0 ? render(table, kIndent) : "";
  if (listed < metrics.devices.size()) {
    const auto [least, most] =
        std::ranges::minmax(std::span(metrics.devices).subspan(listed), {},
                            [](const DeviceMetrics& d) { return d.utilisation.value_or(0); });
    const auto count = std::ssize(metrics.devices) - static_cast<std::ptrdiff_t>(listed);
    text += fmt::format("  {}, utilised {} to {}\n",
                        listed > 0 ? fmt::format("and {} more", count) : plural(count, "device"),
                        format_share(least.utilisation.value_or(0)),
                        format_share(most.utilisation.value_or(0)));
  }
  return text;
}

std::string work(const Metrics& metrics) {
  Table table{.columns = {{"work (all devices)", Align::left},
                          {"tasks"},
                          {"device time"},
                          {"FLOP"},
                          {"per second"},
                          {"bytes"},
                          {"per second"}},
              .rows = {}};
  for (const OpClass c : kOpClasses) {
    const WorkDone& done = metrics.work[c];
    if (done.tasks == 0) continue;
    const auto flop_rate = [](FlopsPerSecond rate) {
      return format_quantity(rate.value, "FLOP/s");
    };
    const auto byte_rate = [](BytesPerSecond rate) { return format_quantity(rate.value, "B/s"); };
    table.rows.push_back(
        {.cells = {std::string(to_string(c)), format_count(static_cast<double>(done.tasks)),
                   format_duration(done.time), format_quantity(done.flops, "FLOP"),
                   format_or_undefined(done.flops_per_second(), flop_rate),
                   format_bytes(done.bytes),
                   format_or_undefined(done.bytes_per_second(), byte_rate)}});
  }
  return render(table, kIndent);
}

}  // namespace

std::string report_metrics(const Metrics& metrics, MetricsPageOptions options) {
  std::string page = summary(metrics);
  if (metrics.breakdown) {
    page += fmt::format("\n{}\n{}\n{}", breakdown(metrics), devices(metrics, options.max_devices),
                        work(metrics));
  }
  return page;
}

}  // namespace weir
