#include "strategy/tensor_pipeline.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "plan/validate.h"
#include "strategy/strategy.h"
#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

// Grouped-query: 8 query heads on 2 KV heads; 5 layers, so that stages differ.
ModelSpec five_layers() {
  return {.name = "tiny",
          .num_layers = 5,
          .hidden_size = 32,
          .intermediate_size = 70,
          .vocab_size = 97,
          .num_q_heads = 8,
          .num_kv_heads = 2,
          .head_dim = 4,
          .max_position = 256,
          .rope = {.rotary_dim = 4}};
}

struct Degrees {
  std::int64_t tp = 1;
  std::int64_t pp = 1;
  std::int64_t microbatches = 1;
  std::int64_t sequence_parallel = 0;
};

Result<NamedStrategy> tp_pp(Degrees degrees) {
  return make_strategy("tp_pp",
                       {{"tp", fmt::format("{}", degrees.tp)},
                        {"pp", fmt::format("{}", degrees.pp)},
                        {"microbatches", fmt::format("{}", degrees.microbatches)},
                        {"sequence_parallel", fmt::format("{}", degrees.sequence_parallel)}},
                       five_layers());
}

std::string refusal_of(Degrees degrees) {
  const auto named = tp_pp(degrees);
  return named ? "" : named.error().message;
}

StepLayouts layouts_of(Degrees degrees, const StepShape& step) {
  return tp_pp(degrees).value().strategy->layouts(step);
}

const StepShape kOneRequest = {{.past_len = 8, .q_len = 1, .max_len = 64}};

TEST(TensorPipeline, RefusesMoreRanksThanHeadsAndMoreStagesThanLayers) {
  EXPECT_EQ(refusal_of({.tp = 9}), "--tp: found 9, allowed 1..8 (the model's attention heads)");
  EXPECT_EQ(refusal_of({.pp = 6}), "--pp: found 6, allowed 1..5 (the model's layers)");
  EXPECT_EQ(refusal_of({.tp = 9, .pp = 6}),
            "--tp: found 9, allowed 1..8 (the model's attention heads); --pp: found 6, allowed "
            "1..5 (the model's layers)");
}

TEST(TensorPipeline, UsesOneDevicePerRankOfEveryStage) {
  EXPECT_EQ(tp_pp({.tp = 4, .pp = 3}).value().strategy->num_devices(), 12);
  EXPECT_EQ(make_strategy("single", {}, five_layers()).value().strategy->num_devices(), 1);
}

TEST(TensorPipeline, StagesTakeEvenRunsOfLayers) {
  const StepLayouts layouts = layouts_of({.pp = 3}, kOneRequest);
  EXPECT_EQ(layouts.microbatches[0].of_layer, (std::vector<std::uint32_t>{0, 0, 1, 1, 2}));
  EXPECT_EQ(devices_of(layouts.microbatches[0].distinct[1].residual), std::vector{DeviceId{1}});
}

TEST(TensorPipeline, RanksTakeHeadsWithTheirKvHeadsAndColumns) {
  const LayerLayouts layer = layouts_of({.tp = 4}, kOneRequest).microbatches[0].distinct[0];
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(layer.q.pieces[rank].device, DeviceId{rank});
    EXPECT_EQ(layer.q.pieces[rank].box.head, Range::of(2 * rank, 2 * rank + 2));
    EXPECT_EQ(layer.k_cache.pieces[rank].box.head, Range::of(rank / 2, rank / 2 + 1));
  }
  EXPECT_EQ(layer.kv, layer.k_cache);
  EXPECT_EQ(layer.v_cache, layer.k_cache);
  EXPECT_EQ(layer.k_cache_before, layer.k_cache);
  EXPECT_EQ(layer.attention, layer.attention_out);
  EXPECT_EQ(layer.ffn_hidden.pieces[0].box.dim, Range::of(0, 18));  // 70 columns: 18, 18, 17, 17.
  EXPECT_EQ(layer.ffn_hidden.pieces[3].box.dim, Range::of(53, 70));
}

TEST(TensorPipeline, MicrobatchesPartitionTheBatchAndAreNeverMoreThanItsRequests) {
  const StepShape step(3, {.past_len = 0, .q_len = 4, .max_len = 8});
  const auto requests_of_each = [&](std::int64_t microbatches) {
    std::vector<Interval> requests;
    for (const auto& microbatch : layouts_of({.microbatches = microbatches}, step).microbatches)
      requests.push_back(microbatch.requests);
    return requests;
  };
  using Intervals = std::vector<Interval>;
  EXPECT_EQ(requests_of_each(2), (Intervals{{.begin = 0, .end = 2}, {.begin = 2, .end = 3}}));
  EXPECT_EQ(requests_of_each(9),
            (Intervals{{.begin = 0, .end = 1}, {.begin = 1, .end = 2}, {.begin = 2, .end = 3}}));
}

TEST(TensorPipeline, StepsThatDifferOnlyInLengthsHaveTheSameLayouts) {
  const auto named = tp_pp({.tp = 2, .pp = 2, .microbatches = 2});
  ASSERT_TRUE(named);
  const StepShape prefill(2, {.past_len = 0, .q_len = 17, .max_len = 40});
  StepShape decode = {{.past_len = 17, .q_len = 1, .max_len = 40},
                      {.past_len = 3, .q_len = 1, .max_len = 99}};
  const StepLayouts first = named->strategy->layouts(prefill);
  EXPECT_EQ(first, named->strategy->layouts(decode));
  EXPECT_EQ(hash_of(first), hash_of(named->strategy->layouts(decode)));
  decode.push_back(decode.front());
  EXPECT_NE(first, named->strategy->layouts(decode));
}

TEST(TensorPipeline, SequenceParallelSplitsTheResidualByTokensAndNothingElse) {
  const StepShape prefill = {{.past_len = 0, .q_len = 8, .max_len = 64}};
  const LayerLayouts split =
      layouts_of({.tp = 4, .sequence_parallel = 8}, prefill).microbatches[0].distinct[0];
  LayerLayouts plain = layouts_of({.tp = 4}, prefill).microbatches[0].distinct[0];
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(split.residual.pieces[rank].device, DeviceId{rank});
    EXPECT_EQ(split.residual.pieces[rank].box.token, Range::block(rank, 4));
  }
  plain.residual = split.residual;
  EXPECT_EQ(split, plain);
  EXPECT_EQ(layouts_of({.tp = 4, .sequence_parallel = 8}, kOneRequest),
            layouts_of({.tp = 4}, kOneRequest));
}

// A sum in two halves, with the norm between them.
TEST(TensorPipeline, SequenceParallelReducesScattersAndGathers) {
  const StepShape prefill = {{.past_len = 0, .q_len = 8, .max_len = 64}};
  PlanHeader header = {
      .model = five_layers(),
      .strategy = "tp_pp",
      .limits = {{.q_len = 8, .kv_len = 8}},
      .devices = {{.name = "a", .memory_bytes = {}}, {.name = "b", .memory_bytes = {}}}};
  const Plan plan = lower(header, layouts_of({.tp = 2, .sequence_parallel = 1}, prefill));
  const auto count = [&](OpKind kind) { return std::ranges::count(plan.nodes, kind, &Node::kind); };
  EXPECT_EQ(count(OpKind::reduce_scatter), 1 + 2 * 4);  // The embedding, two in each layer
  EXPECT_EQ(count(OpKind::all_gather), 2 * 4 + 1);      // but the last, where there is one row.
  EXPECT_EQ(count(OpKind::all_reduce), 2);
  EXPECT_EQ(count(OpKind::copy), 1);
}

// Every strategy, every step of a few shapes: what is lowered from it is valid.
TEST(TensorPipeline, LowersToValidPlansForAllItsDegrees) {
  for (const std::int64_t tp : {1, 3, 8}) {
    for (const std::int64_t pp : {1, 2, 5}) {
      for (const std::int64_t microbatches : {1, 2}) {
        const auto named = tp_pp({.tp = tp,
                                  .pp = pp,
                                  .microbatches = microbatches,
                                  .sequence_parallel = microbatches - 1});
        ASSERT_TRUE(named);
        PlanHeader header = {
            .model = five_layers(), .strategy = named->label, .limits = {}, .devices = {}};
        StepShape step;
        for (const std::int64_t q_len : {1, 6, 0}) {
          step.push_back({.past_len = 4, .q_len = q_len, .max_len = 16});
          header.limits.push_back({.q_len = q_len, .kv_len = 4 + q_len});
        }
        for (std::int64_t i = 0; i < named->strategy->num_devices(); ++i)
          header.devices.push_back({.name = fmt::format("d{}", i), .memory_bytes = {}});
        const auto valid = validate(lower(header, named->strategy->layouts(step)));
        EXPECT_TRUE(valid.has_value()) << named->label << ": " << valid.error().front();
      }
    }
  }
}

TEST(TensorParallel, KvHeadsOfUnevenRanksOverlapWhereAGroupIsShared) {
  // Three ranks on 8 query heads (3, 3, 2), four of which share a KV head.
  const std::vector<DeviceId> group = {DeviceId{0}, DeviceId{1}, DeviceId{2}};
  const LayerLayouts layer = tensor_parallel_layer(five_layers(), group, {.begin = 0, .end = 1});
  EXPECT_EQ(layer.q.pieces[1].box.head, Range::of(3, 6));
  EXPECT_EQ(layer.kv.pieces[0].box.head, Range::of(0, 1));
  EXPECT_EQ(layer.kv.pieces[1].box.head, Range::of(0, 2));
  EXPECT_EQ(layer.kv.pieces[2].box.head, Range::of(1, 2));
}

TEST(TensorParallel, VocabularyPartsCoverIt) {
  const std::vector<DeviceId> group = {DeviceId{0}, DeviceId{1}, DeviceId{2}, DeviceId{3}};
  const Layout embedding =
      vocabulary_parallel_embedding(five_layers(), group, {.begin = 0, .end = 1});
  EXPECT_EQ(embedding.kind, LayoutKind::sum);
  const Layout logits = vocabulary_parallel_logits(five_layers(), group, {.begin = 0, .end = 1});
  EXPECT_EQ(logits.kind, LayoutKind::whole);
  std::int64_t reached = 0;
  for (std::size_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(logits.pieces[rank].box.dim, embedding.pieces[rank].over.dim);
    EXPECT_EQ(logits.pieces[rank].box.dim.begin, Bound::at(reached));
    reached = logits.pieces[rank].box.dim.end.offset;
  }
  EXPECT_EQ(reached, 97);
}

}  // namespace
}  // namespace weir
