#pragma once
// The communicator of a device that is an MPI rank: an exchange is a non-blocking receive per
// message that is expected and a non-blocking send per message that is offered. Which bytes go
// where is the plan's business, and sums are folded by their receivers in rank order, so no
// collective of MPI's is used: its sums may be taken in another order from run to run.
//
// MPI delivers messages between two ranks in the order sent, which is all that exchanges ask for.

#include <memory>
#include <span>

#include <mpi.h>

#include "comm/communicator.h"

namespace weir {

// Each is used by nobody else. They must outlive the communicator.
struct MpiChannels {
  MPI_Comm exchanges = MPI_COMM_NULL;
  MPI_Comm alarms = MPI_COMM_NULL;
};

[[nodiscard]] std::unique_ptr<Communicator> make_mpi_communicator(const MpiChannels& channels);

}  // namespace weir
