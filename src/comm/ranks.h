#pragma once
// The processes that run one plan together: rank i is device i. Rank 0 plans, talks to the user and
// says what is to be done; the others do it. Beside the exchanges of their devices (communicator.h)
// ranks send each other messages of any size, in order.
//
//   detect_launch --> join_ranks --> agree --> communicator(): exchanges of a step
//                                         \--> send, receive: what to do next, and what came of it
//
// A rank that dies, hangs or is cut off ends the run on all others (rank_watch.h).

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "comm/communicator.h"
#include "comm/launch.h"

namespace weir {

// Where a rank's steady clock stands: rank 0's time is its time plus `offset`, give or take
// `error`.
struct ClockOffset {
  SimTime offset;
  SimTime error;
};

// One process's view. Calls come from one thread at a time, whichever it is; the communicator's
// count as calls.
class Ranks {
 public:
  Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  // Waits for the other ranks to come to their end too.
  virtual ~Ranks() = default;

  [[nodiscard]] virtual std::size_t rank() const = 0;
  [[nodiscard]] virtual std::size_t size() const = 0;
  // The name of the host that a rank runs on.
  [[nodiscard]] virtual const std::string& host(std::size_t rank) const = 0;
  // Ranks of equal kernels share a machine, even where they see hosts of different names.
  [[nodiscard]] virtual const std::string& kernel(std::size_t rank) const = 0;
  // Rank 0 knows all clocks, others only their own.
  [[nodiscard]] virtual ClockOffset clock(std::size_t rank) const = 0;

  // The endpoint of this rank's device. One at a time; the ranks must outlive it.
  [[nodiscard]] virtual std::unique_ptr<Communicator> communicator() = 0;

  // Copies the bytes and does not wait for whoever receives them, as long as no more than
  // kMostUnreceived messages are on their way. `to` is not this rank.
  static constexpr std::size_t kMostUnreceived = 256;
  virtual void send(std::size_t to, std::span<const std::byte> bytes) = 0;
  // Waits for the next message of that rank; leaves the core to others meanwhile.
  [[nodiscard]] virtual std::vector<std::byte> receive(std::size_t from) = 0;

  // On rank 0: ends all ranks at once, without another word: what is to be said has been said.
  [[noreturn]] virtual void abort(int exit_code) = 0;
  // On any rank, also where others are in the middle of an exchange with this one: the run ends,
  // and rank 0 says that it does because of this rank's `cause`.
  [[noreturn]] virtual void give_up(const std::string& cause) = 0;
};

// Whether this build can be one of several ranks.
[[nodiscard]] bool has_mpi();
// What it was built with, as "Open MPI v4.1.4, ..."; without MPI, how to get it.
[[nodiscard]] std::string mpi_version();

// Ends the process because of another rank, after printing the error if there is one: else another
// rank does that. Called once at most, from a thread that does nothing else.
using EndOfRun = std::function<void(const std::optional<Error>&)>;

// Joins the ranks that the launcher has started with this one; all of them have to call it. Fails
// where the build has no MPI. Once in a process.
[[nodiscard]] Result<std::unique_ptr<Ranks>> join_ranks(const Launch& launch, const EndOfRun& end);

}  // namespace weir
