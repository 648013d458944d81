// How fast plans are simulated. Judged by: >= 10 M tasks/s in the static pass, >= 1000 whole
// configurations/s (tp 8, 80 layers, plan built and simulated) and >= 10,000 folded, 4096 devices x
// 80 layers in under 1 s.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include "base/check.h"
#include "sim/fold.h"
#include "sim/schedule.h"
#include "sim/simulate.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

// The sizes of Llama 3.1 70B.
ModelSpec large_model() {
  ModelSpec model;
  model.name = "large";
  model.num_layers = 80;
  model.hidden_size = 8192;
  model.intermediate_size = 28672;
  model.num_q_heads = 64;
  model.num_kv_heads = 8;
  model.head_dim = 128;
  model.rope.rotary_dim = 128;
  model.vocab_size = 128256;
  model.max_position = 131072;
  model.weight_dtype = DType::bf16;
  return model;
}

struct Configuration {
  NamedStrategy strategy;
  PlanHeader header;
  StepShape shape;
};

Configuration configuration(std::int64_t tp, std::int64_t pp, std::int64_t requests) {
  const ModelSpec model = large_model();
  auto named =
      make_strategy("tp_pp", {{"tp", fmt::format("{}", tp)}, {"pp", fmt::format("{}", pp)}}, model);
  CHECK(named.has_value(), "the strategy can be made");
  PlanHeader header{
      .model = model,
      .strategy = named->label,
      .activation_dtype = DType::bf16,
      .kv_dtype = DType::bf16,
      .logits = LogitsWanted::last,
      .limits = StepLengths(static_cast<std::size_t>(requests), {.q_len = 1, .kv_len = 4096}),
      .devices = {}};
  for (std::int64_t i = 0; i < tp * pp; ++i)
    header.devices.push_back({.name = "device", .memory_bytes = {}});
  return {.strategy = *std::move(named),
          .header = std::move(header),
          .shape = StepShape(static_cast<std::size_t>(requests),
                             {.past_len = 4095, .q_len = 1, .max_len = 4096})};
}

ValidPlan planned(const Configuration& configuration) {
  auto plan = validate(
      lower(configuration.header, configuration.strategy.strategy->layouts(configuration.shape)));
  CHECK(plan.has_value(), "the plan is valid");
  return *std::move(plan);
}

Machine machine_of(const std::string& cluster) {
  auto machine = Machine::make(load_cluster(cluster).value());
  CHECK(machine.has_value(), "the cluster is complete");
  return *std::move(machine);
}

void whole_configuration(benchmark::State& state) {
  const Machine machine = machine_of("h100-sxm");
  const Configuration made = configuration(8, 1, 8);
  for (auto _ : state) {
    const ValidPlan plan = planned(made);
    const auto step = simulate(plan, machine, plan->limits, {.record_tasks = false});
    benchmark::DoNotOptimize(step->timeline.end);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(whole_configuration)->Unit(benchmark::kMicrosecond);

void folded_configuration(benchmark::State& state) {
  const Machine machine = machine_of(fmt::format("h100-sxm:{}", state.range(0)));
  const Configuration made = configuration(8, state.range(0), 8);
  SimulateOptions options;
  options.record_tasks = state.range(1) == 1;
  for (auto _ : state) {
    const StepLayouts layouts = made.strategy.strategy->layouts(made.shape);
    const auto step = simulate_folded(made.header, layouts, machine, made.header.limits, options);
    CHECK(step->folded, "nothing is shared");
    benchmark::DoNotOptimize(step->step.timeline.end);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(folded_configuration)
    ->ArgNames({"pp", "metrics"})
    ->Args({1, 0})
    ->Args({1, 1})
    ->Args({8, 0})
    ->Unit(benchmark::kMicrosecond);

void simulated_plan(benchmark::State& state) {
  const Machine machine = machine_of("h100-sxm");
  const ValidPlan plan = planned(configuration(8, 1, 8));
  for (auto _ : state) {
    const auto step = simulate(plan, machine, plan->limits, {.record_tasks = false});
    benchmark::DoNotOptimize(step->timeline.end);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(simulated_plan)->Unit(benchmark::kMicrosecond);

// Tasks per second, costs known.
void schedule_tasks(benchmark::State& state) {
  const Machine machine = machine_of("h100-sxm");
  const ValidPlan plan = planned(configuration(8, 1, 8));
  const auto costs = StepCosts::make(plan, machine, plan->limits, {});
  std::int64_t tasks = 0;
  for (auto _ : state) {
    const Schedule schedule = state.range(0) == 0
                                  ? schedule_statically(plan, *costs)
                                  : schedule_by_events(plan, *costs, machine.topology());
    tasks += std::ssize(schedule.tasks);
    benchmark::DoNotOptimize(schedule.end);
  }
  state.SetItemsProcessed(tasks);
}
BENCHMARK(schedule_tasks)->ArgName("by_events")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

// `tp` devices per stage on nodes of 8, and as many stages as make up the devices.
void simulated_cluster(benchmark::State& state) {
  const std::int64_t tp = state.range(0);
  const std::int64_t pp = state.range(1);
  const Machine machine = machine_of(fmt::format("h100-sxm:{}", tp * pp / 8));
  const ValidPlan plan = planned(configuration(tp, pp, 1));
  SimulateOptions options;
  options.record_tasks = false;
  for (auto _ : state) {
    const auto step = simulate(plan, machine, plan->limits, options);
    benchmark::DoNotOptimize(step->timeline.end);
  }
  state.counters["devices"] = static_cast<double>(tp * pp);
}
BENCHMARK(simulated_cluster)
    ->ArgNames({"tp", "pp"})
    ->Args({8, 2})
    ->Args({8, 20})
    ->Args({8, 80})
    ->Args({64, 64})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace weir
