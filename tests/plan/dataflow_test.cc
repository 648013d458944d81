#include "plan/dataflow.h"

#include <algorithm>

#include "tests/plan/broken_plans.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

TEST(Dataflow, AttentionReadsTheCacheAfterTheAppend) {
  Plan plan = tensor_pipeline_plan({});
  const NodeId attention = node_at(plan, OpKind::attention);
  at(plan, attention).inputs[1] = at(plan, node_at(plan, OpKind::kv_append)).inputs[2];
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, attention) + ": its k_cache is that of no op, allowed that of "
                                             "kv_append or kv_copy of layer 0"});
}

TEST(Dataflow, EveryLayerAppendsToItsOwnCache) {
  Plan plan = tensor_pipeline_plan({});
  const NodeId first = node_at(plan, OpKind::kv_append);
  const NodeId second = node_at(plan, OpKind::kv_append, {.layer = 1});
  std::swap(at(plan, first).inputs[2], at(plan, second).inputs[2]);
  EXPECT_EQ(problems_in(plan),
            (Problems{name(plan, first) + ": reads " + name(plan, at(plan, first).inputs[2]) +
                          ", allowed the cache of layer 0 before the step",
                      name(plan, second) + ": reads " + name(plan, at(plan, second).inputs[2]) +
                          ", allowed the cache of layer 1 before the step"}));
}

TEST(Dataflow, AnOpOfAnotherLayerIsMissingInItsOwn) {
  Plan plan = tensor_pipeline_plan({});
  const NodeId norm = node_at(plan, OpKind::attn_norm);
  at(plan, norm).layer = 1;
  at(plan, at(plan, norm).outputs[0]).layer = 1;
  EXPECT_EQ(problems_in(plan),
            (Problems{"layer 0 of microbatch 0: found 0 attn_norm ops, allowed 1",
                      "layer 1 of microbatch 0: found 2 attn_norm ops, allowed 1",
                      name(plan, norm) +
                          ": its residual is that of node 0 (embed, layer -1, microbatch 0), "
                          "allowed that of add (ffn_branch) of layer 0",
                      name(plan, node_at(plan, OpKind::qkv_proj)) + ": its normed is that of " +
                          name(plan, norm) + ", allowed that of attn_norm of layer 0"}));
}

TEST(Dataflow, EveryLayerOfTheModelIsThere) {
  Plan plan = tensor_pipeline_plan({});
  plan.model.num_layers = 3;
  Problems expected = {"layer 2 of microbatch 0: found no attention op"};
  for (const char* op :
       {"attn_norm", "qkv_proj", "rope", "kv_append or kv_copy", "o_proj", "add (attn_branch)",
        "ffn_norm", "ffn_up", "activation", "ffn_down", "add (ffn_branch)"})
    expected.push_back(fmt::format("layer 2 of microbatch 0: found 0 {} ops, allowed 1", op));
  const NodeId norm = node_at(plan, OpKind::final_norm, {.layer = 1});
  const NodeId last = node_at(plan, OpKind::add, {.layer = 1, .skip = 1});
  expected.push_back(name(plan, norm) + ": its residual is that of " + name(plan, last) +
                     ", allowed that of add (ffn_branch) of layer 2");
  EXPECT_EQ(problems_in(plan), expected);
}

TEST(Dataflow, TheSamplerFindsOneSetOfLogits) {
  Plan plan = tensor_pipeline_plan({});
  const NodeId head = node_at(plan, OpKind::lm_head, {.layer = 1});
  Node again = plan.at(head);
  plan.values.push_back(plan.at(again.outputs[0]));
  again.outputs[0] = static_cast<ValueId>(plan.values.size() - 1);
  plan.devices[0].compute.push_back(static_cast<NodeId>(plan.nodes.size()));
  plan.nodes.push_back(again);
  EXPECT_EQ(problems_in(plan),
            (Problems{"microbatch 0: found 2 lm_head ops, allowed 1",
                      "microbatch 0: found 2 logits that no op reads, allowed 1"}));
}

TEST(Dataflow, LogitsAreComputedOnlyWhereTheyAreWanted) {
  Plan plan = tensor_pipeline_plan({.logits = LogitsWanted::all});
  plan.logits = LogitsWanted::none;
  Problems expected = {
      "layer 1 of microbatch 0: found an attention op, allowed none without logits"};
  for (const char* op : {"o_proj", "add (attn_branch)", "ffn_norm", "ffn_up", "activation",
                         "ffn_down", "add (ffn_branch)"})
    expected.push_back(fmt::format("layer 1 of microbatch 0: found 1 {} ops, allowed 0", op));
  expected.emplace_back("microbatch 0: found 1 lm_head ops, allowed 0");
  expected.emplace_back("microbatch 0: found 1 logits that no op reads, allowed 0");
  EXPECT_EQ(problems_in(plan), expected);
}

TEST(Dataflow, RowsAreLeftOutInTheLastLayerOnly) {
  Plan plan = tensor_pipeline_plan({.logits = LogitsWanted::last});
  ASSERT_EQ(problems_in(plan), Problems{});
  plan.logits = LogitsWanted::all;
  Problems expected;
  for (std::size_t i = 0; i < plan.values.size(); ++i) {
    if (plan.values[i].rows == Rows::last)
      expected.push_back(name(plan, static_cast<ValueId>(i)) + ": found last rows, allowed all");
  }
  EXPECT_GT(expected.size(), 10U);
  EXPECT_EQ(problems_in(plan), expected);
}

TEST(Dataflow, TheLogitsAreThoseThatAreWanted) {
  Plan plan = tensor_pipeline_plan({.logits = LogitsWanted::all});
  plan.logits = LogitsWanted::last;
  const ValueId logits = plan.at(node_at(plan, OpKind::lm_head, {.layer = 1})).outputs[0];
  EXPECT_EQ(problems_in(plan), Problems{name(plan, logits) + ": found all rows, allowed last"});
  plan.limits = {{.q_len = 1, .kv_len = 12}};  // The one row is the last.
  EXPECT_EQ(problems_in(plan), Problems{});
}

TEST(Dataflow, TheLastRowsDoNotBecomeAll) {
  // What q is made of is copied to where all rows would be, and cut again.
  Plan plan = tensor_pipeline_plan({.logits = LogitsWanted::last});
  const NodeId cut = node_at(plan, OpKind::slice, {.layer = 1});
  const auto add_value = [&](const Value& value) {
    plan.values.push_back(value);
    return static_cast<ValueId>(plan.values.size() - 1);
  };
  const ValueId all_again = add_value(Value(plan.at(plan.at(cut).inputs[0])));
  const ValueId last_again = add_value(Value(plan.at(plan.at(cut).outputs[0])));
  Node back = plan.at(cut);
  back.kind = OpKind::copy;
  back.inputs = plan.at(cut).outputs;
  back.outputs = {all_again};
  Node again = plan.at(cut);
  again.inputs = {all_again};
  again.outputs = {last_again};
  const auto first = static_cast<NodeId>(plan.nodes.size());
  plan.nodes.push_back(back);
  plan.nodes.push_back(again);
  const NodeId projection = node_at(plan, OpKind::qkv_proj, {.layer = 1});
  at(plan, projection).inputs[0] = last_again;
  PlanDevice& device = plan.devices[0];
  device.comm.push_back(first);
  device.compute.insert(std::ranges::find(device.compute, projection),
                        static_cast<NodeId>(index_of(first) + 1));
  EXPECT_EQ(problems_in(plan), Problems{name(plan, first) + ": makes all rows of the last ones"});
}

TEST(Dataflow, TheFfnAddsToWhatAttentionHasAddedTo) {
  Plan plan = tensor_pipeline_plan({});
  const NodeId sum = node_at(plan, OpKind::add, {.skip = 1});
  const NodeId embed = node_at(plan, OpKind::embed, {.layer = -1});
  at(plan, sum).inputs[0] = at(plan, embed).outputs[0];
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, sum) + ": its residual is that of " + name(plan, embed) +
                     ", allowed that of add (attn_branch) of layer 0"});
}

TEST(Dataflow, ValuesAreFollowedThroughWhatOnlyMovesThem) {
  // The FFN of the second stage adds to what the first stage has sent.
  Plan plan = tensor_pipeline_plan({.pp = 2});
  const NodeId sum = node_at(plan, OpKind::add, {.layer = 1, .skip = 1});
  const NodeId sent = node_at(plan, OpKind::copy, {.layer = 1});
  at(plan, sum).inputs[0] = at(plan, sent).outputs[0];
  EXPECT_EQ(problems_in(plan), Problems{name(plan, sum) + ": its residual is that of " +
                                        name(plan, node_at(plan, OpKind::add, {.skip = 1})) +
                                        ", allowed that of add (attn_branch) of layer 1"});
}

}  // namespace
}  // namespace weir
