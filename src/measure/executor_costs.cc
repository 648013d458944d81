#include "measure/executor_costs.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "checkpoint/random_model.h"
#include "engine/generate.h"
#include "measure/device_teams.h"
#include "measure/model_on_disk.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

constexpr double kNanosecond = 1e-9;

// A model whose arithmetic takes next to no time at the given width.
ModelSpec thin_model(std::int64_t hidden_size, std::int64_t num_layers) {
  ModelSpec model;
  model.name = "thin";
  model.num_layers = num_layers;
  model.hidden_size = hidden_size;
  model.num_q_heads = 2;
  model.num_kv_heads = 2;
  model.head_dim = 16;
  model.intermediate_size = 32;
  model.vocab_size = kRandomModelEos + 1;
  model.max_position = 1 << 16;
  model.rope.rotary_dim = model.head_dim;
  return model;
}

// A model's runs with one strategy on some devices.
class Bench {
 public:
  static Result<std::unique_ptr<Bench>> make(const ModelSpec& model, const OptionValues& options,
                                             const std::vector<ExecDevice>& devices) {
    auto on_disk = ModelOnDisk::make(model);
    if (!on_disk) return tl::unexpected(on_disk.error());
    auto bench = std::unique_ptr<Bench>(new Bench(*std::move(on_disk)));
    if (auto started = bench->start(options, devices); !started)
      return tl::unexpected(started.error());
    return bench;
  }

  Result<Timeline> run(std::int64_t prompt_len, std::int64_t output_len) {
    GenerationRequest request{.prompt = {}, .max_new_tokens = output_len};
    for (std::int64_t i = 0; i < prompt_len; ++i) request.prompt.push_back(i % kRandomModelBos);
    auto generation = generator_->run({&request, 1}, {.prefill_chunk = kMaxPrefillChunk});
    if (!generation) return tl::unexpected(generation.error());
    return std::move(generation->timeline);
  }

 private:
  explicit Bench(ModelOnDisk model) : model_(std::move(model)) {}

  Status start(const OptionValues& options, const std::vector<ExecDevice>& devices) {
    auto strategy = make_strategy("tp_pp", options, model_.spec());
    if (!strategy) return tl::unexpected(strategy.error());
    strategy_ = std::move(strategy->strategy);
    std::vector<ExecDevice> used(devices.begin(), devices.begin() + strategy_->num_devices());
    PlanHeader header{
        .model = model_.spec(), .strategy = strategy->label, .limits = {}, .devices = {}};
    for (const ExecDevice& device : used)
      header.devices.push_back({.name = device.name, .memory_bytes = {}});
    auto executor =
        Executor::make(model_.checkpoint(), model_.spec(), {.devices = std::move(used)});
    if (!executor) return tl::unexpected(executor.error());
    executor_ = *std::move(executor);
    generator_ = std::make_unique<Generator>(*executor_, *strategy_, std::move(header));
    return {};
  }

  ModelOnDisk model_;
  std::unique_ptr<Strategy> strategy_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Generator> generator_;
};

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
    const auto bench = Bench::make(thin_model(64, 4), {{"tp", "1"}}, devices);
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
  ModelSpec model = thin_model(1024, 4);
  model.intermediate_size = 4096;
  model.vocab_size = 8192;
  const auto bench = Bench::make(model, {{"tp", "1"}}, devices);
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
  const auto bench = Bench::make(thin_model(kHidden, 4), {{"tp", "2"}}, devices);
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

}  // namespace

Result<ExecutorCosts> measure_executor(const std::vector<ExecDevice>& devices) {
  ExecutorCosts costs;
  if (auto measured = measure_single(devices, costs); !measured)
    return tl::unexpected(measured.error());
  if (devices.size() < 2 || !have_cores_of_their_own(devices)) return costs;
  const auto times = all_reduce_times(devices);
  if (!times) return tl::unexpected(times.error());
  const double latency = times->begin()->second;
  // The mean of the rates of large messages, in proportion: none is off by more than another.
  double log_rate = 0;
  int count = 0;
  for (const auto& [bytes, time] : *times) {
    if (time < 2 * latency) continue;
    log_rate += std::log(static_cast<double>(bytes) / (time - latency));
    ++count;
  }
  // On a machine so busy that messages take as long whatever their size, the largest tells what
  // there is to tell.
  const auto& [bytes, time] = *times->rbegin();
  const double rate =
      count > 0 ? std::exp(log_rate / count) : static_cast<double>(bytes) / std::max(time, 1e-9);
  costs.link = {.latency = {latency}, .bandwidth = {rate}};
  return costs;
}

}  // namespace weir
