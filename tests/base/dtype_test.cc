#include "base/dtype.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace weir {
namespace {

TEST(DType, EveryF16BitPatternSurvivesTheWayThroughF32) {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float wide = f16_to_f32(half);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(wide))));
    } else {
      ASSERT_EQ(f32_to_f16(wide), half) << "bits " << bits;
    }
  }
}

TEST(DType, EveryBf16BitPatternSurvivesTheWayThroughF32) {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto brain = static_cast<std::uint16_t>(bits);
    const float wide = bf16_to_f32(brain);
    if (std::isnan(wide)) continue;
    ASSERT_EQ(f32_to_bf16(wide), brain) << "bits " << bits;
  }
}

TEST(DType, RoundsToNearestEven) {
  EXPECT_EQ(f16_to_f32(f32_to_f16(2049.0F)),
            2048.0F);  // Halfway between 2048 and 2050: to the even mantissa.
  EXPECT_EQ(f16_to_f32(f32_to_f16(2051.0F)), 2052.0F);
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(257.0F)), 256.0F);
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(259.0F)), 260.0F);
}

TEST(DType, OverflowsToInfinityAndUnderflowsToSignedZero) {
  EXPECT_EQ(f16_to_f32(f32_to_f16(65519.0F)), 65504.0F);
  EXPECT_TRUE(std::isinf(f16_to_f32(f32_to_f16(65520.0F))));
  EXPECT_EQ(f16_to_f32(f32_to_f16(0x1p-25F)),
            0.0F);  // Halfway to the smallest subnormal: to even, zero.
  EXPECT_EQ(f16_to_f32(f32_to_f16(0x1.8p-25F)), 0x1p-24F);
  EXPECT_TRUE(std::signbit(f16_to_f32(f32_to_f16(-0x1p-30F))));
}

TEST(DType, KnowsThePublishedNames) {
  EXPECT_EQ(parse_dtype("bfloat16"), DType::bf16);
  EXPECT_EQ(parse_dtype("F16"), DType::f16);
  EXPECT_EQ(parse_dtype("float32"), DType::f32);
  EXPECT_EQ(parse_dtype("int8"), std::nullopt);
}

}  // namespace
}  // namespace weir
