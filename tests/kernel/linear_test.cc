#include <gtest/gtest.h>

#include "kernel/kernel.h"
#include "kernel/scratch.h"
#include "tests/kernel/fixtures.h"
#include "tests/kernel/tolerance.h"

namespace weir::kernel {
namespace {

struct LinearCase {
  std::int64_t rows = 0;
  std::int64_t in = 0;
  std::int64_t out = 0;
  DType dtype = DType::f32;
  bool bias = false;
  int workers = 1;
};

void expect_linear_matches_the_reference(Random& random, LinearCase shape) {
  SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.in << " -> " << shape.out << ' '
                                  << to_string(shape.dtype) << ", " << shape.workers << " workers");
  const std::int64_t weight_stride = shape.in + random.integer(0, 3);
  Stored stored(shape.dtype, shape.out * weight_stride);
  stored.randomise(random);
  const WeightView view{.data = stored.data(),
                        .dtype = shape.dtype,
                        .out_features = shape.out,
                        .in_features = shape.in,
                        .row_stride = weight_stride};
  OwnedMatrix x(shape.rows, shape.in, random.integer(0, 5));
  x.randomise(random);
  std::vector<float> bias(shape.bias ? static_cast<std::size_t>(shape.out) : 0);
  for (float& value : bias) value = random_value(random);
  OwnedMatrix expected(shape.rows, shape.out, random.integer(0, 5));
  OwnedMatrix actual = expected;
  OwnedMatrix actual_near = expected;

  Team team(shape.workers);
  reference::linear(x.const_view(), view, bias, expected.view());
  const PackedWeights packed(team, view);
  linear(team, x.const_view(), packed, bias, actual.view());
  expect_near(actual, expected, sum_tolerance(shape.in + 1, 1));

  // Weights of an arena that fits L2 are known to be near, and may be multiplied otherwise.
  Arena arena;
  const PackedWeights near(team, view, &arena);
  linear(team, x.const_view(), near, bias, actual_near.view());
  expect_near(actual_near, expected, sum_tolerance(shape.in + 1, 1));
}

TEST(Linear, MatchesTheReferenceOnRandomShapes) {
  on_every_target([] {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      expect_linear_matches_the_reference(random,
                                          {.rows = random.integer(0, 70),
                                           .in = random.integer(0, 150),
                                           .out = random.integer(0, 150),
                                           .dtype = random_dtype(random),
                                           .bias = random.integer(0, 1) == 1,
                                           .workers = static_cast<int>(random.integer(1, 3))});
    }
  });
}

TEST(Linear, MatchesTheReferenceForEveryNumberOfRowsInATile) {
  on_every_target([] {
    Random random(1);
    for (std::int64_t rows = 1; rows <= 30; ++rows) {
      expect_linear_matches_the_reference(
          random, {.rows = rows, .in = 33, .out = 65, .dtype = random_dtype(random)});
    }
  });
}

TEST(Linear, MatchesTheReferenceBeyondOneBlockOfDepthAndRows) {
  on_every_target([] {
    Random random(2);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      expect_linear_matches_the_reference(
          random, {.rows = 301, .in = 1030, .out = 37, .dtype = dtype, .bias = true, .workers = 2});
      expect_linear_matches_the_reference(
          random, {.rows = 3, .in = 1100, .out = 90, .dtype = dtype, .bias = true, .workers = 2});
    }
  });
}

// Groups of panels are cut by workers, and the last is neither full of panels nor of out features.
TEST(Linear, FewRowsMatchTheReferenceOverSeveralGroupsOfPanels) {
  on_every_target([] {
    Random random(11);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      for (const std::int64_t rows : {1, 2, 5, 8, 14}) {
        for (const int workers : {1, 3}) {
          expect_linear_matches_the_reference(random, {.rows = rows,
                                                       .in = 1100,
                                                       .out = 1270,
                                                       .dtype = dtype,
                                                       .bias = workers == 3,
                                                       .workers = workers});
        }
      }
    }
  });
}

TEST(Linear, GivesTheSameBitsOnEveryCall) {
  Random random(3);
  OwnedMatrix x(100, 200, 0);
  x.randomise(random);
  Stored stored(DType::bf16, 300 * 200);
  stored.randomise(random);
  Team team(2);
  const PackedWeights packed(team, {.data = stored.data(),
                                    .dtype = DType::bf16,
                                    .out_features = 300,
                                    .in_features = 200,
                                    .row_stride = 200});
  OwnedMatrix first(100, 300, 0);
  linear(team, x.const_view(), packed, {}, first.view());
  for (int call = 0; call < 5; ++call) {
    OwnedMatrix again(100, 300, 0);
    linear(team, x.const_view(), packed, {}, again.view());
    ASSERT_EQ(again.values, first.values);
  }
}

TEST(Linear, KeepsTwoByteWeightsInTwoBytes) {
  Team team(1);
  const auto packed_as = [&team](DType dtype) {
    const Stored stored(dtype, 64 * 100);
    return PackedWeights(team, {.data = stored.data(),
                                .dtype = dtype,
                                .out_features = 64,
                                .in_features = 100,
                                .row_stride = 100});
  };
  const PackedWeights packed = packed_as(DType::f16);
  EXPECT_EQ(packed.bytes(), 64 * 100 * 2);
  EXPECT_EQ(packed.out_features(), 64);
  EXPECT_EQ(packed.in_features(), 100);
  // Pairs fill steps of 32 in features.
  EXPECT_EQ(packed_as(DType::bf16).bytes(), 64 * 128 * 2);
}

TEST(Linear, PropagatesInfinityAndNanOfItsInput) {
  on_every_target([] {
    Team team(1);
    const std::vector<float> ones(40 * 3, 1.0F);
    const PackedWeights packed(
        team, {.data = ones.data(), .out_features = 40, .in_features = 3, .row_stride = 3});
    OwnedMatrix x(2, 3, 0);
    x.values = {1, std::numeric_limits<float>::infinity(),  1,
                1, std::numeric_limits<float>::quiet_NaN(), 1};
    OwnedMatrix out(2, 40, 0);
    linear(team, x.const_view(), packed, {}, out.view());
    EXPECT_TRUE(std::isinf(out.at(0, 39)));
    EXPECT_TRUE(std::isnan(out.at(1, 39)));
  });
}

}  // namespace
}  // namespace weir::kernel
