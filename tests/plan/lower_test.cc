#include "plan/lower.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "plan/validate.h"
#include "tests/plan/broken_plans.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

using enum OpKind;
using Kinds = std::vector<OpKind>;

Kinds kinds_of(const Plan& plan) {
  Kinds kinds;
  for (const Node& node : plan.nodes) kinds.push_back(node.kind);
  return kinds;
}

Kinds joined(const std::vector<Kinds>& parts) {
  Kinds all;
  for (const Kinds& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

std::size_t count_of(const Plan& plan, OpKind kind) {
  return static_cast<std::size_t>(std::ranges::count(plan.nodes, kind, &Node::kind));
}

const Kinds kLayerOfOne = {attn_norm, qkv_proj, rope,   kv_append,  attention, o_proj,
                           add,       ffn_norm, ffn_up, activation, ffn_down,  add};
const Kinds kLayerOfMany = {attn_norm,  qkv_proj,   rope,       kv_append, attention,
                            o_proj,     all_reduce, add,        ffn_norm,  ffn_up,
                            activation, ffn_down,   all_reduce, add};

TEST(Lower, ASingleDeviceComputesAndNeverCommunicates) {
  const Plan plan = single_device_plan();
  EXPECT_EQ(kinds_of(plan), joined({{embed}, kLayerOfOne, kLayerOfOne, {final_norm, lm_head}}));
  EXPECT_TRUE(plan.devices[0].comm.empty());
  EXPECT_EQ(plan.devices[0].compute.size(), plan.nodes.size());
}

TEST(Lower, TensorParallelLayersAllReduceTwice) {
  const Plan plan = tensor_parallel_plan();
  EXPECT_EQ(kinds_of(plan),
            joined({{embed}, kLayerOfMany, kLayerOfMany, {final_norm, lm_head, gather}}));
}

TEST(Lower, StagesHandOnTheResidualOnce) {
  const Plan plan = two_stage_plan();
  EXPECT_EQ(kinds_of(plan),
            joined({{embed}, kLayerOfMany, {copy}, kLayerOfMany, {final_norm, lm_head, gather}}));
  const auto handed_on = std::ranges::find(plan.nodes, copy, &Node::kind);
  EXPECT_EQ(plan.at(handed_on->inputs.front()).role, Role::residual);
  EXPECT_EQ(plan.at(handed_on->devices), device_range(0, 4));
}

TEST(Lower, EveryNodeStandsInTheRightQueueOfEachOfItsDevices) {
  const Plan plan = two_stage_plan();
  for (std::size_t device = 0; device < plan.devices.size(); ++device) {
    std::vector<NodeId> compute;
    std::vector<NodeId> comm;
    for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
      const Node& node = plan.nodes[i];
      if (!std::ranges::binary_search(plan.at(node.devices), static_cast<DeviceId>(device)))
        continue;
      (queue_of(node.kind) == Queue::compute ? compute : comm).push_back(static_cast<NodeId>(i));
    }
    EXPECT_EQ(plan.devices[device].compute, compute) << "device " << device;
    EXPECT_EQ(plan.devices[device].comm, comm) << "device " << device;
  }
}

TEST(Lower, EveryValueButTheCacheBeforeIsWrittenOnce) {
  const Plan plan = two_stage_plan();
  std::vector<int> writers(plan.values.size(), 0);
  for (const Node& node : plan.nodes) {
    for (const ValueId value : node.outputs) ++writers[index_of(value)];
  }
  std::size_t unwritten = 0;
  for (std::size_t i = 0; i < writers.size(); ++i) {
    EXPECT_LE(writers[i], 1);
    if (writers[i] > 0) continue;
    ++unwritten;
    EXPECT_TRUE(is_cache(plan.values[i].role));
  }
  EXPECT_EQ(unwritten, 4U);  // K and V of each layer.
}

TEST(Lower, BranchesArePartialSumsOverTheirOwnHeadsAndColumns) {
  const Plan plan = tensor_parallel_plan();
  const auto projection = std::ranges::find(plan.nodes, o_proj, &Node::kind);
  const Layout& branch = plan.layout_of(projection->outputs.front());
  EXPECT_EQ(branch.kind, LayoutKind::sum);
  ASSERT_EQ(branch.pieces.size(), 2U);
  EXPECT_EQ(branch.pieces[0].over.head, Range::of(0, 2));
  EXPECT_EQ(branch.pieces[1].over.head, Range::of(2, 4));
  const auto down = std::ranges::find(plan.nodes, ffn_down, &Node::kind);
  EXPECT_EQ(plan.layout_of(down->outputs.front()).pieces[1].over.dim, Range::of(32, 64));
}

TEST(Lower, LayoutsTileTheirTensors) {
  for (const Plan& plan : {single_device_plan(), tensor_parallel_plan(), two_stage_plan()}) {
    for (const Value& value : plan.values) {
      const auto problems =
          problems_of(plan.layouts[index_of(value.layout)], shape_of(plan, value).domain);
      EXPECT_EQ(problems, std::vector<std::string>{}) << to_string(value.role);
    }
  }
}

TEST(Lower, EqualLayoutsAndGroupsAreStoredOnce) {
  const Plan plan = two_stage_plan();
  for (std::size_t i = 0; i < plan.layouts.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(plan.layouts[i], plan.layouts[j]);
  }
  const std::set<std::vector<DeviceId>> distinct(plan.groups.begin(), plan.groups.end());
  EXPECT_EQ(distinct.size(), plan.groups.size());
}

TEST(Lower, HeadsOfOneDeviceInSeveralPiecesAreAddedUpWhereTheyLie) {
  // Attention tiled head by head on one device: o_proj writes a partial sum per tile.
  const PlanHeader header = tiny_header(1);
  StepLayouts layouts = tensor_parallel_layouts(header, device_range(0, 1));
  LayerLayouts& layer = layouts.microbatches[0].distinct[0];
  layer.attention_out.pieces.clear();
  for (std::int64_t head = 0; head < header.model.num_q_heads; ++head) {
    layer.attention_out.pieces.push_back(
        {.device = DeviceId{0}, .box = {.head = Range::of(head, head + 1)}, .over = {}});
  }
  layer.q = layer.attention = layer.rounds[0].attention = layer.attention_out;
  const Plan plan = lower(header, layouts);
  EXPECT_EQ(count_of(plan, copy), 2U);
  EXPECT_EQ(problems_in(plan), std::vector<std::string>{});
}

TEST(Lower, WhatItWritesIsValid) {
  EXPECT_EQ(problems_in(single_device_plan()), std::vector<std::string>{});
  EXPECT_EQ(problems_in(tensor_parallel_plan()), std::vector<std::string>{});
  EXPECT_EQ(problems_in(two_stage_plan()), std::vector<std::string>{});
}

TEST(Lower, KeyBlocksOnTwoDevicesAreMergedBySoftmax) {
  // Heads stay whole on device 0; keys are split between both devices, which share the cache.
  const PlanHeader header = tiny_header(2);
  StepLayouts layouts = tensor_parallel_layouts(header, device_range(0, 1));
  LayerLayouts& layer = layouts.microbatches[0].distinct[0];
  layer.k_cache.pieces.clear();
  layer.attention = {.kind = LayoutKind::softmax, .pieces = {}};
  for (std::uint32_t i = 0; i < 2; ++i) {
    const Range keys = Range::block(i, 2);
    layer.k_cache.pieces.push_back({.device = DeviceId{i}, .box = {.token = keys}, .over = {}});
    layer.attention.pieces.push_back({.device = DeviceId{i}, .box = {}, .over = {.token = keys}});
  }
  layer.v_cache = layer.k_cache_before = layer.v_cache_before = layer.k_cache;
  layer.rounds[0].k_cache = layer.rounds[0].v_cache = layer.k_cache;
  layer.rounds[0].attention = layer.attention;
  const Plan plan = lower(header, layouts);
  const Kinds expected = {attn_norm, qkv_proj, rope,     kv_copy, copy,       attention, reduce,
                          o_proj,    add,      ffn_norm, ffn_up,  activation, ffn_down,  add};
  EXPECT_EQ(kinds_of(plan), joined({{embed}, expected, expected, {final_norm, lm_head}}));
}

TEST(Lower, SequenceParallelResidualsScatterAndGather) {
  // The residual cut by tokens between the two all-reduce halves.
  const PlanHeader header = tiny_header(2);
  StepLayouts layouts = tensor_parallel_layouts(header, device_range(0, 2));
  Layout by_token;
  for (std::uint32_t i = 0; i < 2; ++i) {
    by_token.pieces.push_back(
        {.device = DeviceId{i}, .box = {.token = Range::block(i, 2)}, .over = {}});
  }
  layouts.microbatches[0].distinct[0].residual = by_token;
  const Plan plan = lower(header, layouts);
  EXPECT_EQ(count_of(plan, all_reduce), 0U);
  EXPECT_EQ(count_of(plan, reduce_scatter), 4U);
  EXPECT_EQ(count_of(plan, all_gather), 4U + 1U);  // Before lm_head.
  EXPECT_EQ(problems_in(plan), std::vector<std::string>{});
}

TEST(Lower, WithoutLogitsTheStepEndsInTheLastCache) {
  PlanHeader header = tiny_header(1);
  header.logits = LogitsWanted::none;
  const Plan plan = lower(header, tensor_parallel_layouts(header, device_range(0, 1)));
  EXPECT_EQ(kinds_of(plan), joined({{embed}, kLayerOfOne, {attn_norm, qkv_proj, rope, kv_append}}));
  EXPECT_EQ(plan.nodes.back().inputs.size(), 4U);
  const Node& projection = plan.nodes[plan.nodes.size() - 3];
  ASSERT_EQ(projection.outputs.size(), 2U);
  EXPECT_EQ(plan.at(projection.outputs[0]).role, Role::k);
  EXPECT_EQ(plan.at(projection.outputs[1]).role, Role::v);
  EXPECT_EQ(problems_in(plan), std::vector<std::string>{});
}

Rows rows_of(const Plan& plan, const Node& node) { return plan.at(node.outputs[0]).rows; }

TEST(Lower, TheLastLayerGoesOnWithTheLastRows) {
  PlanHeader header = tiny_header(2);
  header.logits = LogitsWanted::last;
  const Plan plan = lower(header, tensor_parallel_layouts(header, device_range(0, 2)));
  const Kinds last = {attn_norm,  slice,    qkv_proj,   rope, kv_append, attention,
                      slice,      o_proj,   all_reduce, add,  ffn_norm,  ffn_up,
                      activation, ffn_down, all_reduce, add};
  EXPECT_EQ(kinds_of(plan), joined({{embed}, kLayerOfMany, last, {final_norm, lm_head, gather}}));
  bool cut = false;
  for (const Node& node : plan.nodes) {
    cut = cut || node.kind == slice;
    const Rows expected = cut && node.kind != kv_append ? Rows::last : Rows::all;
    EXPECT_EQ(rows_of(plan, node), expected) << to_string(node.kind);
  }
  EXPECT_EQ(problems_in(plan), std::vector<std::string>{});
}

TEST(Lower, OfOneNewTokenThereIsNothingToLeaveOut) {
  PlanHeader header = tiny_header(2, 2, 3);
  header.logits = LogitsWanted::last;
  for (RequestLengths& lengths : header.limits) lengths.q_len = 1;
  const Plan plan = lower(header, tensor_parallel_layouts(header, device_range(0, 2)));
  EXPECT_EQ(kinds_of(plan),
            joined({{embed}, kLayerOfMany, kLayerOfMany, {final_norm, lm_head, gather}}));
  EXPECT_FALSE(cuts_last_layer(header));
  header.limits[1].q_len = 2;  // One of them has more.
  EXPECT_TRUE(cuts_last_layer(header));
  EXPECT_EQ(count_of(lower(header, tensor_parallel_layouts(header, device_range(0, 2))), slice),
            2U);
}

TEST(Lower, MicrobatchesAreQueuedInTheOrderThatIsAskedFor) {
  const PlanHeader header = tiny_header(1, 1, 2);
  StepLayouts layouts = tensor_parallel_layouts(header, device_range(0, 1));
  MicrobatchLayouts second = layouts.microbatches[0];
  layouts.microbatches[0].requests = {.begin = 0, .end = 1};
  second.requests = {.begin = 1, .end = 2};
  layouts.microbatches.push_back(second);
  layouts.order.clear();
  for (const Phase& phase : in_microbatch_order(1, 1)) {
    for (std::int32_t microbatch = 0; microbatch < 2; ++microbatch) {
      layouts.order.push_back(phase);
      layouts.order.back().microbatch = microbatch;
    }
  }
  const Plan plan = lower(header, layouts);
  std::vector<std::int32_t> embeds;
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(plan.nodes[i].kind, embed);
    embeds.push_back(plan.nodes[i].microbatch);
  }
  EXPECT_EQ(embeds, (std::vector<std::int32_t>{0, 1}));
  EXPECT_EQ(plan.layout_of(plan.nodes[1].outputs.front()).pieces.front().box.request,
            Range::of(1, 2));
}

TEST(Lower, EqualStepLayoutsHashEqualAndOtherDevicesDiffer) {
  const PlanHeader header = tiny_header(2);
  const StepLayouts layouts = tensor_parallel_layouts(header, device_range(0, 2));
  StepLayouts other = layouts;
  EXPECT_EQ(hash_of(layouts), hash_of(other));
  other.microbatches[0].distinct[0].q.pieces[0].device = DeviceId{1};
  EXPECT_NE(hash_of(layouts), hash_of(other));
}

}  // namespace
}  // namespace weir
