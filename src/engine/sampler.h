#pragma once
// From logits to the next token. Greedy, or drawn: logits are divided by the temperature, then only
// the top_k largest stay, then the smallest set of the most likely ones whose probabilities reach
// top_p; a token is drawn from what is left. Order and edge cases are those of Hugging Face's
// logits processors (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper).
//
// A draw depends on the seed, the request's number and the token's index alone, so a request's
// tokens are the same whatever else is in its batch.

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace weir {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy, and the others are not looked at.
  std::int64_t top_k = 0;  // 0: all.
  double top_p = 1;        // In (0, 1]; 1: all.
  std::uint64_t seed = 0;

  bool operator==(const SamplingOptions&) const = default;
};

// Refuses values outside their limits, all at once.
[[nodiscard]] Status check_sampling(const SamplingOptions& options);

struct TokenProbability {
  std::int64_t token = 0;
  double probability = 0;

  bool operator==(const TokenProbability&) const = default;
};

// What a token is drawn from: the tokens that are left and their probabilities, which sum to 1,
// most likely first, equal ones by id. Greedy: the largest logit alone, the smallest id of equal
// ones. Equal logits at the edge of top_k all stay. Fails on NaN and +inf, and where no logit is
// finite; -inf is a token that is never drawn.
[[nodiscard]] Result<std::vector<TokenProbability>> sampling_distribution(
    std::span<const float> logits, const SamplingOptions& options);

// Which draw of a run it is.
struct DrawIndex {
  std::uint64_t request = 0;
  std::uint64_t token = 0;
};
[[nodiscard]] Result<std::int64_t> sample_token(std::span<const float> logits,
                                                const SamplingOptions& options, DrawIndex draw);

}  // namespace weir
