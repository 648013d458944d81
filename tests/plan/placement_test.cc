#include "plan/placement.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "plan/validate.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

// Every kind of weight that there is.
ModelSpec model_with_everything() {
  ModelSpec model = tiny_model();
  model.qkv_bias = model.o_bias = model.ffn_bias = model.qk_norm = true;
  return model;
}

// How many devices hold each element of a layer's weight, by row and column.
using Holders = std::map<std::pair<std::int64_t, std::int64_t>, int>;

void count_holders(const ModelSpec& model, const WeightSlice& slice, Holders& holders) {
  using enum WeightKind;
  const bool rows_have_heads = slice.kind == q_proj || slice.kind == k_proj || slice.kind == v_proj;
  const bool cols_have_heads =
      slice.kind == o_proj || slice.kind == q_bias || slice.kind == k_bias || slice.kind == v_bias;
  const std::int64_t rows_per_head = rows_have_heads ? model.head_dim : 0;
  const std::int64_t cols_per_head = cols_have_heads ? model.head_dim : 0;
  for (std::int64_t row_head = slice.row_heads.begin; row_head < slice.row_heads.end; ++row_head) {
    for (std::int64_t row = slice.row_dims.begin; row < slice.row_dims.end; ++row) {
      for (std::int64_t head = slice.col_heads.begin; head < slice.col_heads.end; ++head) {
        for (std::int64_t col = slice.col_dims.begin; col < slice.col_dims.end; ++col)
          ++holders[{row_head * rows_per_head + row, head * cols_per_head + col}];
      }
    }
  }
}

using WeightHolders = std::map<std::pair<WeightKind, std::int32_t>, Holders>;

WeightHolders holders_in(const Plan& plan) {
  WeightHolders holders;
  for (std::uint32_t device = 0; device < plan.devices.size(); ++device) {
    for (const WeightSlice& slice : weights_on(plan, DeviceId{device}))
      count_holders(plan.model, slice, holders[{slice.kind, slice.layer}]);
  }
  return holders;
}

// Weights that every rank of a stage needs whole, and biases that only the first adds.
bool is_replicated(WeightKind kind) {
  using enum WeightKind;
  return kind == attn_norm || kind == ffn_norm || kind == final_norm || kind == q_norm ||
         kind == k_norm;
}

TEST(Placement, WeightsOverDevicesTileTheModel) {
  const ModelSpec model = model_with_everything();
  for (const std::int64_t tp : {1, 2}) {  // Two KV heads: nothing of k and v is replicated.
    for (const std::int64_t pp : {1, 2}) {
      const WeightHolders holders =
          holders_in(tensor_pipeline_plan({.tp = tp, .pp = pp, .model = model}));
      std::size_t weights = 0;
      for (const WeightKind kind : kAllWeightKinds) {
        for (std::int32_t layer = is_per_layer(kind) ? 0 : -1;
             layer < (is_per_layer(kind) ? model.num_layers : 0); ++layer) {
          ++weights;
          const auto found = holders.find({kind, layer});
          ASSERT_NE(found, holders.end()) << to_string(kind);
          const WeightShape shape = shape_of(model, kind);
          EXPECT_EQ(found->second.size(), static_cast<std::size_t>(shape.rows * shape.cols))
              << to_string(kind) << " tp " << tp;
          for (const auto& [place, count] : found->second) {
            EXPECT_EQ(count, is_replicated(kind) ? tp : 1)
                << to_string(kind) << " row " << place.first << " col " << place.second;
          }
        }
      }
      EXPECT_EQ(holders.size(), weights);
    }
  }
}

TEST(Placement, KAndVAreReplicatedWhereHeadsAreFewerThanRanks) {
  const ModelSpec model = tiny_model(1);
  const WeightHolders holders = holders_in(tensor_pipeline_plan({.tp = 4, .model = model}));
  for (const auto& [place, count] : holders.at({WeightKind::k_proj, 0})) EXPECT_EQ(count, 2);
  for (const auto& [place, count] : holders.at({WeightKind::q_proj, 0})) EXPECT_EQ(count, 1);
}

TEST(Placement, StagesHoldTheirOwnLayersOnly) {
  const Plan plan = tensor_pipeline_plan({.tp = 2, .pp = 2});
  for (std::uint32_t device = 0; device < 4; ++device) {
    std::set<std::int32_t> layers;
    std::set<WeightKind> outside;
    for (const WeightSlice& slice : weights_on(plan, DeviceId{device})) {
      if (slice.layer >= 0) layers.insert(slice.layer);
      if (slice.layer < 0) outside.insert(slice.kind);
    }
    const bool first = device < 2;
    EXPECT_EQ(layers, std::set<std::int32_t>{first ? 0 : 1});
    EXPECT_EQ(outside, first ? std::set{WeightKind::embedding}
                             : (std::set{WeightKind::final_norm, WeightKind::lm_head}));
  }
}

TEST(Placement, ASingleDeviceHoldsEveryParameterOnce) {
  for (const bool tied : {false, true}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      ModelSpec model = model_with_everything();
      model.tied_embeddings = tied;
      model.weight_dtype = dtype;
      const Plan plan = tensor_pipeline_plan({.model = model});
      EXPECT_EQ(weight_bytes_by_device(plan),
                std::vector{count_parameters(model).total * size_in_bytes(dtype)})
          << "tied " << tied;
    }
  }
}

TEST(Placement, TiedEmbeddingsAreBytesOfTheirOwnOnlyOnOtherDevices) {
  ModelSpec model = tiny_model();
  const auto total = [](const Plan& plan) {
    const auto bytes = weight_bytes_by_device(plan);
    return std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
  };
  const std::int64_t table = model.vocab_size * model.hidden_size * 4;
  for (const std::int64_t pp : {1, 2}) {
    model.tied_embeddings = false;
    const std::int64_t untied = total(tensor_pipeline_plan({.tp = 2, .pp = pp, .model = model}));
    model.tied_embeddings = true;
    const std::int64_t tied = total(tensor_pipeline_plan({.tp = 2, .pp = pp, .model = model}));
    EXPECT_EQ(untied - tied, pp == 1 ? table : 0) << "pp " << pp;
  }
}

TEST(Placement, BytesByDeviceAreThoseOfTheSlices) {
  // Without tied embeddings and overlapping slices, a device's bytes are its slices'.
  const Plan plan = tensor_pipeline_plan({.tp = 4, .pp = 2, .model = model_with_everything()});
  const auto bytes = weight_bytes_by_device(plan);
  for (std::uint32_t device = 0; device < plan.devices.size(); ++device) {
    std::int64_t elements = 0;
    for (const WeightSlice& slice : weights_on(plan, DeviceId{device}))
      elements += slice.elements();
    EXPECT_EQ(bytes[device], 4 * elements) << "device " << device;
  }
}

TEST(Placement, OverlappingSlicesOfOneDeviceAreCountedOnce) {
  // Two tiles of q heads [0, 3) and [1, 4): each projected for itself, the rows [1, 3) held once.
  const TensorPipelineCase choice = {.model = tiny_model(1)};
  StepLayouts layouts = tensor_pipeline_layouts(choice);
  LayerLayouts& layer = layouts.microbatches[0].distinct[0];
  layer.q.pieces.push_back(layer.q.pieces[0]);
  layer.q.pieces[0].box.head = Range::of(0, 3);
  layer.q.pieces[1].box.head = Range::of(1, 4);
  const Plan plan = lower(tensor_pipeline_header(choice), layouts);
  ASSERT_TRUE(validate(plan).has_value());
  EXPECT_EQ(weight_bytes_by_device(plan), std::vector{count_parameters(choice.model).total * 4});
}

TEST(Placement, BiasesOfContractingOpsAreAddedOnce) {
  const Plan plan = tensor_pipeline_plan({.tp = 2, .model = model_with_everything()});
  const auto has = [&](std::uint32_t device, WeightKind kind) {
    const auto slices = weights_on(plan, DeviceId{device});
    return std::ranges::find(slices, kind, &WeightSlice::kind) != slices.end();
  };
  EXPECT_TRUE(has(0, WeightKind::o_bias));
  EXPECT_TRUE(has(0, WeightKind::down_bias));
  EXPECT_FALSE(has(1, WeightKind::o_bias));
  EXPECT_FALSE(has(1, WeightKind::down_bias));
}

}  // namespace
}  // namespace weir
