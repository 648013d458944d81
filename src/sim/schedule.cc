#include "sim/schedule.h"

#include <algorithm>
#include <array>
#include <limits>
#include <tuple>

#include "sim/activities.h"
#include "sim/plan_activities.h"

namespace weir {
namespace {

Schedule empty_schedule(const Plan& plan) {
  Schedule schedule;
  schedule.first_task.reserve(plan.nodes.size() + 1);
  std::uint32_t tasks = 0;
  for (const Node& node : plan.nodes) {
    schedule.first_task.push_back(tasks);
    tasks += static_cast<std::uint32_t>(plan.at(node.devices).size());
  }
  schedule.first_task.push_back(tasks);
  schedule.tasks.resize(tasks);
  return schedule;
}

constexpr std::uint32_t kNoTask = std::numeric_limits<std::uint32_t>::max();

// A member of a node's group.
struct Member {
  const Node& node;
  std::uint32_t place;
  DeviceId device;
};

// The task of `producer` on the device of `reader`; kNoTask where it has none there.
std::uint32_t task_on(const Plan& plan, const Schedule& schedule, NodeId producer,
                      const Member& reader) {
  const std::uint32_t first = schedule.first_task[index_of(producer)];
  const GroupId group = plan.at(producer).devices;
  if (group == reader.node.devices) return first + reader.place;
  const std::vector<DeviceId>& members = plan.at(group);
  const auto found = std::ranges::lower_bound(members, reader.device);
  if (found == members.end() || *found != reader.device) return kNoTask;
  return first + static_cast<std::uint32_t>(found - members.begin());
}

class StaticPass {
 public:
  StaticPass(const ValidPlan& plan, const StepCosts& costs)
      : valid_(plan), plan_(plan.plan()), costs_(costs), schedule_(empty_schedule(plan_)) {
    for (auto& free : free_at_) free.resize(plan_.devices.size());
  }

  Schedule run() {
    for (const NodeId id : valid_.topological_order()) place(id);
    return std::move(schedule_);
  }

 private:
  void place(NodeId id) {
    const Node& node = plan_.at(id);
    const std::vector<DeviceId>& members = plan_.at(node.devices);
    const NodeClass& cost = costs_.of(id);
    const std::uint32_t first = schedule_.first_task[index_of(id)];
    const bool is_comm = queue_of(node.kind) == Queue::comm;
    std::vector<SimTime>& free_at = free_at_[is_comm ? 1 : 0];
    last_arrival_.assign(cost.part_sizes.size(), SimTime{});
    for (std::uint32_t place = 0; place < members.size(); ++place) {
      const DeviceId device = members[place];
      SimTime start = free_at[index_of(device)];
      for (const ValueId input : node.inputs) {
        const NodeId producer = valid_.producers()[index_of(input)];
        if (index_of(producer) == plan_.nodes.size()) continue;  // State from before the step.
        const std::uint32_t task = task_on(plan_, schedule_, producer, {node, place, device});
        if (task != kNoTask) start = std::max(start, schedule_.tasks[task].end);
      }
      schedule_.tasks[first + place].start = start;
      if (is_comm) {
        SimTime& last = last_arrival_[cost.part[place]];
        last = std::max(last, start);
      }
    }
    for (std::uint32_t place = 0; place < members.size(); ++place) {
      TaskTimes& task = schedule_.tasks[first + place];
      task.ready = is_comm ? last_arrival_[cost.part[place]] : task.start;
      task.end = task.ready + cost.tasks[place].time;
      free_at[index_of(members[place])] = task.end;
      schedule_.end = std::max(schedule_.end, task.end);
    }
  }

  const ValidPlan& valid_;
  const Plan& plan_;
  const StepCosts& costs_;
  Schedule schedule_;
  std::array<std::vector<SimTime>, 2> free_at_;  // By queue, then device.
  std::vector<SimTime> last_arrival_;            // By part of the node at hand.
};

}  // namespace

Schedule schedule_statically(const ValidPlan& plan, const StepCosts& costs) {
  return StaticPass(plan, costs).run();
}

bool shares_links(const Plan& plan, const StepCosts& costs, const Topology& topology,
                  const Schedule& schedule) {
  // A device's own links carry one node at a time, for its communication queue does.
  struct Use {
    LinkId link;
    SimTime begin;
    SimTime end;
  };
  std::vector<Use> uses;
  for (std::size_t n = 0; n < plan.nodes.size(); ++n) {
    const auto id = static_cast<NodeId>(n);
    if (queue_of(plan.nodes[n].kind) == Queue::compute) continue;
    const NodeClass& cost = costs.of(id);
    if (!cost.uses_shared_links) continue;
    const std::span<const TaskTimes> tasks = schedule.of(id);
    std::vector<LinkId> links;
    for (const Flow& flow : cost.flows) {
      for (const LinkUse& use : flow.uses) {
        if (topology.is_shared(use.link)) links.push_back(use.link);
      }
    }
    std::ranges::sort(links);
    links.erase(std::unique(links.begin(), links.end()), links.end());
    SimTime begin = tasks[0].ready;
    SimTime end;
    for (const TaskTimes& task : tasks) {
      begin = std::min(begin, task.ready);
      end = std::max(end, task.end);
    }
    for (const LinkId link : links) uses.push_back({.link = link, .begin = begin, .end = end});
  }
  std::ranges::sort(uses, {},
                    [](const Use& use) { return std::tuple(use.link, use.begin, use.end); });
  for (std::size_t i = 1; i < uses.size(); ++i) {
    if (uses[i].link != uses[i - 1].link) continue;
    if (uses[i].begin < uses[i - 1].end) return true;
    uses[i].end = std::max(uses[i].end, uses[i - 1].end);
  }
  return false;
}

Schedule schedule_by_events(const ValidPlan& plan, const StepCosts& costs,
                            const Topology& topology) {
  const PlanActivities activities = to_activities(plan, costs);
  return schedule_of(plan, activities, run_by_events(activities.graph, topology.capacities()));
}

}  // namespace weir
