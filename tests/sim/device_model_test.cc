#include "sim/device_model.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "clusters_for_tests.h"

namespace weir {
namespace {

DeviceType catalogue_type(const std::string& name) {
  const auto cluster = load_cluster(name);
  EXPECT_TRUE(cluster.has_value());
  return cluster->device_types[0];
}

DeviceModel model_of(const DeviceType& type) {
  auto model = DeviceModel::make(type);
  EXPECT_TRUE(model.has_value());
  return *std::move(model);
}

double gemm_us(const DeviceModel& model, const GemmShape& shape) {
  return model.gemm(shape, model.levels().back()).time.value * 1e6;
}

AttentionShape attention_shape(std::int64_t batch, const AttentionTile& tile) {
  AttentionShape shape{.tiles = {}, .head_dim = 128, .value_dim = 128};
  shape.tiles.assign(static_cast<std::size_t>(batch), tile);
  return shape;
}

double attention_us(const DeviceModel& model, const AttentionShape& shape) {
  return model.attention(shape, model.levels().back()).time.value * 1e6;
}

TEST(DeviceModel, NamesEveryFigureThatIsMissing) {
  const DeviceType type{.name = "x", .kind = DeviceKind::gpu, .memory = {1 << 30}};
  const auto model = DeviceModel::make(type);
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().message,
            "device type x: found no memory_gb_per_s, allowed a rate; device type x: found no "
            "num_cores, allowed a rate; device type x: found no matrix_tflops, allowed a rate");
}

TEST(DeviceModel, CpuDevicesNeedABandwidthAndAPeak) {
  const DeviceType type{.name = "c", .kind = DeviceKind::cpu, .memory = {1 << 30}};
  const auto model = DeviceModel::make(type);
  ASSERT_FALSE(model.has_value());
  EXPECT_NE(model.error().message.find("memory_gb_per_s"), std::string::npos);
  EXPECT_NE(model.error().message.find("vector_tflops"), std::string::npos);
}

// ai-dynamo/aiconfigurator@095f58a5: H100 SXM, 512 x 12288 x 4096 in 64.4 us; H200 SXM, 8192^3 in
// 1552.5 us.
TEST(DeviceModel, LargeProductsTakeAboutTheMeasuredTime) {
  const DeviceModel h100 = model_of(catalogue_type("h100-sxm"));
  EXPECT_NEAR(gemm_us(h100, {.rows = 512, .cols = 12288, .depth = 4096}), 64.4, 0.15 * 64.4);
  const DeviceModel h200 = model_of(catalogue_type("h200-sxm"));
  EXPECT_NEAR(gemm_us(h200, {.rows = 8192, .cols = 8192, .depth = 8192}), 1552.5, 0.15 * 1552.5);
}

TEST(DeviceModel, NoKernelIsFasterThanTheRoofline) {
  for (const char* name : {"a100-sxm-80gb", "a100-pcie-80gb", "h100-sxm", "h200-sxm"}) {
    const DeviceType type = catalogue_type(name);
    const DeviceModel model = model_of(type);
    for (const std::int64_t rows : {1, 17, 128, 4096}) {
      const GemmShape shape{.rows = rows, .cols = 7168, .depth = 5120};
      const ShapeWork work = work_of(shape);
      const double floor =
          roofline(type, DType::bf16, work.flops, work.weight_bytes + work.activation_bytes).value;
      EXPECT_GE(gemm_us(model, shape), floor * 1e6) << name << " " << rows;
    }
  }
}

TEST(DeviceModel, OneTileMoreThanAWaveCostsAWave) {
  const DeviceModel model = model_of(catalogue_type("h100-sxm"));
  // 128 x 256 tiles: 132 of them fill the device, 144 need a second wave.
  const double full = gemm_us(model, {.rows = 128 * 12, .cols = 256 * 11, .depth = 16384});
  const double more = gemm_us(model, {.rows = 128 * 12, .cols = 256 * 12, .depth = 16384});
  EXPECT_GT(more, 1.15 * full);
}

TEST(DeviceModel, ThePowerLimitBoundsLargeProducts) {
  DeviceType type = catalogue_type("a100-sxm-80gb");
  const GemmShape shape{.rows = 8192, .cols = 8192, .depth = 8192};
  const double at_400_watts = gemm_us(model_of(type), shape);
  type.max_watts = 300;
  const double at_300_watts = gemm_us(model_of(type), shape);
  EXPECT_NEAR(at_300_watts / at_400_watts, 1.2, 0.08);
  const GemmShape small{.rows = 16, .cols = 8192, .depth = 8192};
  type.max_watts = 400;
  const double unbound = gemm_us(model_of(type), small);
  type.max_watts = 300;
  EXPECT_EQ(gemm_us(model_of(type), small), unbound);
}

TEST(DeviceModel, EnergyOverTimeStaysNearThePowerLimit) {
  const DeviceType type = catalogue_type("h200-sxm");
  const DeviceModel model = model_of(type);
  const KernelCost cost =
      model.gemm({.rows = 8192, .cols = 8192, .depth = 8192}, model.levels().back());
  const double watts = model.resting_watts() + cost.joules / cost.time.value;
  EXPECT_NEAR(watts, 691, 40);  // Measured board power, aiconfigurator h200_sxm.
}

TEST(DeviceModel, DecodeReadsItsKeysAtTheRateOfMemory) {
  const DeviceType type = catalogue_type("h100-sxm");
  const DeviceModel model = model_of(type);
  const AttentionTile tile{
      .q_len = 1, .past_len = 8191, .key_begin = 0, .key_end = 8192, .q_heads = 64, .kv_heads = 8};
  const double once = attention_us(model, attention_shape(32, tile));
  const double twice = attention_us(model, attention_shape(64, tile));
  const double bytes = 32.0 * 8192 * 8 * 2 * 128 * 2;
  EXPECT_NEAR((twice - once) * 1e-6, bytes / type.memory_bandwidth->value,
              0.2 * bytes / type.memory_bandwidth->value);
}

TEST(DeviceModel, KeysOfALongSequenceAreSplitOverTheDevice) {
  const DeviceModel model = model_of(catalogue_type("a100-sxm-80gb"));
  AttentionTile tile{
      .q_len = 1, .past_len = 8191, .key_begin = 0, .key_end = 8192, .q_heads = 8, .kv_heads = 1};
  const double at_8k = attention_us(model, attention_shape(1, tile));
  tile.past_len = 65535;
  tile.key_end = 65536;
  EXPECT_LT(attention_us(model, attention_shape(1, tile)), 4 * at_8k);
}

TEST(DeviceModel, APrefillChunkCostsWhatItsVisiblePairsCost) {
  const DeviceModel model = model_of(catalogue_type("h100-sxm"));
  const auto time = [&](std::int64_t past, std::int64_t q_len) {
    return attention_us(model, attention_shape(1, {.q_len = q_len,
                                                   .past_len = past,
                                                   .key_begin = 0,
                                                   .key_end = past + q_len,
                                                   .q_heads = 32,
                                                   .kv_heads = 8}));
  };
  const double whole = time(0, 16384);
  const double halves = time(0, 8192) + time(8192, 8192);
  EXPECT_NEAR(halves / whole, 1, 0.05);
}

TEST(DeviceModel, WindowsBoundWhatAQuerySees) {
  const AttentionTile tile{
      .q_len = 4, .past_len = 96, .key_begin = 0, .key_end = 100, .q_heads = 1, .kv_heads = 1};
  EXPECT_EQ(visible_pairs(tile, 0), 97 + 98 + 99 + 100);
  EXPECT_EQ(visible_pairs(tile, 10), 4 * 10);
  EXPECT_EQ(visible_keys(tile, 0), 100);
  EXPECT_EQ(visible_keys(tile, 10), 13);
}

TEST(DeviceModel, AStreamThatFitsACacheIsReadFromIt) {
  DeviceType type = round_cluster(1, 1).device_types[0];
  type.l2 = Bytes{2 << 20};
  type.l2_bandwidth = BytesPerSecond{400e9};
  type.l3 = Bytes{32 << 20};
  type.l3_bandwidth = BytesPerSecond{200e9};
  const DeviceModel model = model_of(type);
  EXPECT_EQ(model.residence_of(1 << 20).level->name, "L2");
  EXPECT_EQ(model.residence_of(16 << 20).level->name, "L3");
  EXPECT_EQ(model.residence_of(64 << 20).level->name, "memory");

  const GemmShape shape{
      .rows = 1, .cols = 512, .depth = 1024, .weight = DType::f32, .activation = DType::f32};
  const double cached = model.gemm(shape, model.residence_of(2 << 20)).time.value;
  const double streamed = model.gemm(shape, model.residence_of(1 << 30)).time.value;
  const double weight_bytes = 512.0 * 1024 * 4;
  EXPECT_NEAR(streamed - cached, weight_bytes / 100e9 - weight_bytes / 400e9, 1e-9);
}

TEST(DeviceModel, AnEmptyShapeTakesNoTime) {
  for (const DeviceType& type : {catalogue_type("h100-sxm"), round_cluster(1, 1).device_types[0]}) {
    const DeviceModel model = model_of(type);
    EXPECT_EQ(gemm_us(model, {.rows = 0, .cols = 8, .depth = 8}), 0);
    EXPECT_EQ(attention_us(model, attention_shape(0, {})), 0);
  }
}

}  // namespace
}  // namespace weir
