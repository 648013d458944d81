#include "engine/check.h"

#include <cmath>

#include <gtest/gtest.h>

namespace weir {
namespace {

constexpr double kTolerance = 1e-3;

Generation generation_of(std::vector<std::int64_t> tokens, std::vector<std::vector<float>> logits) {
  Generation generation;
  generation.outputs.push_back(
      {.tokens = std::move(tokens), .finish = FinishReason::length, .logits = std::move(logits)});
  return generation;
}

Comparison compared(const Generation& reference, const Generation& other, double temperature = 0) {
  GenerationRequest request;
  request.sampling.temperature = temperature;
  const std::vector<GenerationRequest> requests = {request};
  return compare(reference, other, requests, kTolerance);
}

TEST(Check, EqualGenerationsAgree) {
  const Generation generation = generation_of({1, 0}, {{0, 10}, {5, -5}});
  const Comparison comparison = compared(generation, generation);
  EXPECT_TRUE(comparison.agrees());
  EXPECT_EQ(comparison.tokens_compared, 2);
  EXPECT_EQ(comparison.max_logit_difference, 0);
}

TEST(Check, LogitsMayDifferByTheToleranceOfTheirRange) {
  const Generation reference = generation_of({1}, {{0, 10}});
  EXPECT_TRUE(compared(reference, generation_of({1}, {{0, 10.009F}})).agrees());
  const Comparison beyond = compared(reference, generation_of({1}, {{0, 10.02F}}));
  EXPECT_FALSE(beyond.agrees());
  EXPECT_NEAR(beyond.max_logit_difference, 2e-3, 1e-6);
  EXPECT_EQ(beyond.first_problem,
            "request 0 token 0: logits differ by 2.00e-03 of their range, allowed 1.00e-03");
}

TEST(Check, ATokenMayDifferOnlyWithinATie) {
  const Generation tied = generation_of({1}, {{9.999F, 10, 0}});
  const Comparison tie = compared(tied, generation_of({0}, {{10, 9.999F, 0}}));
  EXPECT_TRUE(tie.agrees());
  EXPECT_EQ(tie.ties, 1);
  const Generation clear = generation_of({1}, {{5, 10, 0}});
  const Comparison wrong = compared(clear, generation_of({0}, {{5, 10, 0}}));
  EXPECT_FALSE(wrong.agrees());
  EXPECT_EQ(wrong.tokens_differing, 1);
  EXPECT_EQ(wrong.first_problem, "request 0 token 0: found token 0, the reference has 1");
}

TEST(Check, ADrawMayFallBesideATokensEdge) {
  const Generation reference = generation_of({1}, {{5, 10, 0}});
  EXPECT_TRUE(compared(reference, generation_of({0}, {{5, 10, 0}}), 1.0).agrees());
}

TEST(Check, MissingTokensAndNaNDisagree) {
  const Generation reference = generation_of({1, 1}, {{0, 1}, {0, 1}});
  EXPECT_FALSE(compared(reference, generation_of({1}, {{0, 1}})).agrees());
  const Comparison nan = compared(reference, generation_of({1, 1}, {{0, 1}, {std::nanf(""), 1}}));
  EXPECT_FALSE(nan.agrees());
  EXPECT_TRUE(std::isnan(nan.max_logit_difference));
}

}  // namespace
}  // namespace weir
