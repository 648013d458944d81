#include "plan/work.h"

#include <optional>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "plan/locality.h"
#include "spec/sizes.h"
#include "tests/plan/broken_plans.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

// Pair by pair.
std::int64_t counted_pairs(Interval queries, std::int64_t past, Interval keys,
                           std::optional<std::int64_t> window) {
  std::int64_t pairs = 0;
  for (std::int64_t query = queries.begin; query < queries.end; ++query) {
    for (std::int64_t key = keys.begin; key < keys.end; ++key) {
      const std::int64_t position = past + query;
      if (key <= position && (!window || key > position - *window)) ++pairs;
    }
  }
  return pairs;
}

TEST(Work, VisiblePairsAreThoseThatCountingFinds) {
  Random random(7);
  for (int i = 0; i < 4000; ++i) {
    const Interval queries = {.begin = random.integer(0, 12), .end = random.integer(0, 12)};
    const Interval keys = {.begin = random.integer(0, 20), .end = random.integer(0, 20)};
    const std::int64_t past = random.integer(0, 12);
    std::optional<std::int64_t> window;
    if (random.integer(0, 1) == 0) window = random.integer(1, 15);
    ASSERT_EQ(visible_pairs(queries, past, keys, window),
              counted_pairs(queries, past, keys, window))
        << "queries [" << queries.begin << ", " << queries.end << ") past " << past << " keys ["
        << keys.begin << ", " << keys.end << ") window " << window.value_or(0);
  }
}

TEST(Work, VisiblePairsOfLongSequencesStayExact) {
  constexpr std::int64_t kLength = std::int64_t{1} << 20;
  EXPECT_EQ(visible_pairs({.begin = 0, .end = kLength}, 0, {.begin = 0, .end = kLength}, {}),
            kLength * (kLength + 1) / 2);
  EXPECT_EQ(visible_pairs({.begin = 0, .end = 1}, kLength - 1, {.begin = 0, .end = kLength}, 4096),
            4096);
}

std::int64_t flops_of(const Plan& plan, OpClass op_class) {
  std::int64_t flops = 0;
  for (const Node& node : plan.nodes) {
    if (class_of(node.kind) != op_class) continue;
    for (const DeviceId device : plan.at(node.devices))
      flops += work_of(plan, node, device, plan.limits).flops;
  }
  return flops;
}

const StepLengths kMixed = {
    {.q_len = 5, .kv_len = 5}, {.q_len = 1, .kv_len = 40}, {.q_len = 3, .kv_len = 9}};
constexpr std::int64_t kMixedTokens = 5 + 1 + 3;

// All layers and lm_head for every token.
std::int64_t expected_linear_flops(const ModelSpec& model) {
  return kMixedTokens * linear_flops_per_token(model);
}

// Of one layer and token: all products but those of k and v.
std::int64_t flops_beside_the_cache(const ModelSpec& model) {
  return 4 * model.num_q_heads * model.head_dim * model.hidden_size +
         (model.gated_ffn ? 6 : 4) * model.intermediate_size * model.hidden_size;
}

TEST(Work, LinearFlopsOfAStepAreThoseOfTheModelHoweverItIsSplit) {
  for (const bool gated : {true, false}) {
    ModelSpec model = tiny_model();
    model.gated_ffn = gated;
    for (const std::int64_t tp : {1, 2}) {  // Up to the number of KV heads.
      for (const std::int64_t pp : {1, 2}) {
        for (const std::int64_t microbatches : {1, 3}) {
          TensorPipelineCase choice = {
              .tp = tp, .pp = pp, .microbatches = microbatches, .limits = kMixed, .model = model};
          const std::string where =
              fmt::format("tp {} pp {} microbatches {}", tp, pp, microbatches);
          EXPECT_EQ(flops_of(tensor_pipeline_plan(choice), OpClass::linear),
                    expected_linear_flops(model))
              << where;
          // For the last logits the last layer makes k and v of all tokens, the rest of one.
          choice.logits = LogitsWanted::last;
          EXPECT_EQ(flops_of(tensor_pipeline_plan(choice), OpClass::linear),
                    expected_linear_flops(model) -
                        (kMixedTokens - 3) *
                            (flops_beside_the_cache(model) + lm_head_flops_per_token(model)))
              << where;
          // Without logits it ends with k and v.
          choice.logits = LogitsWanted::none;
          EXPECT_EQ(flops_of(tensor_pipeline_plan(choice), OpClass::linear),
                    expected_linear_flops(model) - kMixedTokens * (flops_beside_the_cache(model) +
                                                                   lm_head_flops_per_token(model)))
              << where;
        }
      }
    }
  }
}

TEST(Work, RanksThatShareAKvHeadEachProjectIt) {
  // Four ranks on two KV heads: k and v are computed twice.
  const ModelSpec model = tiny_model();
  const std::int64_t k_and_v = 2 * 2 * model.num_kv_heads * model.head_dim * model.hidden_size;
  EXPECT_EQ(flops_of(tensor_pipeline_plan({.tp = 4, .limits = kMixed}), OpClass::linear),
            expected_linear_flops(model) + kMixedTokens * model.num_layers * k_and_v);
}

TEST(Work, BiasesAddOneFlopPerElement) {
  ModelSpec model = tiny_model(1);
  model.qkv_bias = model.o_bias = model.ffn_bias = true;
  const std::int64_t per_token = (4 + 2 + 2) * 8 + 32 + (64 + 64 + 32);
  for (const std::int64_t tp : {1, 2}) {
    EXPECT_EQ(flops_of(tensor_pipeline_plan({.tp = tp, .limits = kMixed, .model = model}),
                       OpClass::linear),
              expected_linear_flops(model) + kMixedTokens * per_token)
        << "tp " << tp;
  }
}

TEST(Work, AttentionFlopsAreThoseOfTheVisiblePairsHoweverItIsSplit) {
  for (const std::optional<std::int64_t> window :
       {std::optional<std::int64_t>(), std::optional<std::int64_t>(6)}) {
    ModelSpec model = tiny_model();
    model.sliding_window = window;
    std::int64_t expected = 0;
    std::int64_t expected_of_last = 0;  // One query of each request in the last layer.
    for (const RequestLengths& lengths : kMixed) {
      const std::int64_t of_all =
          attention_flops(model, {.q_len = lengths.q_len, .kv_len = lengths.kv_len});
      expected += model.num_layers * of_all;
      expected_of_last += (model.num_layers - 1) * of_all +
                          attention_flops(model, {.q_len = 1, .kv_len = lengths.kv_len});
    }
    for (const std::int64_t tp : {1, 2, 4}) {
      TensorPipelineCase choice = {.tp = tp, .limits = kMixed, .model = model};
      EXPECT_EQ(flops_of(tensor_pipeline_plan(choice), OpClass::attention), expected)
          << "tp " << tp << " window " << window.value_or(0);
      choice.logits = LogitsWanted::last;
      EXPECT_EQ(flops_of(tensor_pipeline_plan(choice), OpClass::attention), expected_of_last)
          << "tp " << tp << " window " << window.value_or(0);
    }
  }
}

// Two tiles per head, cut by queries and keys at once.
TEST(Work, TilesOfQueriesAndKeysCountEveryPairOnce) {
  const TensorPipelineCase choice = {.limits = kMixed, .model = tiny_model(1)};
  StepLayouts layouts = tensor_pipeline_layouts(choice);
  LayerLayouts& layer = layouts.microbatches[0].distinct[0];
  Layout& tiles = layer.attention;
  tiles = {.kind = LayoutKind::softmax, .pieces = {}};
  for (const std::int64_t rows : {0, 1}) {
    for (const std::int64_t keys : {0, 1, 2}) {
      tiles.pieces.push_back({.device = DeviceId{0},
                              .box = {.token = Range::block(rows, 2)},
                              .over = {.token = Range::block(keys, 3)}});
    }
  }
  layer.rounds[0].attention = tiles;
  const Plan plan = lower(tensor_pipeline_header(choice), layouts);
  ASSERT_EQ(problems_in(plan), Problems{});
  EXPECT_EQ(flops_of(plan, OpClass::attention),
            flops_of(tensor_pipeline_plan(choice), OpClass::attention));
}

TEST(Work, OfADecodeIsAsCountedByHand) {
  // bf16 activations and cache, f32 weights; 1 new token, 40 positions.
  const Plan plan =
      tensor_pipeline_plan({.limits = {{.q_len = 1, .kv_len = 40}}, .model = tiny_model(1)});
  const auto work = [&](OpKind kind, std::int32_t layer = 0) {
    return work_of(plan, plan.at(node_at(plan, kind, {.layer = layer})), DeviceId{0}, plan.limits);
  };
  EXPECT_EQ(work(OpKind::embed, -1),
            (Work{.flops = 0, .weight_bytes = 32 * 4, .written_bytes = 32 * 2}));
  EXPECT_EQ(
      work(OpKind::attn_norm),
      (Work{
          .flops = 4 * 32, .weight_bytes = 32 * 4, .read_bytes = 32 * 2, .written_bytes = 32 * 2}));
  EXPECT_EQ(work(OpKind::qkv_proj), (Work{.flops = 2 * 64 * 32,
                                          .weight_bytes = 64 * 32 * 4,
                                          .read_bytes = 32 * 2,
                                          .written_bytes = 64 * 2}));
  EXPECT_EQ(work(OpKind::kv_append), (Work{.kv_bytes = 2 * 16 * 2, .read_bytes = 2 * 16 * 2}));
  EXPECT_EQ(work(OpKind::attention), (Work{.flops = 4 * 40 * 4 * 8,
                                           .kv_bytes = 2 * 40 * 2 * 8 * 2,
                                           .read_bytes = 32 * 2,
                                           .written_bytes = 32 * 2}));
  EXPECT_EQ(work(OpKind::o_proj), (Work{.flops = 2 * 32 * 32,
                                        .weight_bytes = 32 * 32 * 4,
                                        .read_bytes = 32 * 2,
                                        .written_bytes = 32 * 2}));
  EXPECT_EQ(work(OpKind::add),
            (Work{.flops = 32, .read_bytes = 2 * 32 * 2, .written_bytes = 32 * 2}));
  EXPECT_EQ(work(OpKind::activation),
            (Work{.flops = 5 * 64, .read_bytes = 2 * 64 * 2, .written_bytes = 64 * 2}));
}

TEST(Work, TheLastLayerReadsARowForQAndAllForKAndV) {
  const Plan plan = tensor_pipeline_plan({.limits = {{.q_len = 5, .kv_len = 5}},
                                          .model = tiny_model(1),
                                          .logits = LogitsWanted::last});
  const NodeId projection = node_at(plan, OpKind::qkv_proj);
  EXPECT_EQ(work_of(plan, plan.at(projection), DeviceId{0}, plan.limits),
            (Work{.flops = 2 * (32 + 5 * 32) * 32,
                  .weight_bytes = 64 * 32 * 4,
                  .read_bytes = (1 + 5) * 32 * 2,
                  .written_bytes = (32 + 5 * 32) * 2}));
}

TEST(Work, ASlidingWindowReadsOnlyItsKeys) {
  ModelSpec model = tiny_model(1);
  model.sliding_window = 6;
  const Plan plan = tensor_pipeline_plan({.limits = {{.q_len = 2, .kv_len = 40}}, .model = model});
  const Work work =
      work_of(plan, plan.at(node_at(plan, OpKind::attention)), DeviceId{0}, plan.limits);
  EXPECT_EQ(work.kv_bytes, 2 * 7 * 2 * 8 * 2);  // The last 6 keys of each of two neighbours.
}

TEST(Work, ThereIsNoneElsewhereAndNoneInCommunication) {
  const Plan plan = tensor_pipeline_plan({.tp = 2, .pp = 2});
  const Node& norm = plan.at(node_at(plan, OpKind::attn_norm));
  EXPECT_EQ(work_of(plan, norm, DeviceId{2}, plan.limits), Work{});
  const Node& reduce = plan.at(node_at(plan, OpKind::all_reduce));
  EXPECT_EQ(work_of(plan, reduce, DeviceId{0}, plan.limits), Work{});
}

}  // namespace
}  // namespace weir
