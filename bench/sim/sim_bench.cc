// How fast plans are simulated. Judged by: >= 10 M tasks/s in the static pass, >= 10 M activities/s
// of an expanded plan where no link is shared and >= 3 M/s where some are, <= 64 bytes for each
// activity, >= 1000 whole configurations/s (tp 8, 80 layers, plan built and simulated) and >=
// 10,000 folded, 4096 devices x 80 layers in under 1 s, and no more than n log n as plans grow.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include "base/check.h"
#include "base/random.h"
#include "sim/fold.h"
#include "sim/plan_activities.h"
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

struct Sizes {
  std::int64_t tp = 1;
  std::int64_t pp = 1;
  std::int64_t requests = 8;
  std::int64_t microbatches = 1;
  std::int64_t layers = 80;
  std::int64_t q_len = 1;
};

Configuration configuration(const Sizes& sizes) {
  const auto [tp, pp, requests, microbatches, layers, q_len] = sizes;
  ModelSpec model = large_model();
  model.num_layers = layers;
  auto named = make_strategy("tp_pp",
                             {{"tp", fmt::format("{}", tp)},
                              {"pp", fmt::format("{}", pp)},
                              {"microbatches", fmt::format("{}", microbatches)}},
                             model);
  CHECK(named.has_value(), "the strategy can be made");
  PlanHeader header{
      .model = model,
      .strategy = named->label,
      .activation_dtype = DType::bf16,
      .kv_dtype = DType::bf16,
      .logits = LogitsWanted::last,
      .limits = StepLengths(static_cast<std::size_t>(requests), {.q_len = q_len, .kv_len = 4096}),
      .devices = {}};
  for (std::int64_t i = 0; i < tp * pp; ++i)
    header.devices.push_back({.name = "device", .memory_bytes = {}});
  return {.strategy = *std::move(named),
          .header = std::move(header),
          .shape = StepShape(static_cast<std::size_t>(requests),
                             {.past_len = 4096 - q_len, .q_len = q_len, .max_len = 4096})};
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
  const Configuration made = configuration({.tp = 8});
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
  const Configuration made = configuration({.tp = 8, .pp = state.range(0)});
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
  const ValidPlan plan = planned(configuration({.tp = 8}));
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
  const ValidPlan plan = planned(configuration({.tp = 8}));
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

// Nodes of 8 GPUs that reach each other over a PCIe bus for all, and other nodes over one card.
Machine machine_with_buses(std::int64_t nodes) {
  ClusterSpec cluster = load_cluster(fmt::format("h100-sxm:{}", nodes)).value();
  NodeType& type = cluster.node_types[0];
  type.fabrics = {{.kind = FabricKind::pcie,
                   .bandwidth = BytesPerSecond{64e9},
                   .latency = Seconds{2e-6},
                   .shared_bandwidth = BytesPerSecond{128e9}}};
  type.nics->owner = NicOwner::node;
  auto machine = Machine::make(cluster);
  CHECK(machine.has_value(), "the cluster is complete");
  return *std::move(machine);
}

struct Messages {
  ActivityGraph graph;
  std::vector<double> capacities;
};

// A prefill in four microbatches, with every collective as its messages.
Messages messages_of(const Machine& machine, std::int64_t tp, std::int64_t pp,
                     std::int64_t layers) {
  const ValidPlan plan = planned(
      configuration({.tp = tp, .pp = pp, .microbatches = 4, .layers = layers, .q_len = 512}));
  const CollectiveOptions options{.custom_all_reduce = false};
  const auto costs = StepCosts::make(plan, machine, plan->limits, options);
  auto made = to_expanded_activities(plan, *costs, machine, plan->limits, options);
  const auto capacities = machine.topology().capacities();
  return {.graph = std::move(made->graph), .capacities = {capacities.begin(), capacities.end()}};
}

// Of those who send something, the share that would have ended sooner alone.
double slowed_share(const ActivityGraph& graph, const ActivityTimes& times) {
  std::int64_t sent = 0;
  std::int64_t slowed = 0;
  for (ActivityId id = 0; id < graph.size(); ++id) {
    const ActivityGraph::Work& work = graph.work_of(id);
    if (work.transfer.ns == 0) continue;
    ++sent;
    const SimTime took = times.ends[id] - start_of(graph, times.ends, id);
    slowed += took > work.latency + work.transfer ? 1 : 0;
  }
  return static_cast<double>(slowed) / static_cast<double>(sent);
}

// Activities per second. `plans` times 80 layers, two stages of 8 GPUs whose rings meet nobody.
void expanded_in_order(benchmark::State& state) {
  const Messages messages = messages_of(machine_of("h100-sxm:2"), 8, 2, 80 * state.range(0));
  const ActivityGraph& graph = messages.graph;
  for (auto _ : state) benchmark::DoNotOptimize(run_in_order(graph).end);
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(graph.size()));
  state.counters["activities"] = static_cast<double>(graph.size());
}
BENCHMARK(expanded_in_order)
    ->ArgName("plans")
    ->Arg(1)
    ->Arg(2)
    ->Arg(4)
    ->Arg(32)
    ->Unit(benchmark::kMillisecond);

// Two stages share the bus of a node, so their messages meet.
void expanded_with_shared_links(benchmark::State& state) {
  const Messages messages = messages_of(machine_with_buses(2), 4, 4, 80 * state.range(0));
  const ActivityGraph& graph = messages.graph;
  for (auto _ : state) benchmark::DoNotOptimize(run_by_events(graph, messages.capacities).end);
  const ActivityTimes run = run_by_events(graph, messages.capacities);
  state.counters["slowed"] = slowed_share(graph, run);
  state.counters["steps"] = static_cast<double>(run.operations) / static_cast<double>(graph.size());
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(graph.size()));
  state.counters["activities"] = static_cast<double>(graph.size());
}
BENCHMARK(expanded_with_shared_links)
    ->ArgName("plans")
    ->Arg(1)
    ->Arg(2)
    ->Arg(4)
    ->Arg(32)
    ->Unit(benchmark::kMillisecond);

// The hardest for sharing: devices send to each other, one message after the other, each of another
// size and so never two at the same instant, and all over one bus that is half as wide as they
// want.
void random_messages_on_a_bus(benchmark::State& state) {
  const auto devices = static_cast<std::uint32_t>(state.range(0));
  Random random(1);
  ActivityGraph graph;
  std::vector<double> capacities(2 * devices + 1, 10e9);
  capacities.back() = 5e9 * devices;
  std::vector<ActivityId> last(devices);
  for (std::int64_t i = 0; i < 100'000; ++i) {
    const auto from = static_cast<std::uint32_t>(i % devices);
    const auto to = static_cast<std::uint32_t>(random.integer(0, devices - 1));
    const double bytes = static_cast<double>(random.integer(10'000, 10'000'000));
    const LinkUse uses[] = {{.link = LinkId{from}, .bytes = bytes},
                            {.link = LinkId{2 * devices}, .bytes = bytes},
                            {.link = LinkId{devices + to}, .bytes = bytes}};
    const SimTime alone{static_cast<std::int64_t>(bytes / 10) + 1};
    const WorkId work = graph.add_work({1000}, alone, uses);
    const std::size_t waits = i < devices ? 0 : 1;
    last[from] = graph.add(work, std::span(last).subspan(from, waits));
  }
  for (auto _ : state) benchmark::DoNotOptimize(run_by_events(graph, capacities).end);
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(graph.size()));
  const ActivityTimes run = run_by_events(graph, capacities);
  state.counters["slowed"] = slowed_share(graph, run);
  state.counters["steps"] = static_cast<double>(run.operations) / static_cast<double>(graph.size());
}
BENCHMARK(random_messages_on_a_bus)
    ->ArgName("devices")
    ->Arg(4)
    ->Arg(8)
    ->Arg(64)
    ->Unit(benchmark::kMillisecond);

// `tp` devices per stage on nodes of 8, and as many stages as make up the devices.
void simulated_cluster(benchmark::State& state) {
  const std::int64_t tp = state.range(0);
  const std::int64_t pp = state.range(1);
  const Machine machine = machine_of(fmt::format("h100-sxm:{}", tp * pp / 8));
  const ValidPlan plan = planned(configuration({.tp = tp, .pp = pp, .requests = 1}));
  SimulateOptions options;
  options.record_tasks = false;
  options.expand_collectives = state.range(2) != 0;
  for (auto _ : state) {
    const auto step = simulate(plan, machine, plan->limits, options);
    benchmark::DoNotOptimize(step->timeline.end);
  }
  state.counters["devices"] = static_cast<double>(tp * pp);
}
BENCHMARK(simulated_cluster)
    ->ArgNames({"tp", "pp", "expand"})
    ->Args({8, 2, 0})
    ->Args({8, 20, 0})
    ->Args({8, 80, 0})
    ->Args({64, 64, 0})
    ->Args({8, 80, 1})
    ->Args({64, 64, 1})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace weir
