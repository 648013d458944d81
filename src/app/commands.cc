#include <array>

#include "app/command.h"

namespace weir {

std::span<const CommandEntry> commands() {
  static constexpr std::array kCommands = {
      CommandEntry{.name = "devices",
                   .summary = "what this machine offers: cores, caches, memory, GPUs, MPI",
                   .make = make_devices_command},
      CommandEntry{.name = "model",
                   .summary = "write a model folder, or say what is in one",
                   .make = make_model_command},
      CommandEntry{.name = "strategies",
                   .summary = "the ways of splitting, and their options",
                   .make = make_strategies_command},
      CommandEntry{.name = "plan",
                   .summary = "what each device does, holds and sends",
                   .make = make_plan_command},
      CommandEntry{.name = "simulate",
                   .summary = "predicted latency, throughput, memory, energy and price",
                   .make = make_simulate_command},
      CommandEntry{.name = "accuracy",
                   .summary = "the simulator's models held against measured kernels",
                   .make = make_accuracy_command},
      CommandEntry{.name = "calibrate",
                   .summary = "measure this machine, or the hosts of ranks, into a cluster file",
                   .make = make_calibrate_command,
                   .takes_ranks = true},
      CommandEntry{.name = "bench",
                   .summary = "strategies run for real, measured beside predicted",
                   .make = make_bench_command,
                   .takes_ranks = true},
      CommandEntry{.name = "claims",
                   .summary = "the source notes' figures, recomputed, with a verdict on each",
                   .make = make_claims_command},
      CommandEntry{.name = "run",
                   .summary = "generate text on this machine, or on several with mpirun",
                   .make = make_run_command,
                   .takes_ranks = true},
      CommandEntry{.name = "demo",
                   .summary = "find planted answers in a long text, split in three ways",
                   .make = make_demo_command},
  };
  return kCommands;
}

}  // namespace weir
