#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include <fmt/format.h>

#include "base/random.h"

namespace weir {
namespace {

Status check_logits(std::span<const float> logits) {
  // One pass that only counts, since all is well as a rule.
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::int32_t allowed = 0;
  std::int32_t finite = 0;
  for (const float logit : logits) {
    allowed += logit < kInfinity ? 1 : 0;  // Not so for NaN.
    finite += std::abs(logit) < kInfinity ? 1 : 0;
  }
  if (static_cast<std::size_t>(allowed) != logits.size()) {
    const auto bad = std::ranges::find_if_not(
        logits, [](float logit) { return logit < std::numeric_limits<float>::infinity(); });
    return run_failed(fmt::format("logits: found {} for token {}, allowed finite numbers", *bad,
                                  bad - logits.begin()));
  }
  if (finite > 0) return {};
  return run_failed(
      fmt::format("logits: found no finite number among {}, allowed at least one", logits.size()));
}

// Logits above the k-th largest and all that equal it.
void keep_top_k(std::span<const float> logits, std::int64_t top_k,
                std::vector<std::int64_t>& tokens) {
  if (top_k == 0 || top_k >= static_cast<std::int64_t>(tokens.size())) return;
  std::vector<float> sorted(logits.begin(), logits.end());
  const auto edge = sorted.begin() + static_cast<std::ptrdiff_t>(top_k - 1);
  std::ranges::nth_element(sorted, edge, std::ranges::greater{});
  const float smallest = *edge;
  std::erase_if(tokens, [&](std::int64_t token) {
    return logits[static_cast<std::size_t>(token)] < smallest;
  });
}

// The shortest head of the list whose probabilities reach top_p: a token goes when those before it
// already do.
void keep_top_p(double top_p, std::vector<TokenProbability>& tokens) {
  if (top_p >= 1) return;
  double reached = 0;
  std::size_t kept = 0;
  while (kept < tokens.size() && reached < top_p) reached += tokens[kept++].probability;
  tokens.resize(kept);
  for (TokenProbability& entry : tokens) entry.probability /= reached;
}

// Several maxima at once, so that no comparison waits for the one before. Compilers make vectors of
// this comparison, and not of std::max.
float largest_of(std::span<const float> logits) {
  constexpr std::size_t kAtOnce = 32;
  std::array<float, kAtOnce> largest{};
  largest.fill(-std::numeric_limits<float>::infinity());
  std::size_t i = 0;
  for (; i + kAtOnce <= logits.size(); i += kAtOnce) {
    for (std::size_t lane = 0; lane < kAtOnce; ++lane) {
      const float logit = logits[i + lane];
      largest[lane] = logit > largest[lane] ? logit : largest[lane];
    }
  }
  for (; i < logits.size(); ++i) largest[0] = std::max(largest[0], logits[i]);
  return *std::ranges::max_element(largest);
}

// The largest logit's first place, of logits that have been checked. Which block it is in first, so
// that only there values are looked at one by one.
std::int64_t place_of_largest(std::span<const float> logits) {
  constexpr std::size_t kBlock = 512;
  std::span<const float> best = logits.first(std::min(kBlock, logits.size()));
  float largest = largest_of(best);
  for (std::size_t i = best.size(); i < logits.size(); i += kBlock) {
    const std::span<const float> block = logits.subspan(i, std::min(kBlock, logits.size() - i));
    const float here = largest_of(block);
    if (here <= largest) continue;
    largest = here;
    best = block;
  }
  return std::ranges::find(best, largest) - best.begin() + (best.data() - logits.data());
}

std::uint64_t mixed(std::uint64_t seed, std::uint64_t stream) {
  return Random(seed ^ Random(stream).next()).next();
}

}  // namespace

Status check_sampling(const SamplingOptions& options) {
  std::vector<std::string> problems;
  if (!(options.temperature >= 0 && std::isfinite(options.temperature))) {
    problems.push_back(fmt::format("temperature: found {}, allowed 0 (greedy) or a positive number",
                                   options.temperature));
  }
  if (options.top_k < 0) {
    problems.push_back(
        fmt::format("top_k: found {}, allowed 0 (all) or a positive integer", options.top_k));
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    problems.push_back(
        fmt::format("top_p: found {}, allowed a number above 0 and up to 1", options.top_p));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return {};
}

Result<std::vector<TokenProbability>> sampling_distribution(std::span<const float> logits,
                                                            const SamplingOptions& options) {
  if (auto checked = check_logits(logits); !checked) return tl::unexpected(checked.error());
  const std::int64_t largest = place_of_largest(logits);
  if (options.temperature == 0)
    return std::vector{TokenProbability{.token = largest, .probability = 1}};

  std::vector<std::int64_t> kept(logits.size());
  for (std::size_t i = 0; i < kept.size(); ++i) kept[i] = static_cast<std::int64_t>(i);
  keep_top_k(logits, options.top_k, kept);

  std::vector<TokenProbability> tokens;
  double sum = 0;
  for (const std::int64_t token : kept) {
    const double below = double{logits[static_cast<std::size_t>(token)]} -
                         double{logits[static_cast<std::size_t>(largest)]};
    const double weight = std::exp(below / options.temperature);
    if (weight == 0) continue;
    tokens.push_back({.token = token, .probability = weight});
    sum += weight;
  }
  for (TokenProbability& entry : tokens) entry.probability /= sum;
  std::ranges::stable_sort(tokens, std::ranges::greater{}, &TokenProbability::probability);
  keep_top_p(options.top_p, tokens);
  return tokens;
}

Result<std::int64_t> sample_token(std::span<const float> logits, const SamplingOptions& options,
                                  DrawIndex draw) {
  if (options.temperature == 0) {
    if (auto checked = check_logits(logits); !checked) return tl::unexpected(checked.error());
    return place_of_largest(logits);
  }
  const auto tokens = sampling_distribution(logits, options);
  if (!tokens) return tl::unexpected(tokens.error());
  Random random(mixed(mixed(options.seed, draw.request), draw.token));
  double left = random.uniform();
  for (const TokenProbability& entry : *tokens) {
    left -= entry.probability;
    if (left < 0) return entry.token;
  }
  return tokens->back().token;  // The probabilities sum to 1 only within rounding.
}

}  // namespace weir
