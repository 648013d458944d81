// CPU devices whose kernels have been measured: times are read off curves whose costs are round
// here.

#include <gtest/gtest.h>

#include "sim/device_model.h"

namespace weir {
namespace {

constexpr std::int64_t kMib = 1 << 20;

DeviceType measured_type() {
  const auto linear = [](CacheLevel level, std::int64_t devices, double factor) {
    return LinearCurve{.weight = DType::bf16,
                       .level = level,
                       .devices = devices,
                       .costs = {{.rows = 1, .ps_per_weight = 10 * factor},
                                 {.rows = 4, .ps_per_weight = 16 * factor},
                                 {.rows = 8, .ps_per_weight = 32 * factor}}};
  };
  MeasuredKernels kernels;
  kernels.linear = {linear(CacheLevel::l2, 1, 1), linear(CacheLevel::memory, 1, 5),
                    linear(CacheLevel::memory, 3, 15)};
  kernels.attention = {
      {.kv = DType::f32,
       .level = CacheLevel::memory,
       .devices = 1,
       .costs = {{.rows = 1, .ps_per_key = 100, .ps_per_value = 1, .ps_to_begin = 1000},
                 {.rows = 4, .ps_per_key = 400, .ps_per_value = 4, .ps_to_begin = 4000}}}};
  kernels.stream = {
      {.kind = StreamKind::add, .level = CacheLevel::l2, .devices = 1, .ps_per_byte = 2},
      {.kind = StreamKind::add, .level = CacheLevel::l3, .devices = 1, .ps_per_byte = 4},
      {.kind = StreamKind::add, .level = CacheLevel::memory, .devices = 1, .ps_per_byte = 10}};
  return {.name = "c",
          .kind = DeviceKind::cpu,
          .memory = {std::int64_t{1} << 30},
          .l2 = Bytes{kMib},
          .l3 = Bytes{16 * kMib},
          .launch_latency = Seconds{0},
          .kernels = std::move(kernels)};
}

DeviceModel cpu_model_of(const DeviceType& type) {
  auto model = DeviceModel::make(type);
  EXPECT_TRUE(model.has_value());
  return *std::move(model);
}

const MemoryLevel& level(const DeviceModel& model, std::string_view name) {
  for (const MemoryLevel& one : model.levels()) {
    if (one.name == name) return one;
  }
  ADD_FAILURE() << name;
  return model.levels().back();
}

// Of one weight.
double gemm_ps(const DeviceModel& model, std::int64_t rows, std::string_view where,
               std::int64_t together = 1) {
  constexpr std::int64_t kSide = 1000;
  return model
             .gemm({.rows = rows, .cols = kSide, .depth = kSide, .together = together},
                   level(model, where))
             .time.value *
         1e12 / (kSide * kSide);
}

TEST(MeasuredCpu, NeedsNeitherPeaksNorBandwidths) {
  EXPECT_TRUE(DeviceModel::make(measured_type()).has_value());
}

TEST(MeasuredCpu, LinearLayersLieOnTheCurve) {
  const DeviceModel model = cpu_model_of(measured_type());
  EXPECT_NEAR(gemm_ps(model, 1, "L2"), 10, 1e-9);
  EXPECT_NEAR(gemm_ps(model, 2, "L2"), 12, 1e-9);  // Between the measured ones,
  EXPECT_NEAR(gemm_ps(model, 8, "L2"), 32, 1e-9);
  EXPECT_NEAR(gemm_ps(model, 12, "L2"), 48, 1e-9);  // and beyond the last on its line.
}

TEST(MeasuredCpu, AWeightCostsWhatTheLevelBelowCostsWhereItsOwnWasNotMeasured) {
  const DeviceModel model = cpu_model_of(measured_type());
  EXPECT_NEAR(gemm_ps(model, 1, "memory"), 50, 1e-9);
  EXPECT_NEAR(gemm_ps(model, 1, "L3"), 50, 1e-9);
}

TEST(MeasuredCpu, DevicesThatWorkAtTheSameTimeShareTheMemory) {
  const DeviceModel model = cpu_model_of(measured_type());
  EXPECT_NEAR(gemm_ps(model, 1, "memory", 3), 150, 1e-9);
  EXPECT_NEAR(gemm_ps(model, 1, "memory", 2), 100, 1e-9);
  EXPECT_NEAR(gemm_ps(model, 1, "memory", 9), 150, 1e-9);  // More were not measured.
  EXPECT_NEAR(gemm_ps(model, 1, "L2", 3), 10, 1e-9);       // A cache is a device's own.
}

TEST(MeasuredCpu, AttentionIsDoneInBlocksOfTheMostMeasuredRows) {
  const DeviceModel model = cpu_model_of(measured_type());
  const auto ps = [&](const AttentionTile& tile) {
    const AttentionShape shape{.tiles = {tile}, .head_dim = 50, .value_dim = 50, .kv = DType::f32};
    return model.attention(shape, level(model, "memory")).time.value * 1e12;
  };
  // One query over 101 keys: 101 x (100 + 100 values) + 100 x 1000 to begin.
  const AttentionTile decode{
      .q_len = 1, .past_len = 100, .key_begin = 0, .key_end = 101, .q_heads = 1, .kv_heads = 1};
  EXPECT_NEAR(ps(decode), 101 * 200.0 + 100e3, 1e-3);
  // Four heads that share a KV head are four rows.
  AttentionTile grouped = decode;
  grouped.q_heads = 4;
  EXPECT_NEAR(ps(grouped), 101 * 800.0 + 400e3, 1e-3);
  // Eight queries are two blocks of four rows; the mean query of each sees 102.5 and 106.5 keys.
  AttentionTile prefill = decode;
  prefill.q_len = 8;
  prefill.key_end = 108;
  EXPECT_NEAR(ps(prefill), (102.5 + 106.5) * 800.0 + 2 * 400e3, 1e-3);
}

TEST(MeasuredCpu, PassesFindHalfOfTheirOperandsPushedOutByWeights) {
  const DeviceModel model = cpu_model_of(measured_type());
  const auto ps_per_byte = [&](std::int64_t bytes, std::string_view streamed) {
    return model.stream({.bytes = bytes, .kind = StreamKind::add}, level(model, streamed))
               .time.value *
           1e12 / static_cast<double>(bytes);
  };
  EXPECT_NEAR(ps_per_byte(1000, "memory"), 2, 1e-9);      // Small ones stay in L2.
  EXPECT_NEAR(ps_per_byte(4 * kMib, "L3"), 4, 1e-9);      // Nothing passes that L3 does not hold.
  EXPECT_NEAR(ps_per_byte(4 * kMib, "memory"), 7, 1e-9);  // (4 + 10) / 2
  EXPECT_NEAR(ps_per_byte(64 * kMib, "memory"), 10, 1e-9);
}

TEST(MeasuredCpu, ASetThatACacheServesInPartIsReadInPartFromBeyondIt) {
  DeviceType type = measured_type();
  type.kernels->linear.push_back(type.kernels->linear[0]);
  type.kernels->linear.back().level = CacheLevel::l3;
  for (LinearCost& cost : type.kernels->linear.back().costs) cost.ps_per_weight *= 2;
  type.kernels->served = {
      {.level = CacheLevel::l3,
       .devices = 4,
       .shares = {{.bytes = 2 * kMib, .share = 1}, {.bytes = 4 * kMib, .share = 0}}},
      {.level = CacheLevel::l3,
       .devices = 1,
       .shares = {{.bytes = 8 * kMib, .share = 1}, {.bytes = 24 * kMib, .share = 0.5}}}};
  const DeviceModel model = cpu_model_of(type);
  const auto ps = [&](std::int64_t mib, std::int64_t devices) {
    const GemmShape shape{.rows = 1, .cols = 1000, .depth = 1000, .weight = DType::bf16};
    return model.gemm(shape, model.residence_of(mib * kMib, devices)).time.value * 1e6;
  };
  EXPECT_NEAR(ps(1, 1), 10, 1e-9);  // L2 has no curve: all that fits.
  EXPECT_NEAR(ps(2, 1), 20, 1e-9);
  EXPECT_NEAR(ps(8, 1), 20, 1e-9);
  EXPECT_NEAR(ps(16, 1), 0.75 * 20 + 0.25 * 50, 1e-9);
  EXPECT_NEAR(ps(24, 1), 0.5 * 20 + 0.5 * 50, 1e-9);
  EXPECT_NEAR(ps(25, 1), 50, 1e-9);
  // Three devices do as the most that were measured and are not more; four have less each.
  EXPECT_NEAR(ps(8, 3), 20, 1e-9);
  EXPECT_NEAR(ps(3, 4), 0.5 * 20 + 0.5 * 50, 1e-9);
  EXPECT_NEAR(ps(8, 9), 50, 1e-9);
}

}  // namespace
}  // namespace weir
