// What running costs beside arithmetic: starting an op, a barrier of a device's cores, a step, and
// handing data from one device to another.

#include <fmt/format.h>
#include <chrono>
#include <thread>

#include "bench/engine/figures.h"
#include "bench/engine/sections.h"
#include "kernel/team.h"
#include "measure/calibrate.h"
#include "measure/device_teams.h"
#include "measure/executor_costs.h"
#include "report/table.h"

namespace weir::bench {
namespace {

constexpr int kRepetitions = 5;

double seconds_of_barrier(Team& team) {
  constexpr int kBarriers = 4000;
  const std::function<void(int)> nothing = [](int) {};
  std::vector<double> seconds;
  for (int i = 0; i < kBarriers; ++i) {
    const auto start = std::chrono::steady_clock::now();
    team.run(nothing);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return median(std::move(seconds));
}

std::string microseconds(std::vector<double> seconds) {
  for (double& value : seconds) value *= kMicro;
  return to_string(summary_of(std::move(seconds)));
}

}  // namespace

Result<std::string> costs_section(const SectionOptions& options) {
  const auto cluster = local_cluster({.num_devices = {}, .cores_per_device = 1});
  if (!cluster) return tl::unexpected(cluster.error());
  std::vector<ExecDevice> devices;
  std::vector<int> all;
  for (const std::vector<int>& cores : cores_of(*cluster)) {
    devices.push_back({.name = fmt::format("cpu{}", devices.size()), .cores = cores});
    all.insert(all.end(), cores.begin(), cores.end());
  }
  std::vector<double> barriers;
  std::vector<double> tasks;
  std::vector<double> steps;
  std::vector<double> short_steps;
  std::vector<double> messages;
  std::vector<double> exchanges;
  for (int i = 0; i < kRepetitions; ++i) {
    options.progress(fmt::format("costs: {} of {}", i + 1, kRepetitions));
    std::thread([&] {
      Team team(static_cast<int>(all.size()), all);
      team.pin_caller();
      barriers.push_back(seconds_of_barrier(team));
    }).join();
    const auto costs = measure_executor(devices);
    if (!costs) return tl::unexpected(costs.error());
    tasks.push_back(costs->task.value);
    steps.push_back(costs->step.value);
    short_steps.push_back(costs->short_step.value);
    if (!costs->transfers) continue;
    if (!costs->transfers->messages.empty())
      messages.push_back(costs->transfers->messages.front().us / kMicro);
    exchanges.push_back(costs->transfers->exchanges.front().times.front().us / kMicro);
  }
  Table table{.columns = {{"what", Align::left}, {"us"}, {"asked for"}}, .rows = {}};
  table.rows.push_back(
      {{"an op that has next to nothing to do, from end to end", microseconds(tasks), "2"}});
  table.rows.push_back(
      {{fmt::format("a barrier of a device's {} cores", all.size()), microseconds(barriers), "2"}});
  if (!exchanges.empty()) {
    table.rows.push_back({{"a transfer of 2 KB between two devices, both ready, each way at once",
                           microseconds(exchanges), "2"}});
  }
  if (!messages.empty()) {
    table.rows.push_back({{"a message of 2 KB, from memory, to a device that waits for it",
                           microseconds(messages), ""}});
  }
  table.rows.push_back({{"a step of microseconds beside its ops: sampling, the next plan",
                         microseconds(short_steps), ""}});
  table.rows.push_back(
      {{"the same of a step of milliseconds, whose weights leave nothing else in "
        "the caches",
        microseconds(steps), ""}});
  return fmt::format("Medians of {} repetitions (least..most).\n\n{}\n", kRepetitions,
                     render_markdown(table));
}

}  // namespace weir::bench
