#include "measure/transfer_times.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "base/check.h"
#include "measure/calibrate.h"
#include "measure/device_teams.h"
#include "measure/executor_costs.h"
#include "measure/thin_run.h"
#include "plan/transfers.h"

namespace weir {
namespace {

constexpr double kNanosecondsPerMicrosecond = 1e3;
constexpr std::int64_t kHidden = 512;
// In each round. Steps of many tokens take longer, and a disturbance is a smaller part of them.
constexpr int kRepetitions = 3;
constexpr std::int64_t kManyTokens = 512;
// Longer than anybody waits here: waking a device takes longer than most messages, and is not
// theirs.
constexpr std::chrono::seconds kAwake{10};

std::int64_t bytes_of_tokens(std::int64_t tokens) {
  return tokens * kHidden * static_cast<std::int64_t>(sizeof(float));
}

// What a communication takes from when all are there, as the mean of those who receive.
double microseconds_of(const std::vector<TaskRecord>& members) {
  double sum = 0;
  int receivers = 0;
  for (const TaskRecord& task : members) {
    if (task.bytes == 0) continue;
    sum += static_cast<double>(task.end.ns - task.ready.ns) / kNanosecondsPerMicrosecond;
    ++receivers;
  }
  CHECK(receivers > 0, "somebody receives");
  return sum / receivers;
}

// The communications of each step of a run by their node.
using Communications = std::map<NodeId, std::vector<TaskRecord>>;
std::vector<Communications> communications(const Timeline& timeline) {
  std::vector<Communications> steps(timeline.steps.size());
  for (const TaskRecord& task : timeline.tasks) {
    if (class_of(task.kind) == OpClass::communication)
      steps[static_cast<std::size_t>(task.step)][task.node].push_back(task);
  }
  return steps;
}

double mean_of(OpKind kind, const Communications& step) {
  double sum = 0;
  int count = 0;
  for (const auto& [node, members] : step) {
    if (members.front().kind != kind) continue;
    sum += microseconds_of(members);
    ++count;
  }
  CHECK(count > 0, "every step of these strategies has such collectives");
  return sum / count;
}

// Calls `take(tokens, communications)` for steps of so many new tokens each, several of each size
// in each round: decode steps, which follow each other, and prefills of ever longer prompts. A
// round has workers of its own, as where threads happen to be and who waits for whom lasts as long
// as they do. Returns what lies between two decode steps.
template <class Take>
Result<Seconds> each_step(const TransferRuns& runs, const OptionValues& options, Take take) {
  constexpr std::int64_t kDecodeSteps = 32;
  std::vector<double> between;
  for (int round = 0; round < runs.rounds; ++round) {
    const auto run = ThinRun::make(transfer_model(runs.devices.size(), runs.ranks != nullptr),
                                   options, runs.devices, runs.ranks, kAwake);
    if (!run) return tl::unexpected(run.error());
    const auto decodes = (*run)->run(16, kDecodeSteps);
    if (!decodes) return tl::unexpected(decodes.error());
    between.push_back(between_steps(*decodes));
    const auto steps = communications(*decodes);
    for (std::size_t i = 1; i < steps.size(); ++i) take(std::int64_t{1}, steps[i]);
    for (std::int64_t tokens = 4; tokens <= runs.most_tokens; tokens *= 2) {
      const int repetitions = tokens < kManyTokens ? kRepetitions : 1;
      for (int repetition = 0; repetition <= repetitions; ++repetition) {
        const auto prefill = (*run)->run(tokens, 1);
        if (!prefill) return tl::unexpected(prefill.error());
        // The first sets up what the others find.
        if (repetition > 0) take(tokens, communications(*prefill).front());
      }
    }
  }
  return Seconds{median(std::move(between))};
}

// A clock may not have moved.
double positive(double us) { return std::max(rounded(us), 1e-3); }

// One of the exchanges that an all-reduce consists of (plan/transfers.h).
TransferTime exchange_of(std::size_t members, const TransferTime& all_reduce) {
  if (is_one_shot(members, all_reduce.bytes)) return all_reduce;
  return {.bytes = all_reduce.bytes / static_cast<std::int64_t>(members),
          .us = positive(all_reduce.us / 2)};
}

// What was seen of messages from a device to the next.
struct Handovers {
  std::vector<double> durations;  // Where the receiver came first.
  std::size_t count = 0;          // All.

  // Where receivers mostly came later, the few that did not were disturbed.
  [[nodiscard]] bool tell() const {
    return 4 * durations.size() >= std::max<std::size_t>(1, count);
  }
};

// From each device to the next.
void append_handovers(const Communications& step, std::vector<Handovers>& handovers) {
  for (const auto& [node, members] : step) {
    if (members.size() != 2) continue;
    const bool in_order = index_of(members[0].device) < index_of(members[1].device);
    const TaskRecord& sender = members[in_order ? 0 : 1];
    const TaskRecord& receiver = members[in_order ? 1 : 0];
    Handovers& seen = handovers[index_of(sender.device)];
    ++seen.count;
    // Of what has travelled before the receiver looked, only the rest would be seen.
    if (receiver.start <= sender.start) seen.durations.push_back(microseconds_of(members));
  }
}

}  // namespace

// A layer for each stage and a head for each device. The FFN is three times as wide as the rest: a
// stage of a decode step takes more than a step takes to reach all threads, so that receivers wait.
// Between ranks it is wider, for a step takes longer to reach them, and where they share cores a
// message takes as long as those who wait beside it keep theirs awake (BackOff).
ModelSpec transfer_model(std::size_t devices, bool of_ranks) {
  const auto count = static_cast<std::int64_t>(devices);
  ModelSpec model = thin_model({.hidden_size = kHidden,
                                .num_layers = std::max<std::int64_t>(count, 4),
                                .num_heads = std::max<std::int64_t>(count, 2)});
  model.intermediate_size = std::max<std::int64_t>((of_ranks ? 6 : 3) * kHidden, count);
  return model;
}

Result<GroupTimes> measure_group(const TransferRuns& runs) {
  const std::size_t members = runs.devices.size();
  std::map<std::int64_t, std::vector<double>> durations;  // By tokens.
  const auto between = each_step(runs, {{"tp", std::to_string(members)}},
                                 [&](std::int64_t tokens, const Communications& step) {
                                   durations[tokens].push_back(mean_of(OpKind::all_reduce, step));
                                 });
  if (!between) return tl::unexpected(between.error());
  GroupTimes group;
  group.exchange.members = group.all_reduce.members = static_cast<std::int64_t>(members);
  for (auto& [tokens, times] : durations) {
    const TransferTime all_reduce{.bytes = bytes_of_tokens(tokens),
                                  .us = positive(median(std::move(times)))};
    group.all_reduce.times.push_back(all_reduce);
    // In two rounds messages may be smaller than the last of one, which has said what they take.
    const TransferTime exchange = exchange_of(members, all_reduce);
    std::vector<TransferTime>& exchanges = group.exchange.times;
    if (exchanges.empty() || exchange.bytes > exchanges.back().bytes) exchanges.push_back(exchange);
  }
  return group;
}

Result<SequenceTimes> measure_sequence_parallel(const TransferRuns& runs) {
  const auto members = static_cast<std::int64_t>(runs.devices.size());
  struct Durations {
    std::vector<double> reduce_scatter;
    std::vector<double> all_gather;
  };
  std::map<std::int64_t, Durations> durations;  // By tokens.
  const auto between =
      each_step(runs, {{"tp", std::to_string(members)}, {"sequence_parallel", "1"}},
                [&](std::int64_t tokens, const Communications& step) {
                  Durations& seen = durations[tokens];
                  seen.reduce_scatter.push_back(mean_of(OpKind::reduce_scatter, step));
                  seen.all_gather.push_back(mean_of(OpKind::all_gather, step));
                });
  if (!between) return tl::unexpected(between.error());
  SequenceTimes times;
  times.reduce_scatter.members = times.all_gather.members = members;
  for (auto& [tokens, seen] : durations) {
    const std::int64_t bytes = bytes_of_tokens(tokens);
    times.reduce_scatter.times.push_back(
        {.bytes = bytes, .us = positive(median(std::move(seen.reduce_scatter)))});
    times.all_gather.times.push_back(
        {.bytes = bytes, .us = positive(median(std::move(seen.all_gather)))});
  }
  return times;
}

Result<PipelineTimes> measure_pipeline(const TransferRuns& runs) {
  const std::size_t stages = runs.devices.size();
  std::map<std::int64_t, std::vector<Handovers>> handovers;  // By tokens, then sender.
  const auto between =
      each_step(runs, {{"tp", "1"}, {"pp", std::to_string(stages)}},
                [&](std::int64_t tokens, const Communications& step) {
                  append_handovers(step, handovers.try_emplace(tokens, stages - 1).first->second);
                });
  if (!between) return tl::unexpected(between.error());
  PipelineTimes times{.handovers = std::vector<std::vector<TransferTime>>(stages - 1),
                      .step = *between};
  for (auto& [tokens, senders] : handovers) {
    for (std::size_t i = 0; i < senders.size(); ++i) {
      if (!senders[i].tell()) continue;
      times.handovers[i].push_back({.bytes = bytes_of_tokens(tokens),
                                    .us = positive(median(std::move(senders[i].durations)))});
    }
  }
  return times;
}

}  // namespace weir
