// What AMX tiles must do beyond giving what the other kernels give (which `on_every_target` tests):
// lose no digits, and leave alone what cannot be cut into pieces.

#include "kernel/amx.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "kernel/kernel.h"
#include "kernel/scratch.h"
#include "tests/kernel/fixtures.h"

namespace weir::kernel {
namespace {

constexpr float kInfiniteInput = std::numeric_limits<float>::infinity();

class Amx : public testing::Test {
 protected:
  void SetUp() override {
    if (!amx_available()) GTEST_SKIP() << "this processor has no AMX, or Linux does not allow it";
  }
  void TearDown() override { enable_amx(true); }
};

// Weights of a layer with x of many rows.
struct Layer {
  OwnedMatrix x;
  Stored weights;
  std::int64_t out_features;
  Team team{1};

  Layer(Random& random, DType dtype, std::int64_t rows, std::int64_t in, std::int64_t out)
      : x(rows, in, 0), weights(dtype, out * in), out_features(out) {
    x.randomise(random);
    weights.randomise(random);
  }
  [[nodiscard]] WeightView view() const {
    return {.data = weights.data(),
            .dtype = weights.dtype(),
            .out_features = out_features,
            .in_features = x.cols,
            .row_stride = x.cols};
  }
  // The weights are near (PackedWeights::Impl::near).
  [[nodiscard]] OwnedMatrix multiply(bool in_tiles) {
    enable_amx(in_tiles);
    Arena arena;
    const PackedWeights packed(team, view(), &arena);
    OwnedMatrix out(x.rows, out_features, 0);
    linear(team, x.const_view(), packed, {}, out.view());
    return out;
  }
  [[nodiscard]] OwnedMatrix reference() const {
    OwnedMatrix out(x.rows, out_features, 0);
    reference::linear(x.const_view(), view(), {}, out.view());
    return out;
  }
};

double root_mean_square_error(const OwnedMatrix& actual, const OwnedMatrix& expected) {
  double sum = 0;
  for (std::size_t i = 0; i < actual.values.size(); ++i) {
    const double error = static_cast<double>(actual.values[i]) - expected.values[i];
    sum += error * error;
  }
  return std::sqrt(sum / static_cast<double>(actual.values.size()));
}

TEST_F(Amx, IsAsExactAsMultiplyAddsInF32) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    SCOPED_TRACE(to_string(dtype));
    Random random(1);
    Layer layer(random, dtype, 64, 1100, 96);
    const OwnedMatrix expected = layer.reference();
    EXPECT_LT(root_mean_square_error(layer.multiply(true), expected),
              root_mean_square_error(layer.multiply(false), expected));
  }
  for (const std::int64_t rows : {1, 2, 5, 6, 14}) {
    SCOPED_TRACE(rows);
    Random random(6);
    Layer layer(random, DType::bf16, rows, 1100, 96);
    const OwnedMatrix expected = layer.reference();
    EXPECT_LT(root_mean_square_error(layer.multiply(true), expected),
              root_mean_square_error(layer.multiply(false), expected));
  }
}

TEST_F(Amx, DiffersFromMultiplyAddsInRounding) {
  // Or the other tests here compare a kernel with itself.
  Random random(2);
  Layer layer(random, DType::f16, 64, 1100, 96);
  EXPECT_NE(layer.multiply(true).values, layer.multiply(false).values);
  Layer few(random, DType::bf16, 1, 1100, 96);
  EXPECT_NE(few.multiply(true).values, few.multiply(false).values);
}

// The same bits, NaN included.
void expect_same_bits(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  EXPECT_EQ(std::memcmp(actual.data(), expected.data(), actual.size() * sizeof(float)), 0);
}

TEST_F(Amx, LeavesInputThatCannotBeCutToMultiplyAdds) {
  for (const float value :
       {kInfiniteInput, -kInfiniteInput, std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::max(), 0x1p56F}) {
    SCOPED_TRACE(value);
    Random random(3);
    Layer layer(random, DType::f32, 40, 600, 70);
    layer.x.at(39, 599) = value;
    expect_same_bits(layer.multiply(true).values, layer.multiply(false).values);
    Layer few(random, DType::bf16, 2, 600, 70);
    few.x.at(1, 599) = value;
    expect_same_bits(few.multiply(true).values, few.multiply(false).values);
  }
}

TEST_F(Amx, LeavesWeightsThatCannotBeCutToMultiplyAdds) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const float value :
         {kInfiniteInput, -kInfiniteInput, std::numeric_limits<float>::quiet_NaN()}) {
      SCOPED_TRACE(value);
      Random random(4);
      Layer layer(random, dtype, 40, 600, 70);
      layer.weights.set(70 * 600 - 1, value);
      expect_same_bits(layer.multiply(true).values, layer.multiply(false).values);
    }
  }
  Random random(5);
  Layer layer(random, DType::bf16, 40, 600, 70);
  layer.weights.set(0, -0x1p56F);
  expect_same_bits(layer.multiply(true).values, layer.multiply(false).values);
}

// One head that attends to its own past.
struct Head {
  static constexpr std::int64_t kTokens = 160;
  static constexpr std::int64_t kDim = 48;
  OwnedMatrix q{kTokens, kDim, 0};
  OwnedMatrix k{kTokens, kDim, 0};
  OwnedMatrix v{kTokens, kDim, 0};
  Team team{1};

  explicit Head(Random& random) {
    q.randomise(random);
    k.randomise(random);
    v.randomise(random);
  }
  [[nodiscard]] std::vector<float> attend(bool in_tiles) {
    enable_amx(in_tiles);
    const void* const keys[] = {k.values.data()};
    const void* const values[] = {v.values.data()};
    const std::int64_t kv_head_of[] = {0};
    KvBlocks blocks;
    blocks.block_size = kTokens;
    blocks.position_stride = kDim;
    OwnedMatrix out(kTokens, kDim, 0);
    AttentionTile tile{.q = q.values.data(),
                       .q_row_stride = kDim,
                       .q_head_stride = kDim,
                       .num_queries = kTokens,
                       .num_heads = 1,
                       .key_dim = kDim,
                       .value_dim = kDim,
                       .kv_head_of = kv_head_of,
                       .keys = blocks,
                       .values = blocks,
                       .key_end = kTokens,
                       .out = out.values.data(),
                       .out_row_stride = kDim,
                       .out_head_stride = kDim};
    tile.keys.blocks = keys;
    tile.values.blocks = values;
    attention(team, {&tile, 1});
    return out.values;
  }
};

TEST_F(Amx, LeavesAttentionThatCannotBeCutToMultiplyAdds) {
  for (const float value : {kInfiniteInput, std::numeric_limits<float>::quiet_NaN(), 0x1p60F}) {
    SCOPED_TRACE(value);
    Random random(6);
    Head moderate(random);
    EXPECT_NE(moderate.attend(true), moderate.attend(false));
    for (OwnedMatrix Head::*operand : {&Head::q, &Head::k, &Head::v}) {
      Random same(6);
      Head head(same);
      (head.*operand).at(150, 7) = value;
      expect_same_bits(head.attend(true), head.attend(false));
    }
  }
}

// Eight heads of one query that share keys and values of bf16, as when decoding.
struct Group {
  static constexpr std::int64_t kHeads = 8;
  static constexpr std::int64_t kKeys = 150;
  static constexpr std::int64_t kDim = 64;
  OwnedMatrix q{kHeads, kDim, 0};
  Stored k{DType::bf16, kKeys* kDim};
  Stored v{DType::bf16, kKeys* kDim};

  explicit Group(Random& random) {
    q.randomise(random);
    k.randomise(random);
    v.randomise(random);
  }
  [[nodiscard]] AttentionTile tile(std::span<const void* const> keys,
                                   std::span<const void* const> values, OwnedMatrix& out) const {
    static constexpr std::int64_t kKvHeadOf[kHeads] = {};
    const auto blocks_of = [](std::span<const void* const> blocks) {
      KvBlocks view;
      view.blocks = blocks;
      view.dtype = DType::bf16;
      view.block_size = kKeys;
      view.position_stride = kDim;
      return view;
    };
    return {.q = q.values.data(),
            .q_row_stride = kHeads * kDim,
            .q_head_stride = kDim,
            .num_queries = 1,
            .num_heads = kHeads,
            .key_dim = kDim,
            .value_dim = kDim,
            .kv_head_of = kKvHeadOf,
            .keys = blocks_of(keys),
            .values = blocks_of(values),
            .first_query = kKeys,
            .key_end = kKeys,
            .scale = 0.125F,
            .out = out.values.data(),
            .out_row_stride = kHeads * kDim,
            .out_head_stride = kDim};
  }
  template <class Attend>
  [[nodiscard]] OwnedMatrix attended_by(const Attend& attend) const {
    OwnedMatrix out(kHeads, kDim, 0);
    const void* const keys[] = {k.data()};
    const void* const values[] = {v.data()};
    const AttentionTile whole = tile(keys, values, out);
    attend(std::span(&whole, 1));
    return out;
  }
  [[nodiscard]] OwnedMatrix attend(bool in_tiles) const {
    enable_amx(in_tiles);
    return attended_by([](std::span<const AttentionTile> tiles) {
      Team team(1);
      attention(team, tiles);
    });
  }
};

TEST_F(Amx, DecodesAsExactlyAsMultiplyAdds) {
  Random random(7);
  const Group group(random);
  const OwnedMatrix expected =
      group.attended_by([](std::span<const AttentionTile> tiles) { reference::attention(tiles); });
  const double in_tiles = root_mean_square_error(group.attend(true), expected);
  const double on_vectors = root_mean_square_error(group.attend(false), expected);
  EXPECT_NE(in_tiles, on_vectors);
  EXPECT_LT(in_tiles, 1.5 * on_vectors);
}

TEST_F(Amx, LeavesDecodingThatCannotBeCutToMultiplyAdds) {
  for (const float value :
       {kInfiniteInput, -kInfiniteInput, std::numeric_limits<float>::quiet_NaN()}) {
    SCOPED_TRACE(value);
    for (int operand = 0; operand < 3; ++operand) {
      Random random(8);
      Group group(random);
      if (operand == 0) group.q.at(7, 3) = value;
      if (operand == 1) group.k.set(149 * Group::kDim + 63, value);
      if (operand == 2) group.v.set(149 * Group::kDim + 63, value);
      expect_same_bits(group.attend(true).values, group.attend(false).values);
    }
  }
}

TEST_F(Amx, IsUsedUntilSwitchedOff) {
  EXPECT_TRUE(amx_enabled());
  enable_amx(false);
  EXPECT_FALSE(amx_enabled());
  enable_amx(true);
  EXPECT_TRUE(amx_enabled());
}

}  // namespace
}  // namespace weir::kernel
