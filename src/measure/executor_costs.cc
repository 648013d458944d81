#include "measure/executor_costs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"
#include "measure/device_teams.h"
#include "measure/thin_run.h"
#include "measure/transfer_times.h"

namespace weir {
namespace {

constexpr double kMicrosecond = 1e-6;

// Beside its tasks: what a step takes from one token to the next.
double median_rest(const Timeline& timeline) {
  std::vector<double> in_tasks(timeline.steps.size());
  for (const TaskRecord& task : timeline.tasks) {
    in_tasks[static_cast<std::size_t>(task.step)] += to_seconds(task.end - task.start);
  }
  const std::vector<SimTime>& tokens = timeline.requests.front().token_times;
  std::vector<double> rests;
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    rests.push_back(to_seconds(tokens[i] - tokens[i - 1]) - in_tasks[i]);
  }
  return median(std::move(rests));
}

Status measure_single(const std::vector<ExecDevice>& devices, ExecutorCosts& costs) {
  {
    constexpr std::int64_t kSteps = 400;
    const auto bench =
        ThinRun::make(thin_model({.hidden_size = 64, .num_layers = 4}), {{"tp", "1"}}, devices);
    if (!bench) return tl::unexpected(bench.error());
    const auto timeline = (*bench)->run(16, kSteps);
    if (!timeline) return tl::unexpected(timeline.error());
    std::vector<double> steps;
    std::vector<double> rests;
    for (std::size_t i = 1; i < timeline->steps.size(); ++i) {
      const StepRecord& step = timeline->steps[i];
      steps.push_back(to_seconds(step.end - step.start));
      rests.push_back(to_seconds(step.start - timeline->steps[i - 1].end));
    }
    const std::size_t tasks = timeline->tasks.size() / timeline->steps.size();
    costs.task = {median(std::move(steps)) / static_cast<double>(tasks)};
    costs.short_step = {median(std::move(rests))};
  }
  // Steps of milliseconds: their weights drive all else out of the caches.
  constexpr std::int64_t kSteps = 64;
  ModelSpec model = thin_model({.hidden_size = 1024, .num_layers = 4});
  model.intermediate_size = 4096;
  model.vocab_size = 8192;
  const auto bench = ThinRun::make(model, {{"tp", "1"}}, devices);
  if (!bench) return tl::unexpected(bench.error());
  const auto timeline = (*bench)->run(16, kSteps);
  if (!timeline) return tl::unexpected(timeline.error());
  const double tasks =
      static_cast<double>(timeline->tasks.size()) / static_cast<double>(timeline->steps.size());
  costs.step = {std::max(0.0, median_rest(*timeline) - tasks * costs.task.value)};
  return {};
}

// Whether the first `count` do.
bool have_cores_of_their_own(const std::vector<ExecDevice>& devices, std::size_t count) {
  std::set<int> cores;
  std::size_t claimed = 0;
  for (std::size_t i = 0; i < count; ++i) {
    cores.insert(devices[i].cores.begin(), devices[i].cores.end());
    claimed += devices[i].cores.size();
  }
  return cores.size() == claimed;
}

Result<MeasuredTransfers> measure_transfers(const std::vector<ExecDevice>& devices, int rounds) {
  // 4 MB: beyond the cores' own caches.
  constexpr std::int64_t kMostTokens = 2048;
  const auto first = [&](std::size_t count) {
    const auto end = devices.begin() + static_cast<std::ptrdiff_t>(count);
    return TransferRuns{
        .devices = {devices.begin(), end}, .rounds = rounds, .most_tokens = kMostTokens};
  };
  auto pipeline = measure_pipeline(first(2));
  if (!pipeline) return tl::unexpected(pipeline.error());
  MeasuredTransfers transfers{.messages = std::move(pipeline->handovers[0])};
  std::vector<std::size_t> counts{2};
  if (devices.size() > 2 && have_cores_of_their_own(devices, devices.size()))
    counts.push_back(devices.size());
  for (const std::size_t count : counts) {
    auto group = measure_group(first(count));
    if (!group) return tl::unexpected(group.error());
    transfers.exchanges.push_back(std::move(group->exchange));
    transfers.all_reduces.push_back(std::move(group->all_reduce));
    auto sequence = measure_sequence_parallel(first(count));
    if (!sequence) return tl::unexpected(sequence.error());
    transfers.reduce_scatters.push_back(std::move(sequence->reduce_scatter));
    transfers.all_gathers.push_back(std::move(sequence->all_gather));
  }
  return transfers;
}

}  // namespace

LinkCosts fit_link(const MeasuredTransfers& transfers) {
  CHECK(!transfers.messages.empty() || !transfers.exchanges.empty(), "something was measured");
  const std::vector<TransferTime>& times =
      transfers.messages.empty() ? transfers.exchanges.front().times : transfers.messages;
  const double latency = times.front().us;
  // The mean of the rates of large messages, in proportion: none is off by more than another.
  double log_rate = 0;
  int count = 0;
  for (const TransferTime& time : times) {
    if (time.us < 2 * latency) continue;
    log_rate += std::log(static_cast<double>(time.bytes) / (time.us - latency));
    ++count;
  }
  // On a machine so busy that messages take as long whatever their size, the largest tells what
  // there is to tell.
  const TransferTime& last = times.back();
  const double rate =
      count > 0 ? std::exp(log_rate / count) : static_cast<double>(last.bytes) / last.us;
  return {.latency = {latency * kMicrosecond}, .bandwidth = {rate / kMicrosecond}};
}

double between_steps(const Timeline& timeline) {
  struct Span {
    SimTime first{std::numeric_limits<std::int64_t>::max()};
    SimTime last;
  };
  std::vector<Span> spans(timeline.steps.size());
  for (const TaskRecord& task : timeline.tasks) {
    Span& span = spans[static_cast<std::size_t>(task.step)];
    span.first = std::min(span.first, task.start);
    span.last = std::max(span.last, task.end);
  }
  const std::vector<SimTime>& tokens = timeline.requests.front().token_times;
  std::vector<double> rests;
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    const SimTime step = tokens[i] - tokens[i - 1];
    rests.push_back(to_seconds(step - (spans[i].last - spans[i].first)));
  }
  return std::max(0.0, median(std::move(rests)));
}

Result<ExecutorCosts> measure_executor(const std::vector<ExecDevice>& devices, int rounds) {
  ExecutorCosts costs;
  if (auto measured = measure_single(devices, costs); !measured)
    return tl::unexpected(measured.error());
  if (devices.size() < 2 || !have_cores_of_their_own(devices, 2)) return costs;
  auto transfers = measure_transfers(devices, rounds);
  if (!transfers) return tl::unexpected(transfers.error());
  costs.link = fit_link({.exchanges = transfers->exchanges});
  costs.transfers = *std::move(transfers);
  return costs;
}

}  // namespace weir
