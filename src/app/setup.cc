#include "app/setup.h"

#include <utility>

#include <fmt/format.h>

#include "app/flags.h"
#include "spec/local_cluster.h"

namespace weir {
namespace {

Result<ClusterSpec> choose_cluster(const SetupOptions& options, std::int64_t num_devices,
                                   const std::string& label) {
  if (options.cluster == "local") {
    if (options.rank_machine) return *options.rank_machine;
    return local_cluster(
        {.num_devices = num_devices, .cores_per_device = options.threads_per_device});
  }
  if (options.threads_per_device) {
    return invalid_input(fmt::format(
        "--threads-per-device: found {} with --cluster {}, allowed with --cluster local only",
        *options.threads_per_device, options.cluster));
  }
  auto cluster = load_cluster(options.cluster);
  if (!cluster) return cluster;
  const auto count = static_cast<std::int64_t>(cluster->devices.size());
  if (count < num_devices) {
    return invalid_input(
        fmt::format("--cluster: found {} with {} devices, allowed at least {} ({})",
                    options.cluster, count, num_devices, label));
  }
  return cluster;
}

// Caches of the devices that a strategy is made for; of this machine, those of its natural devices.
Result<DeviceFacts> facts_of(const SetupOptions& options) {
  const auto cluster =
      options.cluster == "local"
          ? local_cluster({.num_devices = {}, .cores_per_device = options.threads_per_device})
          : load_cluster(options.cluster);
  if (!cluster) return tl::unexpected(cluster.error());
  const DeviceType& type = cluster->type_of(DeviceId{0});
  DeviceFacts facts;
  if (type.l2) facts.l2_bytes = type.l2->value;
  if (type.l3) facts.l3_bytes = type.l3->value;
  return facts;
}

Result<std::vector<ExecDevice>> cpu_devices(const Setup& setup) {
  std::vector<ExecDevice> devices;
  for (std::size_t i = 0; i < setup.header.devices.size(); ++i) {
    const Device& device = setup.cluster.device(static_cast<DeviceId>(i));
    const DeviceType& type = setup.cluster.type_of(device.id);
    if (type.kind != DeviceKind::cpu) {
      return invalid_input(
          fmt::format("--cluster: found device {} ({}) on node {}, allowed CPU devices of this "
                      "machine (--cluster local)",
                      device.name, type.name, setup.cluster.nodes[device.node].name));
    }
    ExecDevice& exec = devices.emplace_back(ExecDevice{.name = device.name, .cores = {}});
    for (const std::int64_t cpu : device.cpus) exec.cores.push_back(static_cast<int>(cpu));
  }
  return devices;
}

}  // namespace

void add_setup_flags(CLI::App& app, SetupOptions& options) {
  add_strategy_flags(app, options.strategy);
  add_text(
      app,
      {.name = "-c,--cluster",
       .help = "devices: local, local:DEVICES[xCORES], a cluster file, or a name from the "
               "catalogue such as h100-sxm:2x8 (default local, as many as the strategy wants)"},
      options.cluster);
  add_integer(app,
              {.name = "--threads-per-device",
               .help = "cores of each local device (default: all cores shared out)"},
              {.min = 1, .max = kMostThreadsPerDevice}, options.threads_per_device);
  add_dtype(app,
            {.name = "--kv-dtype",
             .help = "of the KV cache (default f32 on CPUs, the model's dtype on GPUs)"},
            options.kv_dtype);
}

Result<Setup> set_up(const ModelSpec& model, const SetupOptions& options) {
  const auto facts = facts_of(options);
  if (!facts) return tl::unexpected(facts.error());
  auto strategy = make_strategy(options.strategy.name, options.strategy.values, model, *facts);
  if (!strategy) return tl::unexpected(strategy.error());
  const std::int64_t num_devices = strategy->strategy->num_devices();
  auto cluster = choose_cluster(options, num_devices, strategy->label);
  if (!cluster) return tl::unexpected(cluster.error());

  if (static_cast<std::int64_t>(cluster->devices.size()) < num_devices) {
    return invalid_input(fmt::format("ranks: found {}, allowed {} ({})", cluster->devices.size(),
                                     num_devices, strategy->label));
  }

  Setup setup{.strategy = *std::move(strategy), .cluster = *std::move(cluster), .header = {}};
  const bool on_cpu = setup.cluster.type_of(DeviceId{0}).kind == DeviceKind::cpu;
  const DType usual = on_cpu ? DType::f32 : model.weight_dtype;
  setup.header.model = model;
  setup.header.strategy = setup.strategy.label;
  setup.header.activation_dtype = options.activation_dtype.value_or(usual);
  setup.header.kv_dtype = options.kv_dtype.value_or(usual);
  for (std::int64_t i = 0; i < num_devices; ++i) {
    const auto id = static_cast<DeviceId>(i);
    setup.header.devices.push_back({.name = setup.cluster.device(id).name,
                                    .memory_bytes = setup.cluster.type_of(id).memory.value});
  }
  return setup;
}

Result<std::vector<ExecDevice>> local_devices(const Setup& setup) {
  for (std::size_t i = 0; i < setup.header.devices.size(); ++i) {
    const Device& device = setup.cluster.device(static_cast<DeviceId>(i));
    if (device.node == 0) continue;
    return invalid_input(fmt::format(
        "--cluster: found device {} on node {}, allowed devices of this machine "
        "(--cluster local), or one rank for each (mpirun -n {})",
        device.name, setup.cluster.nodes[device.node].name, setup.header.devices.size()));
  }
  return cpu_devices(setup);
}

Result<std::vector<ExecDevice>> rank_devices(const Setup& setup, std::size_t num_ranks) {
  if (num_ranks != setup.header.devices.size()) {
    return invalid_input(fmt::format("ranks: found {}, allowed {}, one per device ({})", num_ranks,
                                     setup.header.devices.size(), setup.strategy.label));
  }
  return cpu_devices(setup);
}

Result<Generation> generate(const Checkpoint& checkpoint, const Setup& setup,
                            std::span<const GenerationRequest> requests,
                            const GenerationOptions& options) {
  auto devices = local_devices(setup);
  if (!devices) return tl::unexpected(devices.error());
  return generate_on({.devices = *std::move(devices), .record_tasks = options.record_tasks},
                     checkpoint, setup, requests, options);
}

Result<Generation> generate_on(ExecutorOptions executor_options, const Checkpoint& checkpoint,
                               const Setup& setup, std::span<const GenerationRequest> requests,
                               const GenerationOptions& options) {
  auto executor = Executor::make(checkpoint, setup.header.model, std::move(executor_options));
  if (!executor) return tl::unexpected(executor.error());
  Generator generator(**executor, *setup.strategy.strategy, setup.header);
  return generator.run(requests, options);
}

}  // namespace weir
