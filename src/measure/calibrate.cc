#include "measure/calibrate.h"

#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "measure/ceilings.h"
#include "measure/executor_costs.h"
#include "measure/kernel_costs.h"

namespace weir {
namespace {

constexpr const char* kSource = "weir calibrate, on this machine";

// Three digits: what comes back on the next run.
double rounded(double value) {
  if (value <= 0) return 0;
  const double unit = std::pow(10.0, std::floor(std::log10(value)) - 2);
  return std::round(value / unit) * unit;
}

// A device alone, as peaks are: nobody has to share to reach them.
void measure_peaks(const std::vector<int>& cores, DeviceType& type) {
  Team team(std::max(1, static_cast<int>(cores.size())), cores);
  // Pins the thread that measures, so not this one.
  std::thread([&] {
    team.pin_caller();
    type.vector_flops.f32 = FlopsPerSecond{rounded(fma_flops_per_s(team))};
    type.memory_bandwidth = BytesPerSecond{rounded(read_bytes_per_s(team))};
    const auto rate_of = [&](Bytes cache) {
      return BytesPerSecond{rounded(read_bytes_per_s(team, cache.value / 2))};
    };
    if (type.l2) type.l2_bandwidth = rate_of(*type.l2);
    if (type.l3) type.l3_bandwidth = rate_of(*type.l3);
  }).join();
  for (const char* key : {"vector_tflops", "memory_gb_per_s"}) type.sources[key] = kSource;
  if (type.l2) type.sources["l2_gb_per_s"] = kSource;
  if (type.l3) type.sources["l3_gb_per_s"] = kSource;
}

}  // namespace

Status write_cluster_file(const std::string& path, const ClusterSpec& cluster) {
  std::ofstream file(path);
  file << cluster_to_json(cluster).dump(1) << '\n';
  file.close();
  if (!file) return run_failed(fmt::format("{} cannot be written", path));
  return {};
}

std::vector<std::vector<int>> cores_of(const ClusterSpec& cluster) {
  std::vector<std::vector<int>> cores;
  for (const Device& device : cluster.devices)
    cores.emplace_back(device.cpus.begin(), device.cpus.end());
  return cores;
}

Result<ClusterSpec> calibrate(const CalibrationOptions& options) {
  auto cluster = local_cluster(options.devices);
  if (!cluster) return cluster;
  const std::vector<std::vector<int>> cores = cores_of(*cluster);
  DeviceType& type = cluster->device_types.front();
  options.progress("arithmetic and memory");
  measure_peaks(cores.front(), type);
  type.kernels = measure_kernels(cores, type, options.least_seconds, options.progress);
  type.sources["kernels"] = kSource;
  options.progress("tasks, steps and transfers");
  std::vector<ExecDevice> devices;
  for (std::size_t i = 0; i < cores.size(); ++i)
    devices.push_back({.name = cluster->devices[i].name, .cores = cores[i]});
  const auto costs = measure_executor(devices);
  if (!costs) return tl::unexpected(costs.error());
  type.launch_latency = Seconds{rounded(costs->task.value)};
  type.sources["launch_latency_us"] = kSource;
  NodeType& node = cluster->node_types.front();
  node.host.step_latency = Seconds{rounded(costs->step.value)};
  node.host.sources["step_latency_us"] = kSource;
  node.host.short_step_latency = Seconds{rounded(costs->short_step.value)};
  node.host.sources["short_step_latency_us"] = kSource;
  node.host.short_step = Seconds{std::chrono::duration<double>(Executor::kSpinTime).count()};
  node.host.sources["short_step_us"] = kSource;
  if (costs->link) {
    Fabric& fabric = node.fabrics.front();
    fabric.latency = Seconds{rounded(costs->link->latency.value)};
    fabric.bandwidth = BytesPerSecond{rounded(costs->link->bandwidth.value)};
    fabric.sources = {{"latency_us", kSource}, {"gb_per_s", kSource}};
  }
  cluster->name = "calibrated";
  list_devices(*cluster);
  return cluster;
}

}  // namespace weir
