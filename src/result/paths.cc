#include "result/paths.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <tuple>

#include <fmt/format.h>

#include "plan/transfers.h"

namespace weir {
namespace {

using TaskIndex = std::size_t;  // Into StepTasks::tasks.

// The tasks of one step by node and device, and the plan's edges between them.
class StepTasks {
 public:
  StepTasks(const Timeline& timeline, std::int32_t step, const Plan& plan) : plan_(plan) {
    for (const TaskRecord& task : timeline.tasks) {
      if (task.step == step) tasks_.push_back(&task);
    }
    std::ranges::sort(tasks_, {}, key_of);
    producer_.resize(plan.values.size());
    for (std::size_t n = 0; n < plan.nodes.size(); ++n) {
      for (const ValueId output : plan.nodes[n].outputs)
        producer_[index_of(output)] = static_cast<NodeId>(n);
    }
  }

  [[nodiscard]] std::size_t size() const { return tasks_.size(); }
  [[nodiscard]] const TaskRecord& operator[](TaskIndex i) const { return *tasks_[i]; }

  [[nodiscard]] std::optional<TaskIndex> find(NodeId node, DeviceId device) const {
    const auto found = std::ranges::lower_bound(tasks_, std::tuple(node, device), {}, key_of);
    if (found == tasks_.end() || key_of(*found) != std::tuple(node, device)) return std::nullopt;
    return static_cast<TaskIndex>(found - tasks_.begin());
  }

  // The tasks from `first` on that are of the same node: the members of a communication.
  [[nodiscard]] TaskIndex end_of_node(TaskIndex first) const {
    TaskIndex end = first;
    while (end < size() && tasks_[end]->node == tasks_[first]->node) ++end;
    return end;
  }

  // Those that wrote what the task reads. A task reads only what its own device holds.
  [[nodiscard]] std::vector<TaskIndex> producers_of(TaskIndex i) const {
    std::vector<TaskIndex> producers;
    for (const ValueId input : plan_.at(tasks_[i]->node).inputs) {
      const std::optional<NodeId> producer = producer_[index_of(input)];
      if (!producer) continue;  // State from before the step.
      if (const auto found = find(*producer, tasks_[i]->device)) producers.push_back(*found);
    }
    return producers;
  }

 private:
  static std::tuple<NodeId, DeviceId> key_of(const TaskRecord* task) {
    return {task->node, task->device};
  }

  const Plan& plan_;
  std::vector<const TaskRecord*> tasks_;  // By node, then device.
  std::vector<std::optional<NodeId>> producer_;
};

std::string called(const TaskRecord& task) {
  return fmt::format("node {} ({}) on device {}", index_of(task.node), to_string(task.kind),
                     index_of(task.device));
}

bool is_comm(const TaskRecord& task) { return queue_of(task.kind) == Queue::comm; }

// Missing, repeated and invented tasks.
void compare_tasks(const StepTasks& tasks, const Plan& plan, std::vector<std::string>& problems) {
  for (TaskIndex i = 0; i < tasks.size(); ++i) {
    const TaskRecord& task = tasks[i];
    if (index_of(task.node) >= plan.nodes.size()) {
      problems.push_back(
          fmt::format("{}: found no such node, allowed below {}", called(task), plan.nodes.size()));
      continue;
    }
    const Node& node = plan.at(task.node);
    if (node.kind != task.kind) {
      problems.push_back(fmt::format("{}: found {}, allowed {} as planned", called(task),
                                     to_string(task.kind), to_string(node.kind)));
    }
    if (!std::ranges::binary_search(plan.at(node.devices), task.device))
      problems.push_back(fmt::format("{}: found on a device where it has no task", called(task)));
    if (i > 0 && tasks[i - 1].node == task.node && tasks[i - 1].device == task.device)
      problems.push_back(fmt::format("{}: found more than once", called(task)));
  }
  for (std::size_t n = 0; n < plan.nodes.size(); ++n) {
    for (const DeviceId device : plan.at(plan.nodes[n].devices)) {
      if (!tasks.find(static_cast<NodeId>(n), device)) {
        problems.push_back(fmt::format("node {} ({}) on device {}: missing", n,
                                       to_string(plan.nodes[n].kind), index_of(device)));
      }
    }
  }
}

void check_follows(const TaskRecord& task, const TaskRecord& before, std::string_view reason,
                   std::vector<std::string>& problems) {
  if (task.start >= before.end) return;
  problems.push_back(
      fmt::format("{}: found the start at {} ns, allowed at least {} ns, the end of "
                  "{} ({})",
                  called(task), task.start.ns, before.end.ns, called(before), reason));
}

template <class Visit>
void for_each_queue_pair(const StepTasks& tasks, const Plan& plan, const Visit& visit) {
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    const auto device = static_cast<DeviceId>(d);
    for (const auto* queue : {&plan.devices[d].compute, &plan.devices[d].comm}) {
      for (std::size_t k = 1; k < queue->size(); ++k)
        visit(*tasks.find((*queue)[k - 1], device), *tasks.find((*queue)[k], device));
    }
  }
}

// Which tasks begin their work together, and whom they wait for. A unit is a compute task, or those
// members of a communication that have the same partners; it begins when all it awaits have
// arrived.
struct Rendezvous {
  struct Unit {
    std::vector<TaskIndex> tasks;
    std::vector<TaskIndex> awaited;  // The tasks themselves included.
  };
  std::vector<Unit> units;
  std::vector<std::size_t> unit_of;  // By task.
};

void add_communication(const StepTasks& tasks, TaskIndex first,
                       const std::vector<std::vector<DeviceId>>& partners, Rendezvous& result) {
  std::map<std::vector<DeviceId>, std::size_t> known;
  for (std::size_t member = 0; member < partners.size(); ++member) {
    const auto [place, added] = known.try_emplace(partners[member], result.units.size());
    if (added) {
      auto& unit = result.units.emplace_back();
      for (const DeviceId partner : partners[member])
        unit.awaited.push_back(*tasks.find(tasks[first].node, partner));
    }
    result.units[place->second].tasks.push_back(first + member);
    result.unit_of.push_back(place->second);
  }
}

// The tasks must be those of the plan.
Rendezvous rendezvous_of(const StepTasks& tasks, const Plan& plan, const StepLengths& lengths) {
  Rendezvous result;
  for (TaskIndex i = 0; i < tasks.size(); i = result.unit_of.size()) {
    if (is_comm(tasks[i])) {
      add_communication(tasks, i, partners_of(plan, tasks[i].node, lengths), result);
    } else {
      result.unit_of.push_back(result.units.size());
      result.units.push_back({.tasks = {i}, .awaited = {i}});
    }
  }
  return result;
}

void check_arrivals(const StepTasks& tasks, const Rendezvous& rendezvous,
                    std::vector<std::string>& problems) {
  for (TaskIndex i = 0; i < tasks.size(); ++i) {
    if (!is_comm(tasks[i])) continue;
    SimTime arrival = tasks[i].start;
    for (const TaskIndex partner : rendezvous.units[rendezvous.unit_of[i]].awaited)
      arrival = std::max(arrival, tasks[partner].start);
    if (tasks[i].ready >= arrival) continue;
    problems.push_back(
        fmt::format("{}: found it ready at {} ns, allowed at least {} ns, when "
                    "its last partner arrived",
                    called(tasks[i]), tasks[i].ready.ns, arrival.ns));
  }
}

std::vector<std::string> problems_of(const StepTasks& tasks, const Plan& plan,
                                     const StepLengths& lengths) {
  std::vector<std::string> problems;
  compare_tasks(tasks, plan, problems);
  if (!problems.empty()) return problems;  // Edges are between tasks that are there.
  for_each_queue_pair(tasks, plan, [&](TaskIndex before, TaskIndex after) {
    check_follows(tasks[after], tasks[before], "before it in its queue", problems);
  });
  for (TaskIndex i = 0; i < tasks.size(); ++i) {
    for (const TaskIndex producer : tasks.producers_of(i))
      check_follows(tasks[i], tasks[producer], "whose output it reads", problems);
  }
  check_arrivals(tasks, rendezvous_of(tasks, plan, lengths), problems);
  return problems;
}

// How long each task works once all that it waits for is there.
std::vector<SimTime> durations_of(const StepTasks& tasks) {
  std::vector<SimTime> durations;
  for (TaskIndex i = 0; i < tasks.size(); ++i) durations.push_back(tasks[i].end - tasks[i].ready);
  return durations;
}

struct TaskEdge {
  TaskIndex from;
  TaskIndex to;
};

// From the end of a task to the begin of a unit that waits for it.
struct UnitEdge {
  TaskIndex from;
  std::size_t to;
};

// A unit waits for all that the tasks which it awaits need.
std::vector<UnitEdge> unit_edges(const Rendezvous& rendezvous, std::vector<TaskEdge> edges) {
  std::ranges::sort(edges, {}, &TaskEdge::to);
  std::vector<UnitEdge> result;
  for (std::size_t unit = 0; unit < rendezvous.units.size(); ++unit) {
    for (const TaskIndex awaited : rendezvous.units[unit].awaited) {
      for (auto edge = std::ranges::lower_bound(edges, awaited, {}, &TaskEdge::to);
           edge != edges.end() && edge->to == awaited; ++edge)
        result.push_back({.from = edge->from, .to = unit});
    }
  }
  std::ranges::sort(result, {}, &UnitEdge::from);
  return result;
}

// The longest chain, by finishing tasks in an order that the edges allow (Kahn). nullopt when the
// edges form a cycle.
std::optional<SimTime> longest_chain(const Rendezvous& rendezvous,
                                     std::span<const SimTime> durations,
                                     std::vector<TaskEdge> task_edges) {
  const std::vector<UnitEdge> edges = unit_edges(rendezvous, std::move(task_edges));
  const std::size_t count = rendezvous.units.size();
  std::vector<std::size_t> missing(count, 0);  // Edges whose source is unfinished.
  for (const UnitEdge& edge : edges) ++missing[edge.to];
  std::vector<std::size_t> startable;
  for (std::size_t unit = 0; unit < count; ++unit) {
    if (missing[unit] == 0) startable.push_back(unit);
  }
  std::vector<SimTime> start(count);
  SimTime longest;
  std::size_t finished = 0;
  while (!startable.empty()) {
    const std::size_t unit = startable.back();
    startable.pop_back();
    ++finished;
    for (const TaskIndex task : rendezvous.units[unit].tasks) {
      const SimTime end = start[unit] + durations[task];
      longest = std::max(longest, end);
      for (auto edge = std::ranges::lower_bound(edges, task, {}, &UnitEdge::from);
           edge != edges.end() && edge->from == task; ++edge) {
        start[edge->to] = std::max(start[edge->to], end);
        if (--missing[edge->to] == 0) startable.push_back(edge->to);
      }
    }
  }
  if (finished != count) return std::nullopt;
  return longest;
}

}  // namespace

std::vector<std::string> problems_of(const Timeline& timeline, std::int32_t step, const Plan& plan,
                                     const StepLengths& lengths) {
  return problems_of(StepTasks(timeline, step, plan), plan, lengths);
}

Result<PathSummary> summarize_paths(const Timeline& timeline, std::int32_t step, const Plan& plan,
                                    const StepLengths& lengths) {
  const StepTasks tasks(timeline, step, plan);
  if (const std::vector<std::string> problems = problems_of(tasks, plan, lengths);
      !problems.empty())
    return invalid_input(fmt::format("step {}: {}", step, join_problems(problems)));
  if (tasks.size() == 0) return PathSummary{};

  const Rendezvous rendezvous = rendezvous_of(tasks, plan, lengths);
  const std::vector<SimTime> durations = durations_of(tasks);
  std::vector<TaskEdge> edges;
  for (TaskIndex i = 0; i < tasks.size(); ++i) {
    for (const TaskIndex producer : tasks.producers_of(i)) edges.push_back({producer, i});
  }
  const std::optional<SimTime> data_path = longest_chain(rendezvous, durations, edges);
  for_each_queue_pair(tasks, plan, [&](TaskIndex before, TaskIndex after) {
    edges.push_back({before, after});
  });
  const std::optional<SimTime> critical_path =
      longest_chain(rendezvous, durations, std::move(edges));
  if (!data_path || !critical_path)
    return invalid_input(fmt::format("step {}: the plan's edges form a cycle", step));

  PathSummary summary;
  summary.data_path = *data_path;
  summary.critical_path = *critical_path;
  SimTime first_start = tasks[0].start;
  SimTime last_end = tasks[0].end;
  for (TaskIndex i = 0; i < tasks.size(); ++i) {
    first_start = std::min(first_start, tasks[i].start);
    last_end = std::max(last_end, tasks[i].end);
    if (!is_comm(tasks[i])) summary.serial_sum += durations[i];
  }
  for (TaskIndex first = 0, end = 0; first < tasks.size(); first = end) {
    end = tasks.end_of_node(first);
    if (is_comm(tasks[first]))
      summary.serial_sum += std::ranges::max(std::span(durations).subspan(first, end - first));
  }
  summary.makespan = last_end - first_start;
  return summary;
}

}  // namespace weir
