// A build without MPI.

#include <fmt/format.h>

#include "comm/ranks.h"

namespace weir {

bool has_mpi() { return false; }

std::string mpi_version() {
  return "not built in (install libopenmpi-dev and openmpi-bin, then build again)";
}

Result<std::unique_ptr<Ranks>> join_ranks(const Launch& launch, const EndOfRun& /*end*/) {
  return invalid_input(fmt::format("ranks: found {} of them, started by {}, allowed 1: MPI is {}",
                                   launch.size, launch.launcher, mpi_version()));
}

}  // namespace weir
