#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "spec/model.h"

namespace weir {
namespace {

// theta^(-2 i / rotary_dim) for pair i.
std::vector<double> unscaled(double theta, std::int64_t rotary_dim) {
  std::vector<double> frequencies(static_cast<std::size_t>(rotary_dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
  }
  return frequencies;
}

RopeFrequencies apply(const std::monostate&, const RopeSpec& rope, std::int64_t) {
  return {.inverse_frequency = unscaled(rope.theta, rope.rotary_dim)};
}

RopeFrequencies apply(const LinearRope& linear, const RopeSpec& rope, std::int64_t) {
  RopeFrequencies result{.inverse_frequency = unscaled(rope.theta, rope.rotary_dim)};
  for (double& frequency : result.inverse_frequency) frequency /= linear.factor;
  return result;
}

// "NTK-aware" interpolation: theta is chosen so that the slowest pair is slowed by the whole factor
// and the fastest not at all.
RopeFrequencies apply(const DynamicRope& dynamic, const RopeSpec& rope, std::int64_t seq_len) {
  const auto original = static_cast<double>(dynamic.original_max_position);
  const double length = std::max(static_cast<double>(seq_len), original);
  const auto dim = static_cast<double>(rope.rotary_dim);
  const double stretch = dynamic.factor * length / original - (dynamic.factor - 1);
  const double theta = rope.theta * std::pow(stretch, dim / (dim - 2));
  return {.inverse_frequency = unscaled(theta, rope.rotary_dim)};
}

// Llama 3.1: wavelengths beyond original / low_freq_factor are stretched by the factor, those
// within original / high_freq_factor are kept, those between are blended.
RopeFrequencies apply(const Llama3Rope& llama3, const RopeSpec& rope, std::int64_t) {
  const auto original = static_cast<double>(llama3.original_max_position);
  RopeFrequencies result{.inverse_frequency = unscaled(rope.theta, rope.rotary_dim)};
  for (double& frequency : result.inverse_frequency) {
    const double turns = original * frequency / (2 * std::numbers::pi);
    const double kept = std::clamp(
        (turns - llama3.low_freq_factor) / (llama3.high_freq_factor - llama3.low_freq_factor), 0.0,
        1.0);
    frequency = (1 - kept) * frequency / llama3.factor + kept * frequency;
  }
  return result;
}

// The (fractional) pair that makes `turns` rotations within the original length; arXiv:2309.00071,
// section 3.2.
double pair_with_turns(double turns, const YarnRope& yarn, const RopeSpec& rope) {
  const auto original = static_cast<double>(yarn.original_max_position);
  return static_cast<double>(rope.rotary_dim) *
         std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
}

RopeFrequencies apply(const YarnRope& yarn, const RopeSpec& rope, std::int64_t) {
  double low = pair_with_turns(yarn.beta_fast, yarn, rope);
  double high = pair_with_turns(yarn.beta_slow, yarn, rope);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.rotary_dim - 1));
  if (low == high) high += 0.001;  // A step instead of a ramp of no width; transformers' constant.

  RopeFrequencies result{.inverse_frequency = unscaled(rope.theta, rope.rotary_dim),
                         .scale = yarn.attention_factor};
  for (std::size_t i = 0; i < result.inverse_frequency.size(); ++i) {
    double& frequency = result.inverse_frequency[i];
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequency = stretched * frequency / yarn.factor + (1 - stretched) * frequency;
  }
  return result;
}

RopeFrequencies apply(const LongRope& longrope, const RopeSpec& rope, std::int64_t seq_len) {
  const std::vector<double>& divisors =
      seq_len > longrope.original_max_position ? longrope.long_factor : longrope.short_factor;
  RopeFrequencies result{.inverse_frequency = unscaled(rope.theta, rope.rotary_dim),
                         .scale = longrope.attention_factor};
  CHECK(divisors.size() == result.inverse_frequency.size(), "one LongRope factor per rotary pair");
  for (std::size_t i = 0; i < divisors.size(); ++i) result.inverse_frequency[i] /= divisors[i];
  return result;
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeSpec& rope, std::int64_t seq_len) {
  CHECK(rope.rotary_dim >= 2 && rope.rotary_dim % 2 == 0, "rotary_dim is even and positive");
  return std::visit([&](const auto& scaling) { return apply(scaling, rope, seq_len); },
                    rope.scaling);
}

}  // namespace weir
