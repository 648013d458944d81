#include "measure/strategy_bench.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "engine/generate.h"
#include "engine/plan_cache.h"
#include "measure/ceilings.h"
#include "measure/device_teams.h"
#include "sim/generation.h"
#include "sim/simulate.h"

namespace weir {
namespace {

using WorkByClass = std::array<double, kOpClasses.size()>;

// Times of tasks by class in each of the first `steps` steps, mean over devices. Who only sends in
// a communication is left out: it waits for those who read, or, between processes, does not, and
// goes on.
std::vector<WorkByClass> work_by_step(const Timeline& timeline, std::size_t steps) {
  std::vector<WorkByClass> work(steps);
  for (const TaskRecord& task : timeline.tasks) {
    const auto step = static_cast<std::size_t>(task.step);
    const OpClass c = class_of(task.kind);
    if (step >= steps || (c == OpClass::communication && task.bytes == 0)) continue;
    work[step][static_cast<std::size_t>(c)] +=
        to_seconds(task.end - task.ready) / static_cast<double>(timeline.devices.size());
  }
  return work;
}

class StrategyBench {
 public:
  StrategyBench(Executor& executor, const Strategy& strategy, const PlanHeader& header,
                const Machine& machine, const StrategyBenchOptions& options)
      : header_(header),
        machine_(machine),
        options_(options),
        generator_(executor, strategy, header),
        plans_(strategy, header) {}

  Result<std::vector<BenchPoint>> run() {
    std::vector<BenchPoint> points;
    for (const std::int64_t length : options_.lengths) {
      for (const BenchPhase phase : {BenchPhase::prefill, BenchPhase::decode}) {
        auto predicted = predict(phase, length);
        if (!predicted) return tl::unexpected(predicted.error());
        points.push_back(
            {.phase = phase, .length = length, .measured = {}, .predicted = *predicted});
      }
    }
    if (auto measured = measure(points); !measured) return tl::unexpected(measured.error());
    return points;
  }

 private:
  [[nodiscard]] std::int64_t longest(std::int64_t length) const {
    return length + options_.decode_steps + 1;
  }

  // The decode step in the middle of those that are measured.
  Result<PhaseTimes> predict(BenchPhase phase, std::int64_t length) {
    const bool prefill = phase == BenchPhase::prefill;
    const RequestLengths lengths = {
        .q_len = prefill ? length : 1,
        .kv_len = prefill ? length : length + options_.decode_steps / 2 + 1};
    const auto plan = plans_.find({.shape = {{.past_len = lengths.kv_len - lengths.q_len,
                                              .q_len = lengths.q_len,
                                              .max_len = longest(length)}},
                                   .limits = {lengths}});
    if (!plan) return tl::unexpected(plan.error());
    auto step = simulate(**plan, machine_, {lengths});
    if (!step) return tl::unexpected(step.error());
    const SimTime end = step->timeline.end;
    return PhaseTimes{.step = to_seconds(end + host_time(machine_, {}, end)),
                      .work = work_by_step(step->timeline, 1).front()};
  }

  // What was measured of one length.
  struct Samples {
    struct Times {
      std::vector<PhaseTimes> prefills;
      std::vector<PhaseTimes> decodes;

      // Repetitions: each has one prefill.
      [[nodiscard]] std::int64_t count() const { return std::ssize(prefills); }
    };
    Times as_calibrated;
    Times otherwise;
    std::optional<MemoryRates> other_memory = {};
  };

  // All lengths take their turns, so that a state of the machine that lasts for seconds does not
  // decide what is measured of one. `points`: both phases of every length.
  Status measure(std::vector<BenchPoint>& points) {
    // The first run sets up what the others find: plans, weights, buffers.
    for (const std::int64_t length : options_.lengths) {
      if (const auto first = generate(length, options_.decode_steps + 1); !first)
        return tl::unexpected(first.error());
    }
    std::vector<Samples> all(options_.lengths.size());
    for (std::int64_t turn = 0; turn < 2 * options_.repetitions; ++turn) {
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i].as_calibrated.count() == options_.repetitions) continue;
        if (auto repeated = repeat(options_.lengths[i], all[i]); !repeated) return repeated;
      }
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool as_calibrated = all[i].as_calibrated.count() > 0;
      const Samples::Times& times = as_calibrated ? all[i].as_calibrated : all[i].otherwise;
      points[2 * i].measured = medians(times.prefills);
      points[2 * i + 1].measured = medians(times.decodes);
      if (!as_calibrated)
        points[2 * i].other_memory = points[2 * i + 1].other_memory = all[i].other_memory;
    }
    return {};
  }

  // Looking at the memory has pushed everything out of the caches, and on some virtual machines
  // what was not touched for a second costs a fault of the host: the prediction is for a device
  // that works all the time, so a prefill warms it first.
  Status repeat(std::int64_t length, Samples& samples) {
    const std::optional<MemoryRates> before = other_memory();
    if (const auto warm = generate(length, 1); !warm) return tl::unexpected(warm.error());
    const auto timeline = generate(length, options_.decode_steps + 1);
    if (!timeline) return tl::unexpected(timeline.error());
    const std::optional<MemoryRates> after = other_memory();
    const bool same = !before && !after;
    keep(*timeline, same ? samples.as_calibrated : samples.otherwise);
    if (!same) samples.other_memory = before ? before : after;
    return {};
  }

  // What it is, where it is not as calibrated.
  [[nodiscard]] std::optional<MemoryRates> other_memory() const {
    const auto& alone = machine_.cluster().type_of(DeviceId{0}).memory_bandwidth;
    const auto& together = machine_.cluster().node_types.front().host.memory_bandwidth;
    if (!options_.memory_now || !alone || !together) return {};
    const MemoryRates now = options_.memory_now();
    if (is_same_memory(now, {.alone = alone->value, .together = together->value})) return {};
    return now;
  }

  Result<Timeline> generate(std::int64_t length, std::int64_t tokens) {
    GenerationRequest request{.prompt = {}, .max_new_tokens = tokens};
    for (std::int64_t i = 0; i < length; ++i)
      request.prompt.push_back((i * 31 + 7) % header_.model.vocab_size);
    auto generation = generator_.run({&request, 1}, {.prefill_chunk = kMaxPrefillChunk});
    if (!generation) return tl::unexpected(generation.error());
    return std::move(generation->timeline);
  }

  static void keep(const Timeline& timeline, Samples::Times& samples) {
    const RequestRecord& request = timeline.requests.front();
    const std::vector<WorkByClass> work = work_by_step(timeline, request.token_times.size());
    samples.prefills.push_back(
        {.step = to_seconds(request.token_times.front() - request.arrival), .work = work.front()});
    for (std::size_t i = 1; i < work.size(); ++i) {
      samples.decodes.push_back(
          {.step = to_seconds(request.token_times[i] - request.token_times[i - 1]),
           .work = work[i]});
    }
  }

  static PhaseTimes medians(const std::vector<PhaseTimes>& times) {
    const auto of = [&](auto part) {
      std::vector<double> values;
      values.reserve(times.size());
      for (const PhaseTimes& one : times) values.push_back(part(one));
      return median(std::move(values));
    };
    PhaseTimes result{.step = of([](const PhaseTimes& one) { return one.step; })};
    for (std::size_t i = 0; i < result.work.size(); ++i)
      result.work[i] = of([i](const PhaseTimes& one) { return one.work[i]; });
    return result;
  }

  const PlanHeader& header_;
  const Machine& machine_;
  const StrategyBenchOptions& options_;
  Generator generator_;
  PlanCache plans_;
};

}  // namespace

Result<std::vector<BenchPoint>> bench_strategy(Executor& executor, const Strategy& strategy,
                                               const PlanHeader& header, const Machine& machine,
                                               const StrategyBenchOptions& options) {
  return StrategyBench(executor, strategy, header, machine, options).run();
}

}  // namespace weir
