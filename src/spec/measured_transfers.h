#pragma once
// What communication takes, as `weir calibrate` has measured it in runs of Weir's own executor, by
// size. Every redistribution that the executor does is one of a few patterns, or several, so times
// are looked up where a latency and a rate would have to be assumed. Measured within a node they
// belong to its fabric, between nodes to their network cards.

#include <cstdint>
#include <optional>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/units.h"

namespace weir {

class ObjectReader;

// From when all who take part are there until, in the mean, those who receive are done.
struct TransferTime {
  std::int64_t bytes = 0;  // Of each message, or of the buffer that is reduced or gathered.
  double us = 0;

  bool operator==(const TransferTime&) const = default;
};

// What `members` do at once, between nodes each on a node of its own.
struct GroupCurve {
  std::int64_t members = 2;
  std::vector<TransferTime> times;  // Bytes ascending.

  bool operator==(const GroupCurve&) const = default;
};

struct MeasuredTransfers {
  // One device to another, nobody else sends; every member to every other. Bytes and members
  // ascending. One of these two may be empty: not measured.
  std::vector<TransferTime> messages = {};
  std::vector<GroupCurve> exchanges = {};
  // Of so many bytes, in one exchange or in two. Two take longer than twice one: the second begins
  // when the slowest is done with the first. Members ascending.
  std::vector<GroupCurve> all_reduces = {};
  // Of so many bytes in all: an exchange beside which terms are added, or a device's own part is
  // copied. Members ascending.
  std::vector<GroupCurve> reduce_scatters = {};
  std::vector<GroupCurve> all_gathers = {};

  bool operator==(const MeasuredTransfers&) const = default;
};

// Between two sizes a time lies on the line between theirs, both as logarithms, so that neither
// small nor large ones decide. Below the smallest it is that of the smallest, above the largest it
// grows as the bytes do. `times` is not empty.
[[nodiscard]] Seconds time_at(const std::vector<TransferTime>& times, double bytes);
// Of an exchange of `members`, at least 2. Where as many were not measured, that of the next more
// (or else the most) in which a member sends as many bytes in all; where no exchange was, that of a
// message of as many, as both directions of a link are apart.
[[nodiscard]] Seconds exchange_time(const MeasuredTransfers& transfers, std::size_t members,
                                    double bytes);
// By one of the lists of collectives; nullopt where just as many members were not measured.
[[nodiscard]] std::optional<Seconds> collective_time(const std::vector<GroupCurve>& curves,
                                                     std::size_t members, double bytes);
// Of a message alone; where none was measured, of two members' exchange.
[[nodiscard]] Seconds message_time(const MeasuredTransfers& transfers, double bytes);

// The key "transfers" of a fabric and of network cards in docs/cluster.md.
[[nodiscard]] MeasuredTransfers read_measured_transfers(ObjectReader reader);
[[nodiscard]] nlohmann::json to_json(const MeasuredTransfers& transfers);

}  // namespace weir
