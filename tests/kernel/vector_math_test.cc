// Holds the vector functions to the errors that vector_math-inl.h states.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernel/fixtures.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernel/vector_math_test.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// `x` has a multiple of kPanel values.
void exp2_of(std::vector<float>& x) {
  const DF d;
  for (std::size_t i = 0; i < x.size(); i += kLanes) {
    hn::StoreU(exp2_nonpositive(d, hn::LoadU(d, x.data() + i)), d, x.data() + i);
  }
}

void exp_of(std::vector<float>& x) {
  const DF d;
  for (std::size_t i = 0; i < x.size(); i += kLanes) {
    hn::StoreU(exp_nonpositive(d, hn::LoadU(d, x.data() + i)), d, x.data() + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {
namespace {

HWY_EXPORT(exp2_of);
HWY_EXPORT(exp_of);

// Evenly spaced from 0 down to `lowest`.
std::vector<float> grid(float lowest) {
  std::vector<float> x(1U << 16U);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = lowest * static_cast<float>(i) / static_cast<float>(x.size());
  }
  return x;
}

template <class Exact>
double largest_relative_error(const std::vector<float>& x, const std::vector<float>& y,
                              const Exact& exact) {
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = exact(static_cast<double>(x[i]));
    largest = std::max(largest, std::abs(y[i] - expected) / expected);
  }
  return largest;
}

TEST(VectorMath, Exp2IsAsAccurateAsItSays) {
  on_every_target([] {
    for (const float lowest : {-1.0F, -126.0F}) {
      const std::vector<float> x = grid(lowest);
      std::vector<float> y = x;
      HWY_DYNAMIC_DISPATCH(exp2_of)(y);
      EXPECT_LT(largest_relative_error(x, y, [](double v) { return std::exp2(v); }), 2e-7);
    }
  });
}

TEST(VectorMath, ExpIsAsAccurateAsItSays) {
  on_every_target([] {
    for (const float lowest : {-1.0F, -87.0F}) {
      const std::vector<float> x = grid(lowest);
      std::vector<float> y = x;
      HWY_DYNAMIC_DISPATCH(exp_of)(y);
      EXPECT_LT(largest_relative_error(x, y, [](double v) { return std::exp(v); }), 3e-7);
    }
  });
}

TEST(VectorMath, ExponentialsOfSpecialValues) {
  on_every_target([] {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    std::vector<float> special(static_cast<std::size_t>(kPanel), 0.0F);
    special[1] = -kInfinity;
    special[2] = std::numeric_limits<float>::lowest();
    special[3] = std::numeric_limits<float>::quiet_NaN();
    special[4] = -1000.0F;
    std::vector<float> exp2 = special;
    std::vector<float> exp = special;
    HWY_DYNAMIC_DISPATCH(exp2_of)(exp2);
    HWY_DYNAMIC_DISPATCH(exp_of)(exp);
    for (const std::vector<float>& y : {exp2, exp}) {
      EXPECT_EQ(y[0], 1.0F);
      EXPECT_EQ(y[1], 0.0F);
      EXPECT_EQ(y[2], 0.0F);
      EXPECT_TRUE(std::isnan(y[3]));
      EXPECT_EQ(y[4], 0.0F);
    }
  });
}

}  // namespace
}  // namespace weir::kernel
#endif
