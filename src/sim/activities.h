#pragma once
// What the simulator plays through: activities that wait for others, and nothing else. Plans are
// turned into them (sim/plan_activities.h), and anything else that takes time or sends bytes can
// be.
//
// An activity begins when all that it waits for is over. It first takes a fixed time (a
// computation, or the latency of a transfer), then, if it has something to transfer, the time of
// that: alone as stated, and longer where others want the same links. A queue is its activities
// waiting for each other in order, since whoever wrote the plan has fixed that order.
//
// Activities that take the same time over the same links share one Work, so an activity is four
// bytes, and four for each other that it waits for. They stand in an order in which nothing comes
// before what it waits for: a graph cannot have a cycle.

#include <cstdint>
#include <span>
#include <vector>

#include "base/units.h"
#include "sim/collectives.h"

namespace weir {

// Indices, in the order in which they were added.
using ActivityId = std::uint32_t;
using WorkId = std::uint32_t;

// The most that collectives are expanded to: about 6 GB.
inline constexpr std::int64_t kMostActivities = std::int64_t{1} << 27;

// Activities that stand in a graph again and again, as a collective does in every layer. Ids count
// within the pattern; the first activity is the only one that waits for others outside.
struct ActivityPattern {
  std::vector<WorkId> works;
  std::vector<std::uint32_t> first_wait = {0};
  std::vector<ActivityId> waits;

  ActivityId add(WorkId work, std::span<const ActivityId> waits_for);
};

class ActivityGraph {
 public:
  struct Work {
    SimTime latency;
    SimTime transfer;  // Alone. 0: over with the latency.
    std::uint32_t first_use = 0;
    std::uint32_t num_uses = 0;
  };

  // A computation, or a moment at which several activities meet if `duration` is 0.
  WorkId add_work(SimTime duration) { return add_work(duration, {}, {}); }
  // `uses` names each link once, for more than no bytes.
  WorkId add_work(SimTime latency, SimTime transfer, std::span<const LinkUse> uses);
  // `waits` names activities that have been added already.
  ActivityId add(WorkId work, std::span<const ActivityId> waits);
  // The same for all activities of a pattern; returns the first, and the others follow it.
  ActivityId append(const ActivityPattern& pattern, std::span<const ActivityId> first_waits);
  // Room for as many more activities that wait for so many, all together.
  void reserve(std::size_t activities, std::size_t waits);

  [[nodiscard]] std::size_t size() const { return work_.size(); }
  [[nodiscard]] const Work& work_of(ActivityId id) const { return works_[work_[id]]; }
  [[nodiscard]] std::span<const LinkUse> uses_of(const Work& work) const {
    return std::span(uses_).subspan(work.first_use, work.num_uses);
  }
  [[nodiscard]] std::span<const ActivityId> waits_of(ActivityId id) const {
    return std::span(waits_).subspan(first_wait_[id], first_wait_[id + 1] - first_wait_[id]);
  }
  [[nodiscard]] std::size_t num_waits() const { return waits_.size(); }

 private:
  std::vector<WorkId> work_;                     // By activity,
  std::vector<std::uint32_t> first_wait_ = {0};  // as this, and one more.
  std::vector<ActivityId> waits_;
  std::vector<Work> works_;
  std::vector<LinkUse> uses_;
};

struct ActivityTimes {
  std::vector<SimTime> ends;  // By activity.
  SimTime end;                // Of the last.
  bool has_slowed = false;    // Some transfer got less of a link than it could take alone.
  // Steps of constant cost that it took, for tests of how the cost grows.
  std::uint64_t operations = 0;
};

// When an activity begins: what it waits for is over.
[[nodiscard]] SimTime start_of(const ActivityGraph& graph, std::span<const SimTime> ends,
                               ActivityId id);

// Each transfer takes as long as it does alone. One pass.
[[nodiscard]] ActivityTimes run_in_order(const ActivityGraph& graph);

// Transfers share links max-min fairly (sim/link_sharing.h). `capacities`: bytes per second by
// link, positive where one is used. Where nothing is shared, the same as `run_in_order`. What
// happens at one instant happens together, so the order in which it is handled decides nothing.
[[nodiscard]] ActivityTimes run_by_events(const ActivityGraph& graph,
                                          std::span<const double> capacities);

}  // namespace weir
