#include "measure/calibrate.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "kernel/amx.h"
#include "measure/ceilings.h"
#include "measure/executor_costs.h"
#include "measure/kernel_costs.h"
#include "measure/transfer_times.h"

namespace weir {
namespace {

// Up to here a step is called short: what it needs beside its tasks is still in the caches.
constexpr Seconds kShortStep{1e-3};

// A device alone, as peaks are: nobody has to share to reach them.
void measure_peaks(const std::vector<int>& cores, DeviceType& type) {
  Team team(std::max(1, static_cast<int>(cores.size())), cores);
  // Pins the thread that measures, so not this one.
  std::thread([&] {
    team.pin_caller();
    type.vector_flops.f32 = FlopsPerSecond{rounded(fma_flops_per_s(team))};
    if (const double tiles = amx_flops_per_s(team); tiles > 0) {
      const auto rate_of = [&](DType dtype) {
        return FlopsPerSecond{rounded(tiles / kernel::products_of_pieces(dtype))};
      };
      type.matrix_flops = {
          .f32 = rate_of(DType::f32), .bf16 = rate_of(DType::bf16), .f16 = rate_of(DType::f16)};
      type.sources["matrix_tflops"] = kMeasured;
    }
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

// What a device really has of the last cache: a virtual machine sees all of its host's, which
// others fill too. The largest of its share as listed, half of it and so on, that all devices read
// at a rate nearer to that of the smallest than to that of memory.
void measure_last_cache(const std::vector<std::vector<int>>& cores, DeviceType& type) {
  if (!type.l2 || !type.l3) return;
  const auto devices = static_cast<std::int64_t>(cores.size());
  const std::vector<int> all = joined(cores);
  constexpr std::int64_t kTimesL2 = 4;
  std::vector<std::int64_t> sizes;  // Of a device, falling.
  for (std::int64_t size = type.l3->value; size >= kTimesL2 * type.l2->value; size /= 2)
    sizes.push_back(size);
  if (sizes.size() < 2) return;
  std::thread([&] {
    Team team(std::max(1, static_cast<int>(all.size())), all);
    team.pin_caller();
    constexpr std::int64_t kTimesLastCache = 4;
    const double memory = read_bytes_per_s(
        team, std::max(kFarMoreThanCaches, kTimesLastCache * devices * sizes.front()));
    const double cache = read_bytes_per_s(team, devices * sizes.back());
    // Sizes that are nearer to memory are left out, from the largest on.
    std::size_t fits = 0;
    const double between = std::sqrt(memory * cache);
    while (fits + 1 < sizes.size() && read_bytes_per_s(team, devices * sizes[fits]) < between)
      ++fits;
    type.l3 = Bytes{sizes[fits]};
  }).join();
  type.sources["l3_mib"] = kMeasured;
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
  measure_last_cache(cores, type);
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
  node.host.short_step = kShortStep;
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
