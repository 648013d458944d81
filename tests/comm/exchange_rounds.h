#pragma once
// Rounds of messages that devices exchange, for tests of any communicator.

#include <cstdint>
#include <functional>
#include <vector>

#include "comm/communicator.h"

namespace weir {

// Until `done` says so, or the communicator has been aborted.
void wait_until(Communicator& communicator, const std::function<bool()>& done);

struct Message {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::size_t size = 0;
};
// Messages that are exchanged together; at most one for each ordered pair.
using Round = std::vector<Message>;

// A device's part in a round: sends, receives, checks, finishes. Devices without a part go on.
void take_part(std::size_t number, const Round& round, std::uint32_t self, Communicator& comm);

// Rounds between random devices, mostly of small messages.
[[nodiscard]] std::vector<Round> random_rounds(std::uint32_t devices, std::size_t count,
                                               std::uint64_t seed);

// Everybody to the next one, in messages of no, few and many bytes, up to `largest`.
[[nodiscard]] std::vector<Round> rounds_of_sizes(std::uint32_t devices, std::size_t largest);

// Two devices in turn, each waiting for the other alone.
[[nodiscard]] std::vector<Round> there_and_back();

}  // namespace weir
