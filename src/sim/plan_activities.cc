#include "sim/plan_activities.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "sim/expand.h"

namespace weir {
namespace {

constexpr std::uint32_t kNoEarlierTask = std::numeric_limits<std::uint32_t>::max();

// Calls `visit` with every task that the task of node `id` on its member `place` waits for.
template <class Visit>
void for_each_input_task(const ValidPlan& valid, std::span<const std::uint32_t> first_task,
                         NodeId id, std::uint32_t place, const Visit& visit) {
  const Plan& plan = valid.plan();
  const Node& node = plan.at(id);
  const DeviceId device = plan.at(node.devices)[place];
  for (const ValueId input : node.inputs) {
    const NodeId producer = valid.producers()[index_of(input)];
    if (index_of(producer) == plan.nodes.size()) continue;  // State from before the step.
    const std::uint32_t first = first_task[index_of(producer)];
    if (plan.at(producer).devices == node.devices) {
      visit(first + place);
      continue;
    }
    const std::vector<DeviceId>& members = plan.at(plan.at(producer).devices);
    const auto found = std::ranges::lower_bound(members, device);
    if (found != members.end() && *found == device)
      visit(first + static_cast<std::uint32_t>(found - members.begin()));
  }
}

// What members of a node do together, and by themselves once they have met.
struct PartPattern {
  ActivityPattern pattern;
  std::vector<std::uint32_t> members;  // Places in the node's group,
  std::vector<ActivityId> ends;        // and with what each is done.
};

// By node: it reads what no node of the step has written, or nothing.
std::vector<bool> starts_of(const ValidPlan& valid) {
  const Plan& plan = valid.plan();
  std::vector<bool> starts;
  for (const Node& node : plan.nodes) {
    starts.push_back(std::ranges::none_of(node.inputs, [&](ValueId input) {
      return index_of(valid.producers()[index_of(input)]) < plan.nodes.size();
    }));
  }
  return starts;
}

// By node: no node reads what it writes.
std::vector<bool> ends_of(const ValidPlan& valid) {
  const Plan& plan = valid.plan();
  std::vector<bool> ends(plan.nodes.size(), true);
  for (const Node& node : plan.nodes) {
    for (const ValueId input : node.inputs) {
      const NodeId producer = valid.producers()[index_of(input)];
      if (index_of(producer) < plan.nodes.size()) ends[index_of(producer)] = false;
    }
  }
  return ends;
}

// Where the messages of flows come from.
struct Expanding {
  const Machine& machine;
  const StepLengths& lengths;
  const CollectiveOptions& options;
};

class Builder {
 public:
  Builder(const ValidPlan& plan, const StepCosts& costs, std::optional<Expanding> expanding)
      : valid_(plan),
        plan_(plan.plan()),
        costs_(costs),
        expanding_(expanding),
        moment_(made_.graph.add_work(SimTime{})) {}

  Result<PlanActivities> run(std::uint32_t repetitions = 1, SimTime between_steps = {}) {
    if (auto status = prepare(repetitions); !status) return tl::unexpected(status.error());
    last_.assign(plan_.devices.size(), {kNoEarlierTask, kNoEarlierTask});
    goes_on_.resize(plan_.microbatches.size());
    const WorkId host = made_.graph.add_work(between_steps);
    const std::vector<bool> starts = starts_of(valid_);
    const std::vector<bool> ends = ends_of(valid_);
    for (std::uint32_t repetition = 0; repetition < repetitions; ++repetition) {
      first_task_ = repetition * made_.first_task.back();
      for (const NodeId id : valid_.topological_order()) add_node(id, starts[index_of(id)]);
      if (repetition + 1 < repetitions) end_repetition(host, ends);
    }
    return std::move(made_);
  }

 private:
  // Patterns of all nodes, and room for what they become.
  Status prepare(std::uint32_t repetitions) {
    std::uint32_t tasks = 0;
    std::int64_t activities = 0;
    std::int64_t waits = 0;
    made_.first_task.reserve(plan_.nodes.size() + 1);
    for (std::size_t n = 0; n < plan_.nodes.size(); ++n) {
      const auto id = static_cast<NodeId>(n);
      const auto parts = patterns_of(id);
      if (!parts) return tl::unexpected(parts.error());
      for (const PartPattern& part : **parts) {
        activities += std::ssize(part.pattern.works);
        waits += std::ssize(part.pattern.waits);
      }
      made_.first_task.push_back(tasks);
      const std::size_t members = plan_.at(plan_.nodes[n].devices).size();
      tasks += static_cast<std::uint32_t>(members);
      waits += static_cast<std::int64_t>(members * (plan_.nodes[n].inputs.size() + 1));
      if (expanding_ && activities > kMostActivities) {
        return invalid_input(fmt::format(
            "expand_collectives: found {} messages and tasks up to node {} of {}, allowed {}",
            activities, n, plan_.nodes.size(), kMostActivities));
      }
    }
    made_.first_task.push_back(tasks);
    const auto times = static_cast<std::size_t>(repetitions);
    made_.begins.resize(times * tasks);
    made_.ends.resize(times * tasks);
    made_.graph.reserve(times * static_cast<std::size_t>(activities),
                        times * static_cast<std::size_t>(waits));
    return {};
  }

  // Nodes of one class have the same patterns.
  Result<const std::vector<PartPattern>*> patterns_of(NodeId id) {
    const NodeClass& cost = costs_.of(id);
    const auto [place, added] = patterns_.try_emplace(&cost);
    if (added) {
      auto made = queue_of(plan_.at(id).kind) == Queue::compute ? compute_patterns(cost)
                                                                : communication_patterns(cost);
      if (!made) return tl::unexpected(made.error());
      place->second = *std::move(made);
    }
    return &place->second;
  }

  Result<std::vector<PartPattern>> compute_patterns(const NodeClass& cost) {
    std::vector<PartPattern> parts(cost.tasks.size());
    for (std::uint32_t place = 0; place < parts.size(); ++place) {
      parts[place].members = {place};
      parts[place].ends = {
          parts[place].pattern.add(made_.graph.add_work(cost.tasks[place].time), {})};
    }
    return parts;
  }

  Result<std::vector<PartPattern>> communication_patterns(const NodeClass& cost) {
    std::vector<PartPattern> parts(cost.part_sizes.size());
    std::vector<std::vector<std::uint32_t>> flows(parts.size());
    for (std::uint32_t f = 0; f < cost.flows.size(); ++f)
      flows[cost.part[cost.flows[f].members[0]]].push_back(f);
    std::vector<SimTime> alone = cost.local;
    for (const Flow& flow : cost.flows) {
      for (const std::uint32_t place : flow.members)
        alone[place] = std::max(alone[place], flow.latency + flow.transfer);
    }
    for (std::uint32_t place = 0; place < cost.tasks.size(); ++place) {
      parts[cost.part[place]].members.push_back(place);
      made_.flows_meet = made_.flows_meet || cost.tasks[place].time > alone[place];
    }
    std::vector<CommCost> algorithms;
    std::vector<CollectiveShape> shapes;
    if (expanding_) {
      if (auto status = find_algorithms(cost, shapes, algorithms); !status)
        return tl::unexpected(status.error());
    }
    for (std::size_t p = 0; p < parts.size(); ++p) {
      // A collective's group is a part of its own.
      if (!shapes.empty() && flows[p].size() == 1) {
        auto expanded = expand_collective(expanding_->machine.topology(), shapes[flows[p][0]],
                                          algorithms[flows[p][0]], made_.graph);
        if (!expanded) return tl::unexpected(expanded.error());
        parts[p].pattern = std::move(expanded->pattern);
        parts[p].ends = std::move(expanded->ends);
      } else {
        fill_part(cost, flows[p], parts[p]);
      }
    }
    return parts;
  }

  // Of the flows of a node, if they are collectives.
  Status find_algorithms(const NodeClass& cost, std::vector<CollectiveShape>& shapes,
                         std::vector<CommCost>& algorithms) const {
    const OpKind kind = plan_.at(cost.example).kind;
    if (kind == OpKind::copy || kind == OpKind::kv_copy) return {};
    for (CollectiveShape& shape : collectives_of(plan_, cost.example, expanding_->lengths)) {
      auto found = collective_cost(expanding_->machine.topology(), shape, expanding_->options);
      if (!found) return tl::unexpected(found.error());
      if (to_sim_time(found->latency).ns + to_sim_time(found->transfer).ns == 0) continue;
      shapes.push_back(std::move(shape));
      algorithms.push_back(*std::move(found));
    }
    CHECK(shapes.size() == cost.flows.size(), "costs were made for the same collectives");
    return {};
  }

  // One activity per flow. Where it is one flow for all, it waits for the members itself.
  void fill_part(const NodeClass& cost, std::span<const std::uint32_t> flows, PartPattern& part) {
    const auto work_of = [&](const Flow& flow) {
      return made_.graph.add_work(flow.latency, flow.transfer, flow.uses);
    };
    const bool all_together =
        flows.size() == 1 && cost.flows[flows[0]].members.size() == part.members.size() &&
        std::ranges::all_of(part.members, [&](auto place) { return cost.local[place].ns == 0; });
    const ActivityId met =
        part.pattern.add(all_together ? work_of(cost.flows[flows[0]]) : moment_, {});
    if (all_together) {
      part.ends.assign(part.members.size(), met);
      return;
    }
    std::vector<std::vector<ActivityId>> concern(cost.tasks.size());
    for (const std::uint32_t f : flows) {
      const ActivityId id = part.pattern.add(work_of(cost.flows[f]), {&met, 1});
      for (const std::uint32_t place : cost.flows[f].members) concern[place].push_back(id);
    }
    for (const std::uint32_t place : part.members) {
      std::vector<ActivityId>& ends = concern[place];
      if (cost.local[place].ns > 0)
        ends.push_back(part.pattern.add(made_.graph.add_work(cost.local[place]), {&met, 1}));
      if (ends.empty()) ends.push_back(met);
      part.ends.push_back(ends.size() == 1 ? ends[0] : part.pattern.add(moment_, ends));
    }
  }

  // What microbatches wait for in the next repetition.
  void end_repetition(WorkId host, const std::vector<bool>& ends) {
    for (std::size_t m = 0; m < goes_on_.size(); ++m) {
      waits_.clear();
      for (std::size_t n = 0; n < plan_.nodes.size(); ++n) {
        if (!ends[n] || static_cast<std::size_t>(plan_.nodes[n].microbatch) != m) continue;
        for (std::uint32_t task = made_.first_task[n]; task < made_.first_task[n + 1]; ++task)
          waits_.push_back(made_.ends[first_task_ + task]);
      }
      std::ranges::sort(waits_);
      waits_.erase(std::unique(waits_.begin(), waits_.end()), waits_.end());
      goes_on_[m] = made_.graph.add(host, waits_);
    }
  }

  void add_node(NodeId id, bool starts) {
    const Node& node = plan_.at(id);
    const std::vector<DeviceId>& members = plan_.at(node.devices);
    const std::uint32_t first_task = first_task_ + made_.first_task[index_of(id)];
    const std::optional<ActivityId>& goes_on = goes_on_[static_cast<std::size_t>(node.microbatch)];
    const std::size_t queue = queue_of(node.kind) == Queue::comm ? 1 : 0;
    for (const PartPattern& part : patterns_.find(&costs_.of(id))->second) {
      waits_.clear();
      if (starts && goes_on) waits_.push_back(*goes_on);
      for (const std::uint32_t place : part.members) {
        const std::uint32_t before = last_[index_of(members[place])][queue];
        if (before != kNoEarlierTask) waits_.push_back(made_.ends[before]);
        for_each_input_task(valid_, made_.first_task, id, place, [&](std::uint32_t task) {
          waits_.push_back(made_.ends[first_task_ + task]);
        });
      }
      if (waits_.size() > 1) {
        std::ranges::sort(waits_);
        waits_.erase(std::unique(waits_.begin(), waits_.end()), waits_.end());
      }
      const ActivityId first = made_.graph.append(part.pattern, waits_);
      for (std::size_t i = 0; i < part.members.size(); ++i) {
        const std::uint32_t task = first_task + part.members[i];
        made_.begins[task] = first;
        made_.ends[task] = first + part.ends[i];
        last_[index_of(members[part.members[i]])][queue] = task;
      }
    }
  }

  const ValidPlan& valid_;
  const Plan& plan_;
  const StepCosts& costs_;
  std::optional<Expanding> expanding_;
  PlanActivities made_;
  WorkId moment_;  // No time.
  std::map<const NodeClass*, std::vector<PartPattern>> patterns_;
  std::uint32_t first_task_ = 0;                    // Of the repetition at hand.
  std::vector<std::optional<ActivityId>> goes_on_;  // By microbatch; nullopt in the first one.
  std::vector<std::array<std::uint32_t, 2>> last_;  // Tasks, by device, then queue.
  std::vector<ActivityId> waits_;
};

}  // namespace

PlanActivities to_activities(const ValidPlan& plan, const StepCosts& costs) {
  auto made = Builder(plan, costs, std::nullopt).run();
  CHECK(made.has_value(), "a plan's own tasks are not too many");
  return *std::move(made);
}

PlanActivities to_repeated_activities(const ValidPlan& plan, const StepCosts& costs,
                                      std::uint32_t repetitions, SimTime between_steps) {
  auto made = Builder(plan, costs, std::nullopt).run(repetitions, between_steps);
  CHECK(made.has_value(), "a plan's own tasks are not too many");
  return *std::move(made);
}

Result<PlanActivities> to_expanded_activities(const ValidPlan& plan, const StepCosts& costs,
                                              const Machine& machine, const StepLengths& lengths,
                                              const CollectiveOptions& options) {
  return Builder(plan, costs, Expanding{.machine = machine, .lengths = lengths, .options = options})
      .run();
}

Schedule schedule_of(const ValidPlan& plan, const PlanActivities& activities,
                     const ActivityTimes& times) {
  Schedule schedule;
  schedule.first_task = activities.first_task;
  schedule.tasks.resize(activities.ends.size());
  schedule.end = times.end;
  std::vector<std::array<SimTime, 2>> free_at(plan->devices.size());  // By device, then queue.
  for (const NodeId id : plan.topological_order()) {
    const Node& node = plan->at(id);
    const std::vector<DeviceId>& members = plan->at(node.devices);
    const std::size_t queue = queue_of(node.kind) == Queue::comm ? 1 : 0;
    for (std::uint32_t place = 0; place < members.size(); ++place) {
      const std::uint32_t index = activities.first_task[index_of(id)] + place;
      TaskTimes& task = schedule.tasks[index];
      SimTime& free = free_at[index_of(members[place])][queue];
      task.start = free;
      for_each_input_task(plan, activities.first_task, id, place, [&](std::uint32_t before) {
        task.start = std::max(task.start, schedule.tasks[before].end);
      });
      task.ready = start_of(activities.graph, times.ends, activities.begins[index]);
      task.end = times.ends[activities.ends[index]];
      free = task.end;
    }
  }
  return schedule;
}

}  // namespace weir
