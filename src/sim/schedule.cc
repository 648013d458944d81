#include "sim/schedule.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <queue>
#include <tuple>

#include "base/check.h"
#include "sim/link_sharing.h"

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

// The task of `node` on `device`, which stands at `place` in the reader's group.
std::uint32_t task_on(const Plan& plan, const Schedule& schedule, const Node& reader, NodeId node,
                      std::uint32_t place, DeviceId device) {
  const std::uint32_t first = schedule.first_task[index_of(node)];
  const GroupId group = plan.at(node).devices;
  if (group == reader.devices) return first + place;
  const std::vector<DeviceId>& members = plan.at(group);
  const auto found = std::ranges::lower_bound(members, device);
  if (found == members.end() || *found != device) return kNoTask;
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
        const std::uint32_t task = task_on(plan_, schedule_, node, producer, place, device);
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

class EventLoop {
 public:
  EventLoop(const ValidPlan& plan, const StepCosts& costs, const Topology& topology)
      : valid_(plan),
        plan_(plan.plan()),
        costs_(costs),
        links_(topology),
        schedule_(empty_schedule(plan_)) {}

  Schedule run() {
    prepare();
    for (std::uint32_t task = 0; task < schedule_.tasks.size(); ++task) {
      if (missing_[task] == 0) arrive(task, SimTime{});
    }
    SimTime now;
    while (true) {
      const auto flow_end = links_.next(now);
      if (events_.empty() && !flow_end) break;
      if (flow_end && (events_.empty() || flow_end->time < events_.top().time)) {
        now = flow_end->time;
        links_.finish(*flow_end);
        end_flow(flow_end->name, now);
        continue;
      }
      const Event event = events_.top();
      events_.pop();
      now = event.time;
      handle(event);
    }
    CHECK(finished_ == schedule_.tasks.size(), "a valid plan runs to its end");
    return std::move(schedule_);
  }

 private:
  enum class What : std::uint8_t { task_over, flow_begins };
  struct Event {
    SimTime time;
    What what;
    std::uint32_t index;  // Of a task or a flow; tasks are in the order of node ids.
    bool operator>(const Event& other) const {
      return std::tuple(time, what, index) > std::tuple(other.time, other.what, other.index);
    }
  };

  void prepare() {
    const std::size_t num_tasks = schedule_.tasks.size();
    missing_.assign(num_tasks, 0);
    node_of_.resize(num_tasks);
    std::vector<std::pair<std::uint32_t, std::uint32_t>> edges;
    first_flow_.reserve(plan_.nodes.size() + 1);
    std::uint32_t flows = 0;
    for (std::size_t n = 0; n < plan_.nodes.size(); ++n) {
      const Node& node = plan_.nodes[n];
      const std::vector<DeviceId>& members = plan_.at(node.devices);
      const NodeClass& cost = costs_.of(static_cast<NodeId>(n));
      first_part_.push_back(static_cast<std::uint32_t>(arrivals_left_.size()));
      arrivals_left_.insert(arrivals_left_.end(), cost.part_sizes.begin(), cost.part_sizes.end());
      first_flow_.push_back(flows);
      flows += static_cast<std::uint32_t>(cost.flows.size());
      for (std::uint32_t place = 0; place < members.size(); ++place) {
        const std::uint32_t task = schedule_.first_task[n] + place;
        node_of_[task] = static_cast<NodeId>(n);
        for (const ValueId input : node.inputs) {
          const NodeId producer = valid_.producers()[index_of(input)];
          if (index_of(producer) == plan_.nodes.size()) continue;
          const std::uint32_t before =
              task_on(plan_, schedule_, node, producer, place, members[place]);
          if (before != kNoTask) edges.emplace_back(before, task);
        }
      }
    }
    first_flow_.push_back(flows);
    flow_node_.resize(flows);
    for (std::size_t n = 0; n < plan_.nodes.size(); ++n) {
      for (std::uint32_t f = first_flow_[n]; f < first_flow_[n + 1]; ++f)
        flow_node_[f] = static_cast<NodeId>(n);
    }
    add_queue_edges(edges);
    std::ranges::sort(edges);
    first_successor_.assign(num_tasks + 1, 0);
    for (const auto& [from, to] : edges) {
      ++first_successor_[from + 1];
      ++missing_[to];
      successors_.push_back(to);
    }
    for (std::size_t i = 0; i < num_tasks; ++i) first_successor_[i + 1] += first_successor_[i];
    parts_left_.resize(num_tasks);
  }

  void add_queue_edges(std::vector<std::pair<std::uint32_t, std::uint32_t>>& edges) const {
    for (std::size_t d = 0; d < plan_.devices.size(); ++d) {
      const auto device = static_cast<DeviceId>(d);
      for (const auto* queue : {&plan_.devices[d].compute, &plan_.devices[d].comm}) {
        for (std::size_t k = 1; k < queue->size(); ++k)
          edges.emplace_back(task_at((*queue)[k - 1], device), task_at((*queue)[k], device));
      }
    }
  }

  [[nodiscard]] std::uint32_t task_at(NodeId node, DeviceId device) const {
    const std::vector<DeviceId>& members = plan_.at(plan_.at(node).devices);
    const auto place = std::ranges::lower_bound(members, device) - members.begin();
    return schedule_.first_task[index_of(node)] + static_cast<std::uint32_t>(place);
  }

  void arrive(std::uint32_t task, SimTime now) {
    const NodeId id = node_of_[task];
    const std::uint32_t first = schedule_.first_task[index_of(id)];
    schedule_.tasks[task].start = now;
    if (queue_of(plan_.at(id).kind) == Queue::compute) {
      schedule_.tasks[task].ready = now;
      events_.push({now + costs_.of(id).tasks[task - first].time, What::task_over, task});
      return;
    }
    const std::uint32_t part = costs_.of(id).part[task - first];
    if (--arrivals_left_[first_part_[index_of(id)] + part] == 0) begin_part(id, part, now);
  }

  // A member is done when what it copies to itself and all flows that concern it are.
  void begin_part(NodeId id, std::uint32_t part, SimTime now) {
    const NodeClass& cost = costs_.of(id);
    const std::uint32_t first = schedule_.first_task[index_of(id)];
    for (std::uint32_t place = 0; place < cost.tasks.size(); ++place) {
      if (cost.part[place] != part) continue;
      schedule_.tasks[first + place].ready = now;
      parts_left_[first + place] = 1;
    }
    for (std::uint32_t f = 0; f < cost.flows.size(); ++f) {
      if (cost.part[cost.flows[f].members[0]] != part) continue;
      for (const std::uint32_t place : cost.flows[f].members) ++parts_left_[first + place];
      events_.push({now + cost.flows[f].latency, What::flow_begins, first_flow_[index_of(id)] + f});
    }
    for (std::uint32_t place = 0; place < cost.tasks.size(); ++place) {
      if (cost.part[place] == part)
        events_.push({now + cost.local[place], What::task_over, first + place});
    }
  }

  void handle(const Event& event) {
    switch (event.what) {
      case What::task_over:
        if (queue_of(plan_.at(node_of_[event.index]).kind) == Queue::compute) {
          finish(event.index, event.time);
        } else {
          finish_part(event.index, event.time);
        }
        return;
      case What::flow_begins:
        break;
    }
    const NodeId id = flow_node_[event.index];
    const Flow& flow = costs_.of(id).flows[event.index - first_flow_[index_of(id)]];
    if (flow.transfer.ns == 0) {
      end_flow(event.index, event.time);
    } else {
      links_.begin(event.index, flow.uses, flow.transfer, event.time);
    }
  }

  void end_flow(std::uint32_t index, SimTime now) {
    const NodeId id = flow_node_[index];
    const Flow& flow = costs_.of(id).flows[index - first_flow_[index_of(id)]];
    for (const std::uint32_t place : flow.members)
      finish_part(schedule_.first_task[index_of(id)] + place, now);
  }

  void finish_part(std::uint32_t task, SimTime now) {
    if (--parts_left_[task] == 0) finish(task, now);
  }

  void finish(std::uint32_t task, SimTime now) {
    schedule_.tasks[task].end = now;
    schedule_.end = std::max(schedule_.end, now);
    ++finished_;
    for (std::uint32_t i = first_successor_[task]; i < first_successor_[task + 1]; ++i) {
      if (--missing_[successors_[i]] == 0) arrive(successors_[i], now);
    }
  }

  const ValidPlan& valid_;
  const Plan& plan_;
  const StepCosts& costs_;
  LinkSharing links_;
  Schedule schedule_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<NodeId> node_of_;                 // By task, as the next three.
  std::vector<std::uint32_t> missing_;          // Predecessors not over yet.
  std::vector<std::uint32_t> first_successor_;  // Into successors_.
  std::vector<std::uint32_t> parts_left_;       // Of communications under way.
  std::vector<std::uint32_t> successors_;
  std::vector<std::uint32_t> first_part_;  // By node, as first_flow_.
  std::vector<std::uint32_t> first_flow_;
  std::vector<std::uint32_t> arrivals_left_;  // By part.
  std::vector<NodeId> flow_node_;             // By flow.
  std::size_t finished_ = 0;
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
    const auto repeated = std::ranges::unique(links);
    links.erase(repeated.begin(), repeated.end());
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
  return EventLoop(plan, costs, topology).run();
}

}  // namespace weir
