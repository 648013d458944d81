#pragma once
// From what the command line says to what a plan and a run need: a strategy, the devices it uses,
// and the executor's share of this machine.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "app/strategy_flags.h"
#include "checkpoint/checkpoint.h"
#include "engine/generate.h"
#include "exec/executor.h"
#include "plan/lower.h"
#include "spec/cluster.h"
#include "strategy/strategy.h"

namespace weir {

inline constexpr std::int64_t kMostThreadsPerDevice = 4096;

struct SetupOptions {
  StrategyChoice strategy = {};
  std::string cluster = "local";
  std::optional<std::int64_t> threads_per_device = {};  // Local devices only.
  // nullopt: f32 on CPU devices, the model's weight dtype on GPUs.
  std::optional<DType> activation_dtype = {};
  std::optional<DType> kv_dtype = {};
  // What `local` is where ranks run together; else this machine, cut as the strategy wants.
  std::optional<ClusterSpec> rank_machine = {};
};
// --strategy and its options, --cluster, --threads-per-device, --kv-dtype.
void add_setup_flags(CLI::App& app, SetupOptions& options);

struct Setup {
  NamedStrategy strategy;
  ClusterSpec cluster;
  PlanHeader header;  // All but limits and logits; its devices are the cluster's first ones.
};
// "local" is cut into as many devices as the strategy wants; any other cluster must have as many.
[[nodiscard]] Result<Setup> set_up(const ModelSpec& model, const SetupOptions& options);

// The setup's devices as groups of this machine's cores. Fails for any that are not.
[[nodiscard]] Result<std::vector<ExecDevice>> local_devices(const Setup& setup);
// The same, each of them on the machine of its rank. Fails unless there are as many ranks.
[[nodiscard]] Result<std::vector<ExecDevice>> rank_devices(const Setup& setup,
                                                           std::size_t num_ranks);

// One generation with an executor of its own, so that no two hold weights at the same time.
[[nodiscard]] Result<Generation> generate(const Checkpoint& checkpoint, const Setup& setup,
                                          std::span<const GenerationRequest> requests,
                                          const GenerationOptions& options);
// The same on given devices.
[[nodiscard]] Result<Generation> generate_on(ExecutorOptions executor, const Checkpoint& checkpoint,
                                             const Setup& setup,
                                             std::span<const GenerationRequest> requests,
                                             const GenerationOptions& options);

}  // namespace weir
