#include "plan/memory.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "plan/placement.h"
#include "plan/validate.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

// bf16 activations and cache, f32 weights: hidden 32, FFN 64, 4 query heads on 2 KV heads of 8,
// vocabulary 96.
DeviceMemory memory_of(const TensorPipelineCase& choice, std::size_t device = 0) {
  const auto valid = validate(tensor_pipeline_plan(choice));
  EXPECT_TRUE(valid.has_value());
  return valid ? valid->memory()[device] : DeviceMemory{};
}

TEST(Memory, OfOneLayerIsAsCountedByHand) {
  const DeviceMemory memory =
      memory_of({.limits = {{.q_len = 3, .kv_len = 10}}, .model = tiny_model(1)});
  // Embedding and lm_head 2 x 96 x 32; q and o 2 x 32 x 32; k and v 2 x 16 x 32; FFN 3 x 64 x 32;
  // three norms of 32.
  EXPECT_EQ(memory.weights, 4 * (6144 + 2048 + 1024 + 6144 + 96));
  EXPECT_EQ(memory.kv_cache, 2 * 10 * 2 * 8 * 2);  // K and V of 10 positions, 2 heads of 8.
  // The most alive at once: the residual (32), gate, up and hidden (64 each) while the activation
  // is computed.
  EXPECT_EQ(memory.activations, 3 * (32 + 3 * 64) * 2);
  EXPECT_EQ(memory.attention, 0);     // Freed before the FFN,
  EXPECT_EQ(memory.comm_buffers, 0);  // and nothing is sent.
  EXPECT_EQ(memory.total(), memory.weights + memory.kv_cache + memory.activations);
}

TEST(Memory, ADeviceThatOnlyAttendsHoldsItsTilesItsQueriesAndItsKeys) {
  // Device 0 does all but the attention to the second half of the keys, which is device 1's.
  PlanHeader header = tiny_header(2, 1);
  header.limits = {{.q_len = 3, .kv_len = 10}};
  StepLayouts layouts = tensor_parallel_layouts(header, device_range(0, 1));
  LayerLayouts& layer = layouts.microbatches[0].distinct[0];
  layer.k_cache.pieces.clear();
  layer.attention = {.kind = LayoutKind::softmax, .pieces = {}};
  for (const std::uint32_t i : {0, 1}) {
    const Range keys = Range::block(i, 2);
    layer.k_cache.pieces.push_back({.device = DeviceId{i}, .box = {.token = keys}, .over = {}});
    layer.attention.pieces.push_back({.device = DeviceId{i}, .box = {}, .over = {.token = keys}});
  }
  layer.v_cache = layer.k_cache_before = layer.v_cache_before = layer.k_cache;
  layer.rounds[0].k_cache = layer.rounds[0].v_cache = layer.k_cache;
  layer.rounds[0].attention = layer.attention;
  const auto valid = validate(lower(header, layouts));
  ASSERT_TRUE(valid);
  EXPECT_EQ(valid->memory()[1],
            (DeviceMemory{.weights = 0,
                          .kv_cache = 2 * 5 * 2 * 8 * 2,
                          .activations = 0,
                          .attention = 3 * 32 * 2 + 3 * 4 * 4,  // With an f32 lse per head.
                          .comm_buffers = 3 * 32 * 2}));        // The queries that it was sent.
}

TEST(Memory, TheCacheIsThatOfAllLayersRequestsAndPositions) {
  const TensorPipelineCase choice = {
      .tp = 2,
      .pp = 2,
      .microbatches = 2,
      .limits = {{.q_len = 1, .kv_len = 7}, {.q_len = 4, .kv_len = 9}},
      .model = tiny_model(6)};
  const std::int64_t all = 6 * (7 + 9) * kv_bytes_per_token_per_layer(choice.model, DType::bf16);
  for (std::size_t device = 0; device < 4; ++device)
    EXPECT_EQ(memory_of(choice, device).kv_cache, all / 4) << "device " << device;
}

TEST(Memory, ReceivedValuesAreCommBuffers) {
  // Rows so wide that the peak is where o_proj's partial sums are reduced.
  ModelSpec model = tiny_model(1);
  model.hidden_size = 128;
  const DeviceMemory memory =
      memory_of({.tp = 2, .limits = {{.q_len = 3, .kv_len = 10}}, .model = model});
  EXPECT_EQ(memory.activations, 3 * 128 * 2);       // The partial sums;
  EXPECT_EQ(memory.comm_buffers, 2 * 3 * 128 * 2);  // the reduced embedding and the reduced sums.
}

TEST(Memory, ValuesByDeviceFollowTheirLayout) {
  const Plan plan = tensor_pipeline_plan(
      {.tp = 2, .limits = {{.q_len = 3, .kv_len = 10}}, .model = tiny_model(1)});
  const auto bytes_of_role = [&](Role role) {
    const auto place = std::ranges::find(plan.values, role, &Value::role);
    return value_bytes_by_device(plan, static_cast<ValueId>(place - plan.values.begin()),
                                 plan.limits);
  };
  using Bytes = std::vector<std::int64_t>;
  EXPECT_EQ(bytes_of_role(Role::q), (Bytes{3 * 16 * 2, 3 * 16 * 2}));
  EXPECT_EQ(bytes_of_role(Role::normed), (Bytes{3 * 32 * 2, 3 * 32 * 2}));
  EXPECT_EQ(bytes_of_role(Role::attn_branch), (Bytes{3 * 32 * 2, 3 * 32 * 2}));
  EXPECT_EQ(bytes_of_role(Role::k_cache), (Bytes{10 * 8 * 2, 10 * 8 * 2}));
}

TEST(Memory, PartsOfOneBufferAreCountedOnceAndCarryTheirLse) {
  // Two key blocks on one device are partials of one buffer, wherever they stand in the list.
  Plan plan =
      tensor_pipeline_plan({.limits = {{.q_len = 3, .kv_len = 10}}, .model = tiny_model(1)});
  plan.devices.push_back({.name = "other", .memory_bytes = {}, .compute = {}, .comm = {}});
  const auto place = std::ranges::find(plan.values, Role::attention, &Value::role);
  Layout blocks = {.kind = LayoutKind::softmax, .pieces = {}};
  for (const std::uint32_t i : {0, 1, 2, 3}) {
    blocks.pieces.push_back(
        {.device = DeviceId{i % 2}, .box = {}, .over = {.token = Range::block(i, 4)}});
  }
  plan.layouts.push_back(blocks);
  place->layout = static_cast<LayoutId>(plan.layouts.size() - 1);
  const std::int64_t buffer = 3 * 32 * 2 + 3 * 4 * 4;  // Outputs in bf16, an f32 lse per head.
  EXPECT_EQ(
      value_bytes_by_device(plan, static_cast<ValueId>(place - plan.values.begin()), plan.limits),
      (std::vector{buffer, buffer}));
}

TEST(Memory, ShorterStepsNeedNoMoreThanTheLimits) {
  const auto valid = validate(
      tensor_pipeline_plan({.tp = 2, .limits = StepLengths(2, {.q_len = 6, .kv_len = 20})}));
  ASSERT_TRUE(valid);
  const auto at_limits = valid->memory();
  const auto shorter =
      memory_by_device(valid->plan(), {{.q_len = 1, .kv_len = 20}, {.q_len = 6, .kv_len = 7}});
  for (std::size_t device = 0; device < 2; ++device) {
    EXPECT_LT(shorter[device].total(), at_limits[device].total());
    EXPECT_EQ(shorter[device].weights, at_limits[device].weights);
  }
  EXPECT_EQ(memory_by_device(valid->plan(), valid->plan().limits), at_limits);
}

}  // namespace
}  // namespace weir
