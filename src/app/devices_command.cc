#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/output.h"
#include "comm/ranks.h"
#include "report/format.h"
#include "report/table.h"
#include "spec/cluster.h"

namespace weir {
namespace {

namespace fs = std::filesystem;

// NVIDIA's kernel driver lists one folder per GPU. nullopt: no driver, so nobody knows.
std::optional<std::int64_t> count_gpus() {
  std::error_code error;
  const fs::directory_iterator folders("/proc/driver/nvidia/gpus", error);
  if (error) return std::nullopt;
  return std::distance(fs::begin(folders), fs::end(folders));
}

std::string bytes_or_undefined(const std::optional<Bytes>& bytes) {
  return format_or_undefined(bytes,
                             [](Bytes b) { return format_bytes(static_cast<double>(b.value)); });
}

std::string cpus_of(const Device& device) {
  return device.cpus.empty() ? "any" : fmt::format("{}", fmt::join(device.cpus, ","));
}

class DevicesCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_text(app,
             {.name = "-c,--cluster",
              .help = "what to list: local, local:DEVICES[xCORES], a cluster file, or one of the "
                      "catalogue (default local)"},
             cluster_);
    add_switch(app, {.name = "--json", .help = "the cluster, machine-readable on stdout"}, json_);
    add_examples(app,
                 "  weir devices\n"
                 "  weir devices -c local:2\n"
                 "  weir devices -c h100-sxm:2x8\n"
                 "  weir devices --json > machine.json   # a cluster file for -c");
  }

  Result<ExitCode> run() override {
    const auto cluster = load_cluster(cluster_);
    if (!cluster) return tl::unexpected(cluster.error());
    if (json_) {
      print_json(cluster_to_json(*cluster));
      return ExitCode::success;
    }
    print(table_of(*cluster));
    if (cluster_.starts_with("local")) print(machine_lines(*cluster));
    return ExitCode::success;
  }

 private:
  static std::string table_of(const ClusterSpec& cluster) {
    Table table{.columns = {{.title = "device", .align = Align::left},
                            {.title = "type", .align = Align::left},
                            {.title = "cores"},
                            {.title = "CPUs", .align = Align::left},
                            {.title = "memory"},
                            {.title = "L1"},
                            {.title = "L2"},
                            {.title = "L3"},
                            {.title = "NUMA"}},
                .rows = {}};
    for (const Device& device : cluster.devices) {
      const DeviceType& type = cluster.device_types[device.type];
      const auto count = [](std::int64_t n) { return fmt::format("{}", n); };
      table.rows.push_back(
          {.cells = {device.name, type.name, format_or_undefined(type.num_cores, count),
                     cpus_of(device), format_bytes(static_cast<double>(type.memory.value)),
                     bytes_or_undefined(type.l1), bytes_or_undefined(type.l2),
                     bytes_or_undefined(type.l3), format_or_undefined(device.numa_node, count)}});
    }
    return render(table);
  }

  static std::string machine_lines(const ClusterSpec& cluster) {
    const Host& host = cluster.node_types.front().host;
    const auto gpus = count_gpus();
    return fmt::format("\nmemory  {}\nGPUs    {}\nMPI     {}\n", bytes_or_undefined(host.memory),
                       gpus ? fmt::format("{} (NVIDIA)", *gpus) : "unknown (no NVIDIA driver)",
                       has_mpi() ? "built in: " + mpi_version() : mpi_version());
  }

  std::string cluster_ = "local";
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_devices_command() { return std::make_unique<DevicesCommand>(); }

}  // namespace weir
