// Folded steps against whole ones, for every strategy: equal times to the nanosecond.

#include <algorithm>
#include <optional>
#include <set>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "clusters_for_tests.h"
#include "sim/fold.h"
#include "strategy/strategy.h"
#include "tests/plan/plans_for_tests.h"
#include "tests/sim/random_cases.h"

namespace weir {
namespace {

struct FoldCase {
  std::string name;
  PlanHeader header;
  StepLayouts layouts;
  ClusterSpec cluster;
  StepLengths lengths;
};

std::string text_of(std::int64_t number) { return fmt::format("{}", number); }

OptionValues random_options(Random& random, std::string_view strategy) {
  const auto pick = [&](std::initializer_list<std::int64_t> values) {
    return text_of(one_of(random, values));
  };
  const auto name = [&](std::initializer_list<const char*> names) {
    return std::string(names.begin()[random.integer(0, std::ssize(names) - 1)]);
  };
  if (strategy == "tp_pp")
    return {{"tp", pick({1, 2, 3, 4})},
            {"pp", pick({1, 2, 3})},
            {"microbatches", pick({1, 2, 4})},
            {"sequence_parallel", pick({0, 1, 20})}};
  if (strategy == "attention_pool") {
    return {{"tp", pick({1, 2})},
            {"pp", pick({1, 2})},
            {"pool", pick({1, 3})},
            {"pool_policy", "fixed"},
            {"threshold", pick({16, 40})},
            {"kv_block", "16"},
            {"split", name({"kv_blocks", "query_blocks"})},
            {"reduction", name({"flat", "hierarchical"})},
            {"microbatches", pick({1, 2, 3})}};
  }
  if (strategy == "two_level") {
    return {{"head_groups", pick({1, 2})},
            {"dim_slices", pick({1, 2})},
            {"scores", name({"gather_qk", "reduce_scores"})},
            {"pp", pick({1, 2})},
            {"microbatches", pick({1, 2})}};
  }
  if (strategy == "cache_fit") {
    return {{"devices", pick({2, 3, 4})},
            {"tp", pick({1, 2})},
            {"capacity_kib", pick({60, 120, 200})},
            {"microbatches", pick({1, 2})}};
  }
  if (strategy == "context_parallel") {
    return {{"cp", pick({1, 2, 3})},
            {"exchange", name({"ring", "all_gather", "all_to_all"})},
            {"kv_block", "16"},
            {"pp", pick({1, 2})},
            {"microbatches", pick({1, 2})}};
  }
  return {};
}

ClusterSpec random_round_cluster(Random& random, std::int64_t devices, bool shared) {
  const std::int64_t per_node = one_of(random, {1, 2, devices});
  ClusterSpec cluster = round_cluster((devices + per_node - 1) / per_node, per_node);
  NodeType& node = cluster.node_types[0];
  node.fabrics[0].latency = Seconds{1e-7 * static_cast<double>(random.integer(0, 50))};
  node.fabrics[0].bandwidth = BytesPerSecond{1e8 * static_cast<double>(random.integer(1, 100))};
  if (shared) node.nics->owner = NicOwner::node;
  return cluster;
}

// nullopt where the strategy refuses the options.
std::optional<FoldCase> random_fold_case(std::uint64_t seed, std::string_view strategy,
                                         bool shared) {
  Random random(seed);
  const std::int64_t requests = random.integer(1, 5);
  const ModelSpec model = tiny_model(random.integer(1, 14));
  const OptionValues options = random_options(random, strategy);
  const auto named = make_strategy(strategy, options, model);
  if (!named) return std::nullopt;
  const std::int64_t devices = named->strategy->num_devices();
  PlanHeader header = tiny_header(devices, model.num_layers, requests);
  header.strategy = named->label;
  const double logits = random.uniform();
  header.logits = logits < 0.3   ? LogitsWanted::none
                  : logits < 0.8 ? LogitsWanted::last
                                 : LogitsWanted::all;
  const auto count = static_cast<std::size_t>(requests);
  StepShape shape(count, {.past_len = 48, .q_len = 16, .max_len = 64});
  if (requests > 1) shape[0] = {.past_len = 4, .q_len = 16, .max_len = 64};  // A short one.
  StepLengths lengths;
  const bool decode = random.uniform() < 0.5;
  for (std::size_t r = 0; r < count; ++r) {
    const std::int64_t q_len = decode ? 1 : random.integer(0, 16);
    lengths.push_back({.q_len = q_len, .kv_len = random.integer(q_len, 64)});
  }
  ClusterSpec cluster = random_round_cluster(random, devices, shared);
  if (!shared && random.uniform() < 0.4) cluster = load_cluster("h100-sxm:4").value();
  return FoldCase{
      .name = fmt::format("seed {}: {}, {} layers", seed, named->label, model.num_layers),
      .header = std::move(header),
      .layouts = named->strategy->layouts(shape),
      .cluster = std::move(cluster),
      .lengths = std::move(lengths)};
}

FoldedStep folded(const FoldCase& made, const SimulateOptions& options = {}) {
  const auto machine = Machine::make(made.cluster);
  auto step = simulate_folded(made.header, made.layouts, *machine, made.lengths, options);
  EXPECT_TRUE(step.has_value()) << made.name << ": " << step.error().message;
  return *std::move(step);
}

void expect_near(double a, double b, const std::string& where) {
  EXPECT_LE(std::abs(a - b), 1e-12 * std::max(std::abs(a), std::abs(b))) << where;
}

void expect_equal(const DeviceMetrics& folded, const DeviceMetrics& whole,
                  const std::string& where) {
  EXPECT_EQ(folded.name, whole.name) << where;
  EXPECT_EQ(folded.breakdown, whole.breakdown) << where;
  EXPECT_EQ(folded.waiting_for_others, whole.waiting_for_others) << where;
  EXPECT_EQ(folded.utilisation, whole.utilisation) << where;
  for (const OpClass c : kOpClasses) {
    EXPECT_EQ(folded.work[c].tasks, whole.work[c].tasks) << where << " " << to_string(c);
    EXPECT_EQ(folded.work[c].time, whole.work[c].time) << where << " " << to_string(c);
    expect_near(folded.work[c].flops, whole.work[c].flops, where);
    expect_near(folded.work[c].bytes, whole.work[c].bytes, where);
  }
}

// Where all layers are alike, several moments may be equally full; which of them is told is not
// said.
void expect_equal(DeviceMemory folded, DeviceMemory whole, bool one_moment,
                  const std::string& where) {
  EXPECT_EQ(folded.total(), whole.total()) << where;
  if (!one_moment) {
    for (DeviceMemory* memory : {&folded, &whole})
      memory->activations = memory->attention = memory->comm_buffers = 0;
  }
  EXPECT_EQ(folded, whole) << where;
}

// Simulates the whole step and compares all there is; whether the step was folded.
bool equals_the_whole(const FoldCase& made) {
  const auto plan = validate(lower(made.header, made.layouts));
  EXPECT_TRUE(plan.has_value()) << made.name << ": " << join_problems(plan.error());
  const auto whole = simulate(*plan, made.cluster, made.lengths);
  EXPECT_TRUE(whole.has_value()) << made.name << ": " << whole.error().message;
  const FoldedStep step = folded(made);
  EXPECT_EQ(step.step.timeline.end, whole->timeline.end) << made.name;
  EXPECT_EQ(step.step.timeline.steps, whole->timeline.steps) << made.name;
  EXPECT_EQ(step.step.timeline.devices, whole->timeline.devices) << made.name;
  EXPECT_EQ(step.step.links_shared, whole->links_shared) << made.name;
  EXPECT_EQ(step.folded, !whole->links_shared) << made.name;
  for (std::size_t d = 0; d < step.memory.size(); ++d)
    expect_equal(step.memory[d], plan->memory()[d], cuts_last_layer(made.header), made.name);
  expect_near(step.step.usd, whole->usd, made.name);
  const Metrics metrics = compute_metrics(whole->timeline);
  EXPECT_EQ(step.devices.size(), metrics.devices.size()) << made.name;
  for (std::size_t d = 0; d < step.devices.size(); ++d) {
    const std::string where = fmt::format("{}, device {}", made.name, d);
    expect_near(step.step.joules[d], whole->joules[d], where);
    expect_equal(step.devices[d], metrics.devices[d], where);
  }
  return step.folded;
}

struct Strategies : testing::TestWithParam<const char*> {};

TEST_P(Strategies, FoldedStepsEqualWholeOnes) {
  int cases = 0;
  int folded = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const auto made = random_fold_case(seed, GetParam(), false);
    if (!made) continue;
    ++cases;
    if (equals_the_whole(*made)) ++folded;
  }
  EXPECT_GE(cases, 20);
  EXPECT_GE(folded, cases * 9 / 10);  // A few meet on a link between nodes.
}

TEST_P(Strategies, WhereLinksAreSharedTheWholeStepIsSimulated) {
  for (std::uint64_t seed = 0; seed < 25; ++seed) {
    const auto made = random_fold_case(seed, GetParam(), true);
    if (made) equals_the_whole(*made);
  }
}

INSTANTIATE_TEST_SUITE_P(Fold, Strategies,
                         testing::Values("single", "tp_pp", "attention_pool", "two_level",
                                         "cache_fit", "context_parallel"),
                         [](const auto& strategy) { return std::string(strategy.param); });

// Of 40 layers.
FoldCase plain_case(std::string_view strategy, const OptionValues& options) {
  const ModelSpec model = tiny_model(40);
  const auto named = make_strategy(strategy, options, model);
  EXPECT_TRUE(named.has_value()) << named.error().message;
  PlanHeader header = tiny_header(named->strategy->num_devices(), 40, 4);
  const StepShape shape(4, {.past_len = 48, .q_len = 16, .max_len = 64});
  StepLengths lengths = header.limits;
  return {.name = named->label,
          .header = std::move(header),
          .layouts = named->strategy->layouts(shape),
          .cluster = round_cluster(1, named->strategy->num_devices()),
          .lengths = std::move(lengths)};
}

std::vector<std::int64_t> repeats_of(const FoldCase& made) {
  const auto plan = FoldedPlan::make(made.header, made.layouts);
  EXPECT_TRUE(plan.has_value()) << plan.error().message;
  return {plan->layer_repeats().begin(), plan->layer_repeats().end()};
}

TEST(Fold, APlanHasOneLayerOfEachKind) {
  using Repeats = std::vector<std::int64_t>;
  // The last one does less than the others where only the last logits are wanted.
  FoldCase last = plain_case("tp_pp", {{"tp", "4"}});
  last.header.logits = LogitsWanted::last;
  EXPECT_EQ(repeats_of(last), (Repeats{1, 38, 1}));
  for (RequestLengths& lengths : last.header.limits) lengths.q_len = 1;
  EXPECT_EQ(repeats_of(last), (Repeats{1, 39}));
  EXPECT_EQ(repeats_of(plain_case("tp_pp", {{"tp", "4"}})), (Repeats{1, 39}));
  // The first layer of a stage takes the residual over from the stage before.
  EXPECT_EQ(repeats_of(plain_case("tp_pp", {{"tp", "2"}, {"pp", "3"}, {"microbatches", "2"}})),
            (Repeats{1, 13, 1, 12, 1, 12}));
  EXPECT_EQ(repeats_of(plain_case("attention_pool", {{"tp", "2"},
                                                     {"pool", "2"},
                                                     {"pool_policy", "fixed"},
                                                     {"threshold", "32"},
                                                     {"kv_block", "16"},
                                                     {"microbatches", "2"}})),
            (Repeats{1, 39}));
  // Partitions of one layer that take turns.
  EXPECT_EQ(repeats_of(plain_case("cache_fit", {{"devices", "2"}, {"capacity_kib", "50"}})),
            (Repeats{1, 19, 19, 1}));
}

TEST(Fold, ALayerThatDiffersStandsForItself) {
  FoldCase made = plain_case("tp_pp", {{"tp", "4"}});
  MicrobatchLayouts& microbatch = made.layouts.microbatches[0];
  LayerLayouts other = microbatch.distinct[0];
  std::swap(other.ffn_hidden.pieces[0].box, other.ffn_hidden.pieces[3].box);
  microbatch.distinct.push_back(std::move(other));
  microbatch.of_layer[17] = 1;
  EXPECT_EQ(repeats_of(made), (std::vector<std::int64_t>{1, 37, 1, 1}));
  EXPECT_TRUE(equals_the_whole(made));
}

TEST(Fold, DevicesThatDifferAreToldApart) {
  FoldCase made = plain_case("tp_pp", {{"tp", "4"}});
  DeviceType slow = made.cluster.device_types[0];
  slow.name = "slow";
  slow.memory_bandwidth = BytesPerSecond{50e9};
  made.cluster.device_types.push_back(slow);
  made.cluster.node_types[0].devices = {{.type = 0, .count = 3}, {.type = 1, .count = 1}};
  made.cluster.devices.clear();
  list_devices(made.cluster);
  EXPECT_TRUE(equals_the_whole(made));
  const FoldedStep step = folded(made);
  EXPECT_EQ(step.devices[0].waiting_for_others, step.devices[2].waiting_for_others);
  EXPECT_GT(step.devices[0].waiting_for_others, step.devices[3].waiting_for_others);
}

TEST(Fold, TheEventLoopIsNotFolded) {
  const FoldCase made = plain_case("tp_pp", {{"tp", "2"}});
  SimulateOptions options;
  options.method = SimulationMethod::event_loop;
  EXPECT_FALSE(folded(made, options).folded);
}

TEST(Fold, MemoryThatDoesNotSufficeIsToldAsOfTheWholePlan) {
  FoldCase made = plain_case("tp_pp", {{"tp", "2"}});
  for (PlanHeader::Device& device : made.header.devices) device.memory_bytes = 200'000;
  const auto whole = validate(lower(made.header, made.layouts));
  ASSERT_FALSE(whole.has_value());
  const auto plan = FoldedPlan::make(made.header, made.layouts);
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().message, fmt::format("{}: no valid plan: {}", made.header.strategy,
                                              join_problems(whole.error())));
}

TEST(Fold, RefusesLengthsBeyondTheLimits) {
  FoldCase made = plain_case("tp_pp", {{"tp", "2"}});
  made.lengths[1].kv_len = 65;
  const auto machine = Machine::make(made.cluster);
  const auto step = simulate_folded(made.header, made.layouts, *machine, made.lengths);
  ASSERT_FALSE(step.has_value());
  EXPECT_EQ(step.error().message, "lengths[1].kv_len: found 65, allowed 16..64");
}

TEST(Fold, OnePlanServesStepsOfManyLengths) {
  FoldCase made = plain_case("tp_pp", {{"tp", "4"}, {"pp", "2"}});
  const auto machine = Machine::make(made.cluster);
  const auto plan = FoldedPlan::make(made.header, made.layouts);
  ASSERT_TRUE(plan.has_value());
  std::set<std::int64_t> ends;
  for (const std::int64_t kv_len : {17, 33, 64}) {
    made.lengths.assign(4, {.q_len = 1, .kv_len = kv_len});
    const auto step = simulate_folded(*plan, *machine, made.lengths);
    ASSERT_TRUE(step.has_value() && step->has_value());
    EXPECT_EQ((*step)->step.timeline.end, folded(made).step.timeline.end);
    ends.insert((*step)->step.timeline.end.ns);
  }
  EXPECT_EQ(ends.size(), 3U);
}

}  // namespace
}  // namespace weir
