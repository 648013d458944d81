#pragma once
// Transfers that are under way at the same time and share links max-min fairly: no transfer can get
// a higher rate without one that has no more getting less. Rates change only when a transfer begins
// or ends, so a transfer's end is known until then.
// Source: Bertsekas, Gallager, "Data Networks", section 6.5.2 (progressive filling).
//
// Time is integer nanoseconds. A transfer that never shares ends exactly `duration` after it began.

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "base/units.h"
#include "sim/collectives.h"
#include "sim/topology.h"

namespace weir {

class LinkSharing {
 public:
  // `topology` must outlive this.
  explicit LinkSharing(const Topology& topology)
      : topology_(topology), on_link_(topology.num_links()), link_visit_(topology.num_links()) {}

  // Alone it takes `duration`, which must be positive. `uses` must outlive the transfer; `name` is
  // the caller's, and not under way already.
  void begin(std::uint32_t name, std::span<const LinkUse> uses, SimTime duration, SimTime now);

  struct End {
    SimTime time;
    std::uint32_t name = 0;
  };
  // The first of those under way to end, ties by name. Nothing may begin before that instant
  // without being said first.
  [[nodiscard]] std::optional<End> next(SimTime now);
  // What `next` has announced is over.
  void finish(const End& end);
  [[nodiscard]] bool empty() const { return active_ == 0; }
  // Whether any transfer has ever got less than it could take alone.
  [[nodiscard]] bool has_slowed() const { return has_slowed_; }

 private:
  using Slot = std::uint32_t;  // Into transfers_.
  struct Transfer {
    std::uint32_t name = 0;
    std::span<const LinkUse> uses;
    double largest = 0;    // Bytes on the link that carries most of it.
    double full_rate = 0;  // Bytes per nanosecond of `largest` when alone.
    double remaining = 0;  // Nanoseconds at full rate, at `since`.
    double speed = 0;      // Share of the full rate.
    SimTime since;
    SimTime end;
    std::uint64_t visit = 0;  // The last search for a component that came by.
  };

  void change_at(SimTime now);
  void settle(SimTime now);
  [[nodiscard]] std::vector<Slot> component();
  void share(std::span<const Slot> slots, SimTime now);
  void change_speed(Slot slot, double speed, SimTime now);

  const Topology& topology_;
  std::vector<Transfer> transfers_;
  std::vector<Slot> free_;
  std::vector<std::vector<Slot>> on_link_;
  std::vector<std::uint64_t> link_visit_;
  std::uint64_t visit_ = 0;
  std::vector<LinkId> changed_;  // Links where a transfer began or ended since the last settling,
  SimTime changed_at_;           // all at this instant.
  std::set<std::tuple<std::int64_t, std::uint32_t, Slot>> ends_;
  std::size_t active_ = 0;
  bool has_slowed_ = false;
};

}  // namespace weir
