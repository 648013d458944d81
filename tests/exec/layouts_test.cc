// Whatever layouts a plan is made of, its devices compute what one device computes. The layouts are
// written by hand, one for each way in which a tensor can be split and moved.

#include <functional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "strategy/tensor_parallel.h"
#include "tests/exec/machine.h"

namespace weir {
namespace {

constexpr std::int64_t kBatch = 3;

// One piece per device; `box` gives the i-th.
Layout pieces(const std::vector<DeviceId>& devices, const std::function<Box(std::int64_t)>& box) {
  Layout layout;
  for (const DeviceId device : devices) {
    layout.pieces.push_back({.device = device,
                             .box = box(static_cast<std::int64_t>(layout.pieces.size())),
                             .over = {}});
  }
  return layout;
}
Layout token_blocks(const std::vector<DeviceId>& devices) {
  const auto n = static_cast<std::int64_t>(devices.size());
  return pieces(devices, [n](std::int64_t i) { return Box{.token = Range::block(i, n)}; });
}
Layout head_blocks(const std::vector<DeviceId>& devices, std::int64_t heads) {
  const auto n = static_cast<std::int64_t>(devices.size());
  return pieces(devices, [=](std::int64_t i) {
    return Box{.head = Range::of(i * heads / n, (i + 1) * heads / n)};
  });
}
Layout on(DeviceId device) { return replicated({&device, 1}); }

// Positions up to 16, up to 100 and from there on.
Range third_of_positions(std::int64_t i) {
  const Range ranges[] = {
      Range::of(0, 16), Range::of(16, 100), {.begin = Bound::at(100), .end = Bound::end()}};
  return ranges[i];
}
Layout thirds_of_positions(const std::vector<DeviceId>& devices) {
  return pieces(devices, [](std::int64_t i) { return Box{.token = third_of_positions(i)}; });
}
// Attention of all queries and heads, each device over its third of the positions.
Layout partials_over_thirds(const std::vector<DeviceId>& devices) {
  Layout layout = replicated(devices);
  layout.kind = LayoutKind::softmax;
  for (std::size_t i = 0; i < devices.size(); ++i)
    layout.pieces[i].over.token = third_of_positions(static_cast<std::int64_t>(i));
  return layout;
}

// In one round, over K and V where they lie.
void set_attention(LayerLayouts& layer, const Layout& attention) {
  layer.attention = attention;
  layer.rounds = {plain_round(layer.k_cache, layer.v_cache, attention)};
}

LayerLayouts& layer_of(StepLayouts& layouts) { return layouts.microbatches[0].distinct[0]; }

// The residual split by tokens between ops.
StepLayouts sequence_parallel() {
  StepLayouts layouts = tensor_parallel(device_range(0, 4), kBatch);
  layer_of(layouts).residual = token_blocks(device_range(0, 4));
  return layouts;
}

// Everything split by tokens but attention, which is split by heads.
StepLayouts heads_for_tokens() {
  const auto group = device_range(0, 4);
  StepLayouts layouts = sequence_parallel();
  LayerLayouts& layer = layer_of(layouts);
  layer.q = token_blocks(group);
  layer.kv = token_blocks(group);
  layer.attention_out = token_blocks(group);
  layer.ffn_hidden = token_blocks(group);
  return layouts;
}

// Each device attends to the positions that it holds.
StepLayouts split_positions() {
  const auto devices = device_range(0, 3);
  StepLayouts layouts = tensor_parallel(device_range(0, 2), kBatch);
  LayerLayouts& layer = layer_of(layouts);
  set_cache(layer, thirds_of_positions(devices));
  set_attention(layer, partials_over_thirds(devices));
  return layouts;
}
// As above, all of it merged where it is held.
StepLayouts split_positions_merged_everywhere() {
  const auto devices = device_range(0, 3);
  StepLayouts layouts = split_positions();
  LayerLayouts& layer = layer_of(layouts);
  layer.attention_out = replicated(devices);
  layer.residual = replicated(devices);
  layer.ffn_hidden = replicated(devices);
  layouts.microbatches[0].embedding = replicated(devices);
  return layouts;
}
StepLayouts split_positions_merged_by_heads() {
  const auto devices = device_range(0, 3);
  StepLayouts layouts = split_positions();
  layer_of(layouts).attention_out = head_blocks(devices, 8);
  return layouts;
}
StepLayouts split_positions_merged_by_one() {
  StepLayouts layouts = split_positions();
  layer_of(layouts).attention_out = on(DeviceId{1});
  return layouts;
}
// One device attends to the first and the last positions, another to those between.
StepLayouts positions_apart() {
  StepLayouts layouts = tensor_parallel(device_range(0, 2), kBatch);
  LayerLayouts& layer = layer_of(layouts);
  const std::vector<DeviceId> holders = {DeviceId{0}, DeviceId{1}, DeviceId{0}};
  set_cache(layer, thirds_of_positions(holders));
  set_attention(layer, partials_over_thirds(holders));
  return layouts;
}

// A pool computes attention, a block of queries per device, each with a copy of K and V.
StepLayouts pool_of_query_blocks() {
  const auto pool = device_range(2, 5);
  StepLayouts layouts = tensor_parallel(device_range(0, 2), kBatch);
  LayerLayouts& layer = layer_of(layouts);
  set_cache(layer, replicated(pool));
  set_attention(layer, token_blocks(pool));
  return layouts;
}

// One device has the residual, four the weights.
StepLayouts central_residual() {
  const auto group = device_range(0, 4);
  StepLayouts layouts = tensor_parallel(group, kBatch);
  MicrobatchLayouts& microbatch = layouts.microbatches[0];
  microbatch.distinct[0].residual = on(DeviceId{0});
  LayerLayouts central_attention = microbatch.distinct[0];
  central_attention.attention_out = on(DeviceId{0});
  microbatch.distinct.push_back(central_attention);
  microbatch.of_layer = {0, 1};
  return layouts;
}

// K and V whole on each device, of the attention output a part of each head's dimensions.
StepLayouts value_slices() {
  const auto group = device_range(0, 4);
  StepLayouts layouts = tensor_parallel(group, kBatch);
  LayerLayouts& layer = layer_of(layouts);
  layer.kv = replicated(group);
  set_cache(layer, layer.kv);
  layer.attention_out =
      pieces(group, [](std::int64_t i) { return Box{.dim = Range::of(2 * i, 2 * i + 2)}; });
  set_attention(layer, layer.attention_out);
  return layouts;
}
// The same with K and V projected in slices.
StepLayouts projected_slices() {
  const auto group = device_range(0, 4);
  StepLayouts layouts = value_slices();
  layer_of(layouts).kv = layer_of(layouts).attention;
  layer_of(layouts).q = layer_of(layouts).attention;
  return layouts;
}

// Where the sampler sits, each device gives a part of the vocabulary.
StepLayouts split_logits_out() {
  StepLayouts layouts = tensor_parallel(device_range(0, 4), kBatch);
  layouts.microbatches[0].logits_out = layouts.microbatches[0].logits;
  return layouts;
}

struct Case {
  const char* name;
  std::int64_t num_devices;
  StepLayouts (*layouts)();
  std::set<OpKind> moves;  // How tensors get from device to device.
};
using enum OpKind;
const Case kCases[] = {
    {"SequenceParallel", 4, sequence_parallel, {reduce_scatter, all_gather, gather}},
    {"HeadsForTokens",
     4,
     heads_for_tokens,
     {reduce_scatter, all_gather, all_to_all, kv_copy, gather}},
    {"SplitPositions", 3, split_positions, {all_reduce, gather, copy, kv_copy}},
    {"SplitPositionsMergedEverywhere",
     3,
     split_positions_merged_everywhere,
     {all_reduce, gather, copy, kv_copy}},
    {"SplitPositionsMergedByHeads",
     3,
     split_positions_merged_by_heads,
     {reduce_scatter, all_reduce, gather, copy, kv_copy}},
    {"SplitPositionsMergedByOne",
     3,
     split_positions_merged_by_one,
     {reduce, all_reduce, gather, copy, kv_copy}},
    {"PositionsApart",
     2,
     positions_apart,
     {reduce_scatter, all_reduce, all_gather, gather, kv_copy}},
    {"PoolOfQueryBlocks", 5, pool_of_query_blocks, {all_reduce, kv_copy, copy, gather}},
    {"CentralResidual", 4, central_residual, {broadcast, reduce, gather}},
    {"ValueSlices", 4, value_slices, {all_reduce, all_gather, gather}},
    {"ProjectedSlices", 4, projected_slices, {all_reduce, all_gather, kv_copy, gather}},
    {"SplitLogitsOut", 4, split_logits_out, {all_reduce}},
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::set<std::string> moves_of(const Plan& plan) {
  std::set<std::string> moves;
  for (const Node& node : plan.nodes) {
    if (queue_of(node.kind) == Queue::comm) moves.emplace(to_string(node.kind));
  }
  return moves;
}

Logits from_one_device(const TestMachine::Options& options) {
  TestMachine machine(options);
  return generate(machine, machine.plan(tensor_parallel(device_range(0, 1), kBatch), kBatch));
}

class Layouts : public testing::TestWithParam<Case> {};

TEST_P(Layouts, GiveWhatOneDeviceGives) {
  TestMachine machine({.num_devices = GetParam().num_devices});
  expect_near(generate(machine, machine.plan(GetParam().layouts(), kBatch)), from_one_device({}));
}

TEST_P(Layouts, GiveTheLogitsOfAllTokens) {
  TestMachine machine({.num_devices = GetParam().num_devices, .logits = LogitsWanted::all});
  const ValidPlan plan = machine.plan(GetParam().layouts(), kBatch);
  std::set<std::string> expected_moves;
  for (const OpKind kind : GetParam().moves) expected_moves.emplace(to_string(kind));
  EXPECT_EQ(moves_of(plan.plan()), expected_moves);
  expect_near(generate(machine, plan), from_one_device({.logits = LogitsWanted::all}));
}

TEST_P(Layouts, KeepTheCacheInACoarserDtype) {
  TestMachine machine({.num_devices = GetParam().num_devices, .kv_dtype = DType::bf16});
  expect_near(generate(machine, machine.plan(GetParam().layouts(), kBatch)),
              from_one_device({.kv_dtype = DType::bf16}), DType::bf16);
}

TEST_P(Layouts, RepeatTheirBits) {
  TestMachine first({.num_devices = GetParam().num_devices});
  TestMachine second({.num_devices = GetParam().num_devices});
  EXPECT_EQ(generate(first, first.plan(GetParam().layouts(), kBatch)),
            generate(second, second.plan(GetParam().layouts(), kBatch)));
}

INSTANTIATE_TEST_SUITE_P(ByHand, Layouts, testing::ValuesIn(kCases),
                         [](const testing::TestParamInfo<Case>& test) {
                           return std::string(test.param.name);
                         });

// A second device joins while a sequence grows: what is there stays, what comes is kept there.
TEST(GrowingLayouts, LetADeviceJoin) {
  const auto both = device_range(0, 2);
  const StepLayouts alone = tensor_parallel(device_range(0, 1), 1);
  const Layout cache = pieces(both, [](std::int64_t i) {
    return Box{.token =
                   i == 0 ? Range::of(0, 60) : Range{.begin = Bound::at(60), .end = Bound::end()}};
  });
  Layout attention = replicated(both);
  attention.kind = LayoutKind::softmax;
  for (std::size_t i = 0; i < 2; ++i) attention.pieces[i].over.token = cache.pieces[i].box.token;
  StepLayouts later = alone;
  set_cache(layer_of(later), cache);
  set_attention(layer_of(later), attention);
  StepLayouts joined = later;
  layer_of(joined).k_cache_before = layer_of(joined).v_cache_before = on(DeviceId{0});

  TestMachine machine({.num_devices = 2});
  TestMachine single({});
  const ValidPlan one = single.plan(alone, 1);
  const auto both_run = [&](const StepLayouts& layouts, const Tokens& tokens) {
    expect_near(machine.run(machine.plan(layouts, 1), {{1, tokens}}),
                single.run(one, {{1, tokens}}));
  };
  both_run(alone, some_tokens(60, 1));
  const std::int64_t before = machine.executor().held()[0].kv_cache;
  both_run(joined, some_tokens(30, 2));
  both_run(later, {5});
  both_run(later, {6});
  EXPECT_EQ(machine.executor().held()[0].kv_cache, before);
  EXPECT_GT(machine.executor().held()[1].kv_cache, 0);
}

// From group to group, cut by heads otherwise each time; devices that had a part before keep it in
// another cut.
TEST(GrowingLayouts, LetACacheMove) {
  const std::vector<std::vector<DeviceId>> groups = {device_range(0, 1), device_range(1, 3),
                                                     device_range(0, 3), device_range(2, 3),
                                                     device_range(1, 3)};
  TestMachine machine({.num_devices = 3});
  TestMachine single({});
  const ValidPlan one = single.plan(tensor_parallel(groups[0], 1), 1);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    SCOPED_TRACE(i);
    StepLayouts staying = tensor_parallel(groups[i], 1);
    StepLayouts moving = staying;
    StepLayouts before = tensor_parallel(groups[i == 0 ? 0 : i - 1], 1);
    layer_of(moving).k_cache_before = layer_of(before).k_cache;
    layer_of(moving).v_cache_before = layer_of(before).v_cache;
    for (const StepLayouts* layouts : {&moving, &staying}) {
      const Tokens tokens = some_tokens(21, 3);
      expect_near(machine.run(machine.plan(*layouts, 1), {{1, tokens}}),
                  single.run(one, {{1, tokens}}));
    }
  }
}

}  // namespace
}  // namespace weir
