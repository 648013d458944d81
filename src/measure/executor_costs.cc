#include "measure/executor_costs.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "measure/device_teams.h"
#include "measure/thin_run.h"

namespace weir {
namespace {

constexpr double kNanosecond = 1e-9;

// Beside its tasks: what a step takes from one token to the next.
double median_rest(const Timeline& timeline) {
  std::vector<double> in_tasks(timeline.steps.size());
  for (const TaskRecord& task : timeline.tasks) {
    in_tasks[static_cast<std::size_t>(task.step)] +=
        static_cast<double>(task.end.ns - task.start.ns) * kNanosecond;
  }
  const std::vector<SimTime>& tokens = timeline.requests.front().token_times;
  std::vector<double> rests;
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    rests.push_back(static_cast<double>(tokens[i].ns - tokens[i - 1].ns) * kNanosecond -
                    in_tasks[i]);
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
      steps.push_back(static_cast<double>(step.end.ns - step.start.ns));
      rests.push_back(static_cast<double>(step.start.ns - timeline->steps[i - 1].end.ns));
    }
    const std::size_t tasks = timeline->tasks.size() / timeline->steps.size();
    costs.task = {median(std::move(steps)) * kNanosecond / static_cast<double>(tasks)};
    costs.short_step = {median(std::move(rests)) * kNanosecond};
  }
  // Steps of milliseconds: who waits for them sleeps, and has to be woken.
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

bool have_cores_of_their_own(const std::vector<ExecDevice>& devices) {
  std::set<int> cores;
  std::size_t count = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    cores.insert(devices[i].cores.begin(), devices[i].cores.end());
    count += devices[i].cores.size();
  }
  return cores.size() == count;
}

// Median durations of the all-reduces of prompts of several lengths, by bytes.
Result<std::map<std::int64_t, double>> all_reduce_times(const std::vector<ExecDevice>& devices) {
  constexpr std::int64_t kHidden = 512;
  constexpr int kRepetitions = 5;
  const auto bench =
      ThinRun::make(thin_model({.hidden_size = kHidden, .num_layers = 4}), {{"tp", "2"}}, devices);
  if (!bench) return tl::unexpected(bench.error());
  std::map<std::int64_t, double> times;
  for (std::int64_t tokens = 1; tokens <= 4096; tokens *= 4) {
    std::vector<double> durations;
    for (int repetition = 0; repetition < kRepetitions; ++repetition) {
      const auto timeline = (*bench)->run(tokens, 1);
      if (!timeline) return tl::unexpected(timeline.error());
      for (const TaskRecord& task : timeline->tasks) {
        if (task.kind == OpKind::all_reduce)
          durations.push_back(static_cast<double>(task.end.ns - task.ready.ns) * kNanosecond);
      }
    }
    times[tokens * kHidden * static_cast<std::int64_t>(sizeof(float))] =
        median(std::move(durations));
  }
  return times;
}

// Logarithms, at first of the widest range that links have: the best place among some is looked for
// again and again, each time more closely.
constexpr int kPlaces = 24;
struct SearchRange {
  double low = 0;
  double high = 0;

  [[nodiscard]] double at(int i) const { return low + (high - low) * i / kPlaces; }
  void close_in(double on) {
    const double reach = (high - low) / kPlaces * 2;
    *this = {.low = on - reach, .high = on + reach};
  }
};

}  // namespace

LinkCosts fit_link(const std::map<std::int64_t, double>& times) {
  const double latency = times.begin()->second;
  // The mean of the rates of large messages, in proportion: none is off by more than another.
  double log_rate = 0;
  int count = 0;
  for (const auto& [bytes, time] : times) {
    if (time < 2 * latency) continue;
    log_rate += std::log(static_cast<double>(bytes) / (time - latency));
    ++count;
  }
  // On a machine so busy that messages take as long whatever their size, the largest tells what
  // there is to tell.
  const auto& [bytes, time] = *times.rbegin();
  const double rate =
      count > 0 ? std::exp(log_rate / count) : static_cast<double>(bytes) / std::max(time, 1e-9);
  return {.latency = {latency}, .bandwidth = {rate}};
}

LinkCosts fit_link(std::span<const LinkObservation> observations) {
  SearchRange latency{.low = std::log(1e-8), .high = std::log(1.0)};
  SearchRange rate{.low = std::log(1e4), .high = std::log(1e13)};
  const auto error_of = [&](double log_latency, double log_rate) {
    double sum = 0;
    for (const LinkObservation& one : observations) {
      const double predicted =
          one.messages * std::exp(log_latency) + one.bytes / std::exp(log_rate);
      sum += std::abs(std::log(predicted / one.seconds));
    }
    return sum;
  };
  constexpr int kRounds = 8;
  for (int round = 0; round < kRounds; ++round) {
    double least = std::numeric_limits<double>::infinity();
    double best_latency = 0;
    double best_rate = 0;
    for (int i = 0; i <= kPlaces; ++i) {
      for (int j = 0; j <= kPlaces; ++j) {
        const double error = error_of(latency.at(i), rate.at(j));
        if (error >= least) continue;
        least = error;
        best_latency = latency.at(i);
        best_rate = rate.at(j);
      }
    }
    latency.close_in(best_latency);
    rate.close_in(best_rate);
  }
  return {.latency = {std::exp((latency.low + latency.high) / 2)},
          .bandwidth = {std::exp((rate.low + rate.high) / 2)}};
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
    const std::int64_t step = tokens[i].ns - tokens[i - 1].ns;
    rests.push_back(static_cast<double>(step - (spans[i].last.ns - spans[i].first.ns)) *
                    kNanosecond);
  }
  return std::max(0.0, median(std::move(rests)));
}

Result<ExecutorCosts> measure_executor(const std::vector<ExecDevice>& devices) {
  ExecutorCosts costs;
  if (auto measured = measure_single(devices, costs); !measured)
    return tl::unexpected(measured.error());
  if (devices.size() < 2 || !have_cores_of_their_own(devices)) return costs;
  const auto times = all_reduce_times(devices);
  if (!times) return tl::unexpected(times.error());
  costs.link = fit_link(*times);
  return costs;
}

}  // namespace weir
