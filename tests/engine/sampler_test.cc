#include "engine/sampler.h"

#include <array>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace weir {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Probabilities 0.4, 0.3, 0.2, 0.1 at temperature 1, in another order.
const std::vector<float> kLogits = {std::log(0.2F), std::log(0.4F), std::log(0.1F), std::log(0.3F)};

std::vector<std::int64_t> tokens_left(std::span<const float> logits,
                                      const SamplingOptions& options) {
  std::vector<std::int64_t> tokens;
  const std::vector<TokenProbability> left = sampling_distribution(logits, options).value();
  for (const TokenProbability& entry : left) tokens.push_back(entry.token);
  return tokens;
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  const std::vector<float> logits = {1, 3, -kInfinity, 3};
  EXPECT_EQ(sample_token(logits, {}, {}).value(), 1);
}

TEST(Sampler, GreedyFindsTheLargestWhereverItIs) {
  for (const std::size_t size : {1U, 31U, 511U, 512U, 513U, 1500U}) {
    for (std::size_t place = 0; place < size; place += 37) {
      std::vector<float> logits(size, -7.0F);
      logits[place] = -1.0F;
      logits.back() = std::max(logits.back(), place + 1 < size ? -1.0F : -7.0F);  // An equal later.
      EXPECT_EQ(sample_token(logits, {}, {}), static_cast<std::int64_t>(place));
    }
  }
  const float lowest = -std::numeric_limits<float>::infinity();
  std::vector<float> logits(1000, lowest);
  logits[700] = -3e38F;
  EXPECT_EQ(sample_token(logits, {}, {}), 700);
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  const auto at = [](double temperature) {
    return sampling_distribution(kLogits, {.temperature = temperature}).value();
  };
  EXPECT_NEAR(at(1)[0].probability, 0.4, 1e-6);
  EXPECT_NEAR(at(1)[3].probability, 0.1, 1e-6);
  // Squares of the probabilities: 0.16 of 0.16 + 0.09 + 0.04 + 0.01.
  EXPECT_NEAR(at(0.5)[0].probability, 0.16 / 0.30, 1e-6);
  EXPECT_NEAR(at(1e9)[0].probability, 0.25, 1e-6);
  EXPECT_EQ(at(1e-300).size(), 1U);
}

TEST(Sampler, TopKKeepsTheKLargestAndTheirEquals) {
  EXPECT_EQ(tokens_left(kLogits, {.temperature = 1, .top_k = 2}),
            (std::vector<std::int64_t>{1, 3}));
  const std::vector<float> ties = {2, 1, 2, 1, 0};
  EXPECT_EQ(tokens_left(ties, {.temperature = 1, .top_k = 3}),
            (std::vector<std::int64_t>{0, 2, 1, 3}));
  EXPECT_EQ(tokens_left(ties, {.temperature = 1, .top_k = 9}).size(), 5U);
}

TEST(Sampler, TopPKeepsTheShortestHeadThatReachesIt) {
  EXPECT_EQ(tokens_left(kLogits, {.temperature = 1, .top_p = 0.65}),
            (std::vector<std::int64_t>{1, 3}));
  EXPECT_EQ(tokens_left(kLogits, {.temperature = 1, .top_p = 0.75}),
            (std::vector<std::int64_t>{1, 3, 0}));
  EXPECT_EQ(tokens_left(kLogits, {.temperature = 1, .top_p = 1e-9}),
            (std::vector<std::int64_t>{1}));
}

TEST(Sampler, TopPCountsProbabilitiesAmongTheTopK) {
  // Among the top 2 the first has 4/7 = 0.57, which alone reaches 0.5 but not 0.6.
  EXPECT_EQ(tokens_left(kLogits, {.temperature = 1, .top_k = 2, .top_p = 0.5}).size(), 1U);
  EXPECT_EQ(tokens_left(kLogits, {.temperature = 1, .top_k = 2, .top_p = 0.6}).size(), 2U);
}

TEST(Sampler, TopPCountsProbabilitiesAfterTheTemperature) {
  // At 0.5 the first has 0.53 and the first two 0.83.
  EXPECT_EQ(tokens_left(kLogits, {.temperature = 0.5, .top_p = 0.5}).size(), 1U);
  EXPECT_EQ(tokens_left(kLogits, {.temperature = 0.5, .top_p = 0.8}).size(), 2U);
}

TEST(Sampler, DrawsAsOftenAsTheProbabilitiesSay) {
  std::array<int, 4> count{};
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const auto token = sample_token(kLogits, {.temperature = 1},
                                    {.request = 1, .token = static_cast<std::uint64_t>(i)});
    ++count[static_cast<std::size_t>(token.value())];
  }
  // Five standard deviations.
  EXPECT_NEAR(count[1], 0.4 * kDraws, 5 * std::sqrt(0.24 * kDraws));
  EXPECT_NEAR(count[2], 0.1 * kDraws, 5 * std::sqrt(0.09 * kDraws));
}

TEST(Sampler, EveryDrawIsItsOwnAndRepeatable) {
  const std::vector<float> flat(1000, 0.0F);
  const auto draw = [&](std::uint64_t seed, DrawIndex index) {
    return sample_token(flat, {.temperature = 1, .seed = seed}, index).value();
  };
  EXPECT_EQ(draw(1, {.request = 2, .token = 3}), draw(1, {.request = 2, .token = 3}));
  EXPECT_NE(draw(1, {.request = 2, .token = 3}), draw(1, {.request = 3, .token = 2}));
  EXPECT_NE(draw(1, {.request = 2, .token = 3}), draw(2, {.request = 2, .token = 3}));
  EXPECT_NE(draw(1, {.request = 2, .token = 3}), draw(1, {.request = 2, .token = 4}));
}

TEST(Sampler, NeverDrawsAnImpossibleToken) {
  const std::vector<float> logits = {-kInfinity, 0, -kInfinity};
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(sample_token(logits, {.temperature = 2}, {.request = 0, .token = i}).value(), 1);
  }
}

TEST(Sampler, RefusesLogitsThatAreNoNumbers) {
  const std::vector<float> nan = {0, 1, std::nanf("")};
  EXPECT_EQ(sample_token(nan, {}, {}).error().message,
            "logits: found nan for token 2, allowed finite numbers");
  EXPECT_EQ(sample_token(nan, {}, {}).error().kind, ErrorKind::run_failed);
  EXPECT_FALSE(sample_token(nan, {.temperature = 1}, {}));
  const std::vector<float> infinite = {kInfinity, 0};
  EXPECT_FALSE(sample_token(infinite, {}, {}));
  const std::vector<float> nothing = {-kInfinity, -kInfinity};
  EXPECT_FALSE(sample_token(nothing, {}, {}));
}

TEST(Sampler, RefusesOptionsOutsideTheirLimits) {
  EXPECT_TRUE(check_sampling({}));
  const Status status = check_sampling({.temperature = -1, .top_k = -2, .top_p = 1.5});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message,
            "temperature: found -1, allowed 0 (greedy) or a positive number; "
            "top_k: found -2, allowed 0 (all) or a positive integer; "
            "top_p: found 1.5, allowed a number above 0 and up to 1");
  EXPECT_FALSE(check_sampling({.temperature = std::nan("")}));
}

}  // namespace
}  // namespace weir
