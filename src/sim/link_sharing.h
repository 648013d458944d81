#pragma once
// Transfers that are under way at the same time and share links max-min fairly: no transfer can get
// a higher rate without one that has no more getting less. Rates change only when a transfer begins
// or ends, so a transfer's end is known until then.
// Source: Bertsekas, Gallager, "Data Networks", section 6.5.2 (progressive filling).
//
// A link holds somebody up only where more is wanted of it than it can carry. So a change concerns
// those alone who are joined to it by links that are overbooked; everybody else runs at full speed
// and is not looked at. What happens at one instant takes effect together.
//
// Time is integer nanoseconds. A transfer that never shares ends exactly `duration` after it began.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/units.h"
#include "sim/collectives.h"
#include "sim/end_heap.h"
#include "sim/topology.h"

namespace weir {

class LinkSharing {
 public:
  // By link, bytes per second; positive where a transfer uses it.
  explicit LinkSharing(std::span<const double> capacities);
  explicit LinkSharing(const Topology& topology) : LinkSharing(topology.capacities()) {}

  // Alone it takes `duration`, which must be positive. `uses` names a link once and must outlive
  // the transfer; `name` is the caller's, and not under way already.
  void begin(std::uint32_t name, std::span<const LinkUse> uses, SimTime duration, SimTime now);

  struct End {
    SimTime time;
    std::uint32_t name = 0;
  };
  // The first of those under way to end, ties by name. Nothing may begin before that instant
  // without being said first.
  [[nodiscard]] std::optional<End> next(SimTime now);
  // Another one that ends at the instant of the one that has just finished.
  [[nodiscard]] std::optional<End> next_at(SimTime now) const;
  // What `next` or `next_at` has announced is over.
  void finish(const End& end);
  [[nodiscard]] bool empty() const { return active_ == 0; }
  // Whether any transfer has ever got less than it could take alone.
  [[nodiscard]] bool has_slowed() const { return has_slowed_; }
  // Steps of constant cost done so far, for tests of how the cost grows.
  [[nodiscard]] std::uint64_t operations() const { return operations_ + ends_.moves(); }

 private:
  using Slot = std::uint32_t;  // Into transfers_.
  struct Transfer {
    std::span<const LinkUse> uses;
    double per_largest = 0;  // One over the bytes on the link that carries most of it,
    double full_rate = 0;    // and these per nanosecond when alone.
    double remaining = 0;    // Nanoseconds at full rate, at `since`.
    double speed = 0;        // Share of the full rate.
    double per_full_rate = 0;
    double per_length = 0;  // One over the nanoseconds when alone.
    SimTime since;
    std::uint64_t visit = 0;  // The last settling that came by.
    std::uint32_t name = 0;
  };
  struct Link {
    double capacity = 0;            // Bytes per nanosecond.
    double whole_per_capacity = 0;  // kWholeLink over it.
    std::int64_t wanted = 0;        // By all on it at full speed, in units of kWholeLink. Exact.
    std::uint64_t visit = 0;        // As Transfer's, and where it then stands in tight_.
    std::uint32_t place = 0;
    std::vector<Slot> slots;
  };
  // Those who are joined by overbooked links, each with its part of uses_; and these links.
  struct Member {
    Slot slot = 0;
    std::uint32_t first_use = 0;
    std::uint32_t end_use = 0;
    double full_rate = 0;
  };
  struct TightUse {
    std::uint32_t link = 0;  // Place in tight_.
    double weight = 0;       // What one unit of the member's rate takes of it.
  };
  struct TightLink {
    double left = 0;    // Bytes per nanosecond not given yet.
    double weight = 0;  // Of all members whose rate is not fixed yet.
  };

  [[nodiscard]] static std::int64_t wanted(const Link& link, const LinkUse& use, double per_length);
  [[nodiscard]] static bool is_overbooked(const Link& link);
  void change_at(SimTime now);
  void settle(SimTime now);
  void share_around(Slot first, SimTime now);
  void collect(Slot first);
  void join(Slot slot);
  void fill(SimTime now);
  [[nodiscard]] double level() const;
  [[nodiscard]] bool is_held_up(const Member& member, double level) const;
  void fix(const Member& member, double rate, SimTime now);
  void change_speed(Slot slot, double speed, SimTime now);

  std::vector<Transfer> transfers_;
  std::vector<Slot> free_;
  std::vector<Link> links_;
  EndHeap ends_;
  std::vector<Slot> begun_;              // What has changed since the last settling, all at one
  std::vector<std::uint32_t> relieved_;  // instant: transfers, and overbooked links that lost one.
  SimTime changed_at_;
  std::uint64_t visit_ = 0;
  std::vector<Member> members_;
  std::vector<TightUse> uses_;
  std::vector<TightLink> tight_;
  std::size_t active_ = 0;
  std::uint64_t operations_ = 0;
  bool has_slowed_ = false;
};

}  // namespace weir
