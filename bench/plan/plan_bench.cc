// How long planning takes: layouts and lowering, validation, and what readers ask of a plan. A
// decode step may spend 1% of its time on planning, and a plan is built once for hundreds of steps.
// The counters per node and per queue entry are what is judged: they stay level where the cost is
// linear in the plan.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/check.h"
#include "plan/placement.h"
#include "plan/transfers.h"
#include "plan/validate.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

// A model of the shape of Llama 70B; with more heads where more devices share them.
ModelSpec large_model(std::int64_t num_layers, std::int64_t tp) {
  return {.name = "large",
          .num_layers = num_layers,
          .hidden_size = 8192,
          .intermediate_size = 28672,
          .vocab_size = 128256,
          .num_q_heads = std::max<std::int64_t>(64, tp),
          .num_kv_heads = 8,
          .head_dim = 128,
          .max_position = 131072,
          .rope = {.rotary_dim = 128},
          .weight_dtype = DType::bf16};
}

struct Degrees {
  std::int64_t tp = 1;
  std::int64_t pp = 1;
  std::int64_t microbatches = 1;
};

// A decode of 16 requests.
class Planner {
 public:
  Planner(std::int64_t num_layers, Degrees degrees) {
    const ModelSpec model = large_model(num_layers, degrees.tp);
    auto named = make_strategy("tp_pp",
                               {{"tp", fmt::format("{}", degrees.tp)},
                                {"pp", fmt::format("{}", degrees.pp)},
                                {"microbatches", fmt::format("{}", degrees.microbatches)}},
                               model);
    CHECK(named.has_value(), "the degrees fit the model");
    strategy_ = std::move(named->strategy);
    header_.model = model;
    header_.strategy = named->label;
    header_.activation_dtype = DType::bf16;
    header_.kv_dtype = DType::bf16;
    header_.limits.assign(16, {.q_len = 1, .kv_len = 8192});
    step_.assign(16, {.past_len = 8191, .q_len = 1, .max_len = 8192});
    for (std::int64_t i = 0; i < strategy_->num_devices(); ++i)
      header_.devices.push_back({.name = fmt::format("gpu{}", i), .memory_bytes = {}});
  }

  [[nodiscard]] Plan plan() const { return lower(header_, strategy_->layouts(step_)); }

 private:
  std::unique_ptr<Strategy> strategy_;
  PlanHeader header_;
  StepShape step_;
};

Planner planner_of(const benchmark::State& state) {
  return {state.range(0),
          {.tp = state.range(1), .pp = state.range(2), .microbatches = state.range(3)}};
}

void count_nodes(benchmark::State& state, const Plan& plan) {
  std::size_t entries = 0;
  for (const PlanDevice& device : plan.devices)
    entries += device.compute.size() + device.comm.size();
  const auto per = [](std::size_t count) {
    return benchmark::Counter(
        static_cast<double>(count),
        benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  };
  state.counters["nodes"] = static_cast<double>(plan.nodes.size());
  state.counters["per_node"] = per(plan.nodes.size());
  state.counters["per_entry"] = per(entries);
}

void build(benchmark::State& state) {
  const Planner planner = planner_of(state);
  for (auto _ : state) benchmark::DoNotOptimize(planner.plan());
  count_nodes(state, planner.plan());
}

void check(benchmark::State& state) {
  const Plan plan = planner_of(state).plan();
  for (auto _ : state) {
    state.PauseTiming();
    Plan copy = plan;
    state.ResumeTiming();
    auto valid = validate(std::move(copy));
    CHECK(valid.has_value(), "the plan is valid");
    benchmark::DoNotOptimize(valid);
  }
  count_nodes(state, plan);
}

void memory_for_lengths(benchmark::State& state) {
  const auto valid = validate(planner_of(state).plan());
  CHECK(valid.has_value(), "the plan is valid");
  for (auto _ : state) {
    benchmark::DoNotOptimize(memory_by_device(valid->plan(), valid->plan().limits));
  }
  count_nodes(state, valid->plan());
}

void bytes_of_all_nodes(benchmark::State& state) {
  const Plan plan = planner_of(state).plan();
  for (auto _ : state) {
    for (std::uint32_t node = 0; node < plan.nodes.size(); ++node)
      benchmark::DoNotOptimize(bytes_sent(plan, NodeId{node}, plan.limits));
  }
  count_nodes(state, plan);
}

// Layers, tp, pp, microbatches.
void deployments(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"layers", "tp", "pp", "microbatches"})->Unit(benchmark::kMillisecond);
  bench->Args({80, 8, 8, 4})->Args({80, 64, 1, 1});
}
void sizes(benchmark::internal::Benchmark* bench) {
  deployments(bench);
  for (const std::int64_t layers : {10, 40, 160, 640}) bench->Args({layers, 8, 2, 1});
  for (const std::int64_t tp : {2, 16, 256, 1024}) bench->Args({80, tp, 1, 1});
}

BENCHMARK(build)->Apply(sizes);
BENCHMARK(check)->Apply(sizes);
BENCHMARK(memory_for_lengths)->Apply(deployments);
BENCHMARK(bytes_of_all_nodes)->Apply(deployments);

}  // namespace
}  // namespace weir
