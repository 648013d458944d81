#include "measure/calibrate.h"

#include <chrono>
#include <cmath>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "measure/ceilings.h"
#include "measure/executor_costs.h"
#include "measure/kernel_costs.h"
#include "measure/transfer_times.h"

namespace weir {
namespace {

// A device alone, as peaks are: nobody has to share to reach them.
void measure_peaks(const std::vector<int>& cores, DeviceType& type) {
  Team team(std::max(1, static_cast<int>(cores.size())), cores);
  // Pins the thread that measures, so not this one.
  std::thread([&] {
    team.pin_caller();
    type.vector_flops.f32 = FlopsPerSecond{rounded(fma_flops_per_s(team))};
    const auto rate_of = [&](Bytes cache) {
      return BytesPerSecond{rounded(read_bytes_per_s(team, cache.value / 2))};
    };
    if (type.l2) type.l2_bandwidth = rate_of(*type.l2);
    if (type.l3) type.l3_bandwidth = rate_of(*type.l3);
  }).join();
  type.sources["vector_tflops"] = kMeasured;
  if (type.l2) type.sources["l2_gb_per_s"] = kMeasured;
  if (type.l3) type.sources["l3_gb_per_s"] = kMeasured;
}

// Kernels, and how fast memory was read meanwhile.
void measure_kernels_in_one_state(const std::vector<std::vector<int>>& cores,
                                  const CalibrationOptions& options, DeviceType& type, Host& host) {
  MemoryWatch memory(cores);
  std::optional<MemoryRates> first;
  const auto memory_now = [&] {
    const MemoryRates now = memory.rates();
    if (!first) first = now;
    return now;
  };
  type.kernels =
      measure_kernels(cores, type, options.least_seconds, options.progress,
                      options.least_seconds > 0 ? std::function<MemoryRates()>(memory_now)
                                                : nullptr);  // Quick is rough.
  type.sources["kernels"] = kMeasured;
  if (!first) first = memory.rates();
  type.memory_bandwidth = BytesPerSecond{rounded(first->alone)};
  type.sources["memory_gb_per_s"] = kMeasured;
  host.memory_bandwidth = BytesPerSecond{rounded(first->together)};
  host.sources["memory_gb_per_s"] = kMeasured;
}

}  // namespace

void put_transfers(const MeasuredTransfers& transfers, Fabric& fabric) {
  const LinkCosts link = fit_link(transfers);
  fabric.latency = Seconds{rounded(link.latency.value)};
  fabric.bandwidth = BytesPerSecond{rounded(link.bandwidth.value)};
  fabric.transfers = transfers;
  fabric.sources = {{"latency_us", kMeasured}, {"gb_per_s", kMeasured}, {"transfers", kMeasured}};
}

double rounded(double value) {
  if (value <= 0) return 0;
  const double unit = std::pow(10.0, std::floor(std::log10(value)) - 2);
  return std::round(value / unit) * unit;
}

std::vector<std::vector<int>> cores_of(const ClusterSpec& cluster) {
  std::vector<std::vector<int>> cores;
  for (const Device& device : cluster.devices)
    cores.emplace_back(device.cpus.begin(), device.cpus.end());
  return cores;
}

Status calibrate_node(ClusterSpec& cluster, const CalibrationOptions& options) {
  const std::vector<std::vector<int>> cores = cores_of(cluster);
  DeviceType& type = cluster.device_types.front();
  options.progress("arithmetic and memory");
  measure_peaks(cores.front(), type);
  NodeType& node = cluster.node_types.front();
  measure_kernels_in_one_state(cores, options, type, node.host);
  options.progress("tasks, steps and transfers");
  std::vector<ExecDevice> devices;
  for (std::size_t i = 0; i < cores.size(); ++i)
    devices.push_back({.name = cluster.devices[i].name, .cores = cores[i]});
  const auto costs = measure_executor(devices, transfer_rounds(options.least_seconds));
  if (!costs) return tl::unexpected(costs.error());
  type.launch_latency = Seconds{rounded(costs->task.value)};
  type.sources["launch_latency_us"] = kMeasured;
  node.host.step_latency = Seconds{rounded(costs->step.value)};
  node.host.sources["step_latency_us"] = kMeasured;
  node.host.short_step_latency = Seconds{rounded(costs->short_step.value)};
  node.host.sources["short_step_latency_us"] = kMeasured;
  node.host.short_step = Seconds{std::chrono::duration<double>(Executor::kSpinTime).count()};
  node.host.sources["short_step_us"] = kMeasured;
  if (costs->transfers) put_transfers(*costs->transfers, node.fabrics.front());
  list_devices(cluster);
  return {};
}

Result<ClusterSpec> calibrate(const CalibrationOptions& options) {
  auto cluster = local_cluster(options.devices);
  if (!cluster) return cluster;
  if (auto measured = calibrate_node(*cluster, options); !measured)
    return tl::unexpected(measured.error());
  cluster->name = "calibrated";
  return cluster;
}

}  // namespace weir
