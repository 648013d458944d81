#include "sim/activities.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include "base/check.h"
#include "sim/link_sharing.h"

namespace weir {
namespace {

constexpr std::size_t kMostIds = std::numeric_limits<std::uint32_t>::max();

class EventLoop {
 public:
  EventLoop(const ActivityGraph& graph, std::span<const double> capacities)
      : graph_(graph), links_(capacities) {
    times_.ends.resize(graph.size());
  }

  ActivityTimes run() {
    find_successors();
    for (ActivityId id = 0; id < graph_.size(); ++id) {
      if (waits_left_[id] == 0) begin(id, {});
    }
    finish_over({});
    SimTime now;
    while (true) {
      auto flow = links_.next(now);
      if (events_.empty() && !flow) break;
      now = flow && (events_.empty() || flow->time < events_.top().time) ? flow->time
                                                                         : events_.top().time;
      while (!events_.empty() && events_.top().time == now) {
        const ActivityId id = events_.top().id;
        events_.pop();
        after_latency(id, now);
      }
      if (flow && flow->time > now) flow.reset();
      for (; flow; flow = links_.next_at(now)) {
        links_.finish(*flow);
        over_.push_back(flow->name);
      }
      finish_over(now);
    }
    CHECK(finished_ == graph_.size(), "what waits only for what comes before it gets its turn");
    times_.has_slowed = links_.has_slowed();
    times_.operations += links_.operations();
    return std::move(times_);
  }

 private:
  // The end of an activity's latency.
  struct Event {
    SimTime time;
    ActivityId id = 0;
    bool operator>(const Event& other) const {
      return time != other.time ? time > other.time : id > other.id;
    }
  };

  void find_successors() {
    const std::size_t n = graph_.size();
    waits_left_.resize(n);
    first_successor_.assign(n + 1, 0);
    successors_.resize(graph_.num_waits());
    for (ActivityId id = 0; id < n; ++id) {
      const auto waits = graph_.waits_of(id);
      waits_left_[id] = static_cast<std::uint32_t>(waits.size());
      for (const ActivityId before : waits) ++first_successor_[before + 1];
    }
    for (std::size_t i = 0; i < n; ++i) first_successor_[i + 1] += first_successor_[i];
    // Filled from behind, so that each first_successor_ ends where its own begin: backwards
    // through the readers keeps them ascending.
    for (std::size_t i = n; i-- > 0;) {
      const auto id = static_cast<ActivityId>(i);
      for (const ActivityId before : graph_.waits_of(id))
        successors_[--first_successor_[before + 1]] = id;
    }
    // Now first_successor_[i + 1] is where those of i begin.
  }

  [[nodiscard]] std::span<const ActivityId> successors_of(ActivityId id) const {
    const std::uint32_t begin = first_successor_[id + 1];
    const std::uint32_t end = id + 2 < first_successor_.size()
                                  ? first_successor_[id + 2]
                                  : static_cast<std::uint32_t>(successors_.size());
    return std::span(successors_).subspan(begin, end - begin);
  }

  void begin(ActivityId id, SimTime now) {
    const ActivityGraph::Work& work = graph_.work_of(id);
    if (work.latency.ns > 0) {
      events_.push({now + work.latency, id});
      times_.operations += 1;
    } else {
      after_latency(id, now);
    }
  }

  void after_latency(ActivityId id, SimTime now) {
    const ActivityGraph::Work& work = graph_.work_of(id);
    if (work.transfer.ns > 0) {
      links_.begin(id, graph_.uses_of(work), work.transfer, now);
    } else {
      over_.push_back(id);
    }
  }

  // Ends all that is over now, and what takes no time after it.
  void finish_over(SimTime now) {
    while (!over_.empty()) {
      const ActivityId id = over_.back();
      over_.pop_back();
      times_.ends[id] = now;
      times_.end = now;
      ++finished_;
      const auto successors = successors_of(id);
      times_.operations += 1 + successors.size();
      for (const ActivityId next : successors) {
        if (--waits_left_[next] == 0) begin(next, now);
      }
    }
  }

  const ActivityGraph& graph_;
  LinkSharing links_;
  ActivityTimes times_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<ActivityId> over_;                // Not ended yet.
  std::vector<std::uint32_t> waits_left_;       // By activity.
  std::vector<std::uint32_t> first_successor_;  // Of activity i at i + 1.
  std::vector<ActivityId> successors_;
  std::size_t finished_ = 0;
};

}  // namespace

ActivityId ActivityPattern::add(WorkId work, std::span<const ActivityId> waits_for) {
  works.push_back(work);
  waits.insert(waits.end(), waits_for.begin(), waits_for.end());
  first_wait.push_back(static_cast<std::uint32_t>(waits.size()));
  return static_cast<ActivityId>(works.size() - 1);
}

WorkId ActivityGraph::add_work(SimTime latency, SimTime transfer, std::span<const LinkUse> uses) {
  CHECK(works_.size() < kMostIds && uses_.size() + uses.size() < kMostIds, "ids do not run out");
  works_.push_back({.latency = latency,
                    .transfer = transfer,
                    .first_use = static_cast<std::uint32_t>(uses_.size()),
                    .num_uses = static_cast<std::uint32_t>(uses.size())});
  uses_.insert(uses_.end(), uses.begin(), uses.end());
  return static_cast<WorkId>(works_.size() - 1);
}

ActivityId ActivityGraph::add(WorkId work, std::span<const ActivityId> waits) {
  CHECK(size() < kMostIds && waits_.size() + waits.size() < kMostIds, "ids do not run out");
  const auto id = static_cast<ActivityId>(size());
  for (const ActivityId before : waits) {
    CHECK(before < id, "an activity waits only for earlier ones");
    waits_.push_back(before);
  }
  work_.push_back(work);
  first_wait_.push_back(static_cast<std::uint32_t>(waits_.size()));
  return id;
}

ActivityId ActivityGraph::append(const ActivityPattern& pattern,
                                 std::span<const ActivityId> first_waits) {
  const ActivityId first = add(pattern.works[0], first_waits);
  const std::size_t count = pattern.works.size();
  CHECK(size() + count < kMostIds && waits_.size() + pattern.waits.size() < kMostIds,
        "ids do not run out");
  const auto offset = static_cast<std::uint32_t>(waits_.size());
  work_.insert(work_.end(), pattern.works.begin() + 1, pattern.works.end());
  for (std::size_t i = 1; i < count; ++i) first_wait_.push_back(offset + pattern.first_wait[i + 1]);
  for (const ActivityId before : pattern.waits) waits_.push_back(first + before);
  return first;
}

void ActivityGraph::reserve(std::size_t activities, std::size_t waits) {
  work_.reserve(work_.size() + activities);
  first_wait_.reserve(first_wait_.size() + activities);
  waits_.reserve(waits_.size() + waits);
}

SimTime start_of(const ActivityGraph& graph, std::span<const SimTime> ends, ActivityId id) {
  SimTime start;
  for (const ActivityId before : graph.waits_of(id)) start = std::max(start, ends[before]);
  return start;
}

ActivityTimes run_in_order(const ActivityGraph& graph) {
  ActivityTimes times;
  times.ends.resize(graph.size());
  for (ActivityId id = 0; id < graph.size(); ++id) {
    const ActivityGraph::Work& work = graph.work_of(id);
    times.ends[id] = start_of(graph, times.ends, id) + work.latency + work.transfer;
    times.end = std::max(times.end, times.ends[id]);
  }
  times.operations = graph.size() + graph.num_waits();
  return times;
}

ActivityTimes run_by_events(const ActivityGraph& graph, std::span<const double> capacities) {
  return EventLoop(graph, capacities).run();
}

}  // namespace weir
