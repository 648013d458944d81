#pragma once
// How a process learns that a launcher has started it as one of several ranks: from the environment
// alone, so that a program started by hand never touches MPI.

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

namespace weir {

struct Launch {
  std::string launcher;  // As in "Open MPI".
  std::size_t rank = 0;
  std::size_t size = 1;
};

// The value of an environment variable, or nullptr.
using Environment = std::function<const char*(const char* name)>;

// What Open MPI's mpirun, launchers that speak PMI (MPICH's, srun --mpi=pmi2) and srun --mpi=pmix
// say; nullopt where nobody does. A job's script under Slurm sees SLURM_NTASKS without being one of
// its tasks, so that is no sign.
[[nodiscard]] std::optional<Launch> detect_launch(const Environment& environment);
// In the environment of this process.
[[nodiscard]] std::optional<Launch> detect_launch();

// How many tasks srun has started of which none can know of the others, where this is the first of
// them: without --mpi, each is a run of its own. As a sweep may want them, or as nobody meant it.
[[nodiscard]] std::optional<std::size_t> detect_separate_tasks(const Environment& environment);
[[nodiscard]] std::optional<std::size_t> detect_separate_tasks();

// That of this host.
[[nodiscard]] std::string host_name();

}  // namespace weir
