#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "spec/model.h"

namespace weir {
namespace {

struct RopeGolden {
  std::string rope_type;
  std::int64_t seq_len;
  double scale;
  std::vector<double> inverse_frequency;
  std::string config;
};

const std::vector<RopeGolden>& rope_goldens() {
  static const std::vector<RopeGolden> goldens{
#include "tests/spec/rope_goldens.inc"
  };
  return goldens;
}

// transformers computes in f32, a few operations per number, of which the power amplifies rounding
// by the logarithm of theta.
constexpr double kRelative = 1e-6;

TEST(RopeFrequencies, EqualTransformers) {
  ASSERT_EQ(rope_goldens().size(), 11U);
  for (const RopeGolden& golden : rope_goldens()) {
    SCOPED_TRACE(golden.rope_type + " at " + std::to_string(golden.seq_len));
    const auto model = model_from_config(*parse_json(golden.config, "golden"), "golden");
    ASSERT_TRUE(model) << model.error().message;
    const RopeFrequencies found = rope_frequencies(model->rope, golden.seq_len);
    EXPECT_NEAR(found.scale, golden.scale, kRelative * golden.scale);
    ASSERT_EQ(found.inverse_frequency.size(), golden.inverse_frequency.size());
    for (std::size_t i = 0; i < golden.inverse_frequency.size(); ++i) {
      EXPECT_NEAR(found.inverse_frequency[i], golden.inverse_frequency[i],
                  kRelative * golden.inverse_frequency[i])
          << "pair " << i;
    }
  }
}

TEST(RopeFrequencies, OfTheFirstPairAreOne) {
  EXPECT_EQ(rope_frequencies({.theta = 12345, .rotary_dim = 8}, 1).inverse_frequency.front(), 1.0);
}

TEST(RopeFrequencies, OfDynamicScalingChangeOnlyBeyondTheOriginalMaximum) {
  const RopeSpec dynamic{.rotary_dim = 16,
                         .scaling = DynamicRope{.factor = 2, .original_max_position = 100}};
  const RopeSpec plain{.rotary_dim = 16};
  const auto unscaled = rope_frequencies(plain, 100).inverse_frequency;
  EXPECT_EQ(rope_frequencies(dynamic, 100).inverse_frequency, unscaled);
  const auto beyond = rope_frequencies(dynamic, 101).inverse_frequency;
  EXPECT_LT(beyond.back(), unscaled.back());
  EXPECT_EQ(beyond.front(), unscaled.front());
}

}  // namespace
}  // namespace weir
