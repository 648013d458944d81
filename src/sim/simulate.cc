#include "sim/simulate.h"

#include <fmt/format.h>

#include "sim/activities.h"
#include "sim/plan_activities.h"
#include "sim/schedule.h"
#include "sim/step_costs.h"

namespace weir {
namespace {

bool wants_events(SimulationMethod method, bool links_shared) {
  return method == SimulationMethod::event_loop ||
         (method == SimulationMethod::automatic && links_shared);
}

Schedule play(const ValidPlan& plan, const PlanActivities& activities, const Machine& machine,
              bool by_events) {
  return schedule_of(plan, activities,
                     by_events ? run_by_events(activities.graph, machine.topology().capacities())
                               : run_in_order(activities.graph));
}

std::vector<TaskRecord> records_of(const Plan& plan, const StepCosts& costs,
                                   const Schedule& schedule) {
  std::vector<TaskRecord> records;
  records.reserve(schedule.tasks.size());
  for (std::size_t n = 0; n < plan.nodes.size(); ++n) {
    const auto id = static_cast<NodeId>(n);
    const Node& node = plan.nodes[n];
    const std::vector<DeviceId>& members = plan.at(node.devices);
    for (std::size_t place = 0; place < members.size(); ++place) {
      const TaskTimes& times = schedule.of(id)[place];
      const TaskCost& cost = costs.of(id).tasks[place];
      records.push_back({.step = 0,
                         .node = id,
                         .device = members[place],
                         .kind = node.kind,
                         .layer = node.layer,
                         .microbatch = node.microbatch,
                         .start = times.start,
                         .ready = times.ready,
                         .end = times.end,
                         .flops = cost.flops,
                         .bytes = cost.bytes});
    }
  }
  return records;
}

std::vector<double> energy_of(const Plan& plan, const Machine& machine, const StepCosts& costs,
                              SimTime makespan) {
  std::vector<double> joules;
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    joules.push_back(machine.model_of(static_cast<DeviceId>(d)).resting_watts() *
                     to_seconds(makespan));
  }
  for (std::size_t n = 0; n < plan.nodes.size(); ++n) {
    const NodeClass& cost = costs.of(static_cast<NodeId>(n));
    const std::vector<DeviceId>& members = plan.at(plan.nodes[n].devices);
    for (std::size_t place = 0; place < members.size(); ++place)
      joules[index_of(members[place])] += cost.tasks[place].joules;
  }
  return joules;
}

}  // namespace

Status check_step_lengths(const Plan& plan, const StepLengths& lengths) {
  if (lengths.size() != plan.limits.size()) {
    return invalid_input(fmt::format("lengths: found {} requests, allowed {} as in the plan",
                                     lengths.size(), plan.limits.size()));
  }
  for (std::size_t r = 0; r < lengths.size(); ++r) {
    const RequestLengths& found = lengths[r];
    const RequestLengths& limit = plan.limits[r];
    if (found.q_len < 0 || found.q_len > limit.q_len) {
      return invalid_input(
          fmt::format("lengths[{}].q_len: found {}, allowed 0..{}", r, found.q_len, limit.q_len));
    }
    if (found.kv_len < found.q_len || found.kv_len > limit.kv_len) {
      return invalid_input(fmt::format("lengths[{}].kv_len: found {}, allowed {}..{}", r,
                                       found.kv_len, found.q_len, limit.kv_len));
    }
  }
  return {};
}

Status check_simulation(const Plan& plan, const Machine& machine, const StepLengths& lengths) {
  if (auto status = check_step_lengths(plan, lengths); !status) return status;
  const std::size_t available = machine.cluster().devices.size();
  if (plan.devices.size() > available) {
    return invalid_input(fmt::format("cluster {}: found {} devices, allowed at least {} as planned",
                                     machine.cluster().name, available, plan.devices.size()));
  }
  return {};
}

SimulatedStep step_without_tasks(const Plan& plan, const StepLengths& lengths, SimTime end) {
  SimulatedStep step;
  bool prefill = false;
  std::int64_t new_tokens = 0;
  for (const RequestLengths& request : lengths) {
    prefill = prefill || request.q_len > 1;
    if (request.q_len > 0 && plan.logits != LogitsWanted::none) ++new_tokens;
  }
  for (const PlanDevice& device : plan.devices) step.timeline.devices.push_back(device.name);
  step.timeline.end = end;
  step.timeline.steps.push_back(
      {.prefill = prefill, .new_tokens = new_tokens, .start = {}, .end = end});
  return step;
}

double price_of(const Plan& plan, const Machine& machine, SimTime makespan) {
  constexpr double kSecondsPerHour = 3600;
  double usd = 0;
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    const DeviceType& type = machine.cluster().type_of(static_cast<DeviceId>(d));
    usd += type.usd_per_hour.value_or(0) * to_seconds(makespan) / kSecondsPerHour;
  }
  return usd;
}

Result<SimulatedStep> simulate(const ValidPlan& plan, const Machine& machine,
                               const StepLengths& lengths, const SimulateOptions& options) {
  if (auto status = check_simulation(plan.plan(), machine, lengths); !status)
    return tl::unexpected(status.error());
  const auto costs = StepCosts::make(plan, machine, lengths, options.collectives);
  if (!costs) return tl::unexpected(costs.error());

  Schedule schedule = schedule_statically(plan, *costs);
  const bool links_shared = shares_links(plan.plan(), *costs, machine.topology(), schedule);
  if (options.expand_collectives) {
    schedule = {};  // Two are not needed at one time.
    const auto made = to_expanded_activities(plan, *costs, machine, lengths, options.collectives);
    if (!made) return tl::unexpected(made.error());
    schedule =
        play(plan, *made, machine, wants_events(options.method, links_shared || made->flows_meet));
  } else if (wants_events(options.method, links_shared)) {
    schedule = {};
    schedule = schedule_by_events(plan, *costs, machine.topology());
  }
  SimulatedStep step = step_without_tasks(plan.plan(), lengths, schedule.end);
  step.links_shared = links_shared;
  if (options.record_tasks) step.timeline.tasks = records_of(plan.plan(), *costs, schedule);
  step.joules = energy_of(plan.plan(), machine, *costs, schedule.end);
  step.usd = price_of(plan.plan(), machine, schedule.end);
  return step;
}

Result<SimulatedStep> simulate(const ValidPlan& plan, const ClusterSpec& cluster,
                               const StepLengths& lengths, const SimulateOptions& options) {
  const auto machine = Machine::make(cluster);
  if (!machine) return tl::unexpected(machine.error());
  return simulate(plan, *machine, lengths, options);
}

}  // namespace weir
