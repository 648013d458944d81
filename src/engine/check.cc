#include "engine/check.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/check.h"
#include "base/tolerance.h"

namespace weir {
namespace {

// One token's logits in both runs.
struct LogitsPair {
  const std::vector<float>& reference;
  const std::vector<float>& other;

  [[nodiscard]] double range() const {
    const auto [smallest, largest] = std::ranges::minmax(reference);
    return double{largest} - double{smallest};
  }
  // NaN where either has one.
  [[nodiscard]] double max_difference() const {
    double most = 0;
    for (std::size_t i = 0; i < reference.size(); ++i) {
      const double difference = std::abs(double{reference[i]} - double{other[i]});
      if (!(difference <= most)) most = difference;
      if (std::isnan(most)) break;
    }
    return most;
  }
  // How far the reference's logits of two tokens lie apart.
  [[nodiscard]] double gap(std::int64_t a, std::int64_t b) const {
    return std::abs(double{reference[static_cast<std::size_t>(a)]} -
                    double{reference[static_cast<std::size_t>(b)]});
  }
};

// Differences as shares of the logits' range; all zero logits have none and must be equal.
double relative(double difference, double range) {
  if (difference == 0) return 0;
  return difference / range;
}

class Comparer {
 public:
  explicit Comparer(double tolerance) { comparison_.tolerance = tolerance; }

  void compare_request(std::size_t request, const GenerationOutput& reference,
                       const GenerationOutput& other, bool is_greedy) {
    if (reference.tokens.size() != other.tokens.size()) {
      problem(fmt::format("request {}: found {} tokens, the reference has {}", request,
                          other.tokens.size(), reference.tokens.size()));
    }
    const std::size_t count = std::min(reference.tokens.size(), other.tokens.size());
    CHECK(reference.logits.size() >= count && other.logits.size() >= count,
          "logits are compared only where they were kept");
    for (std::size_t i = 0; i < count; ++i) {
      place_ = fmt::format("request {} token {}", request, i);
      const LogitsPair logits{.reference = reference.logits[i], .other = other.logits[i]};
      compare_logits(logits);
      compare_tokens(reference.tokens[i], other.tokens[i], logits, is_greedy);
    }
  }

  Comparison run() { return std::move(comparison_); }

 private:
  void compare_logits(const LogitsPair& logits) {
    const double difference = relative(logits.max_difference(), logits.range());
    if (!(difference <= comparison_.max_logit_difference) &&
        !std::isnan(comparison_.max_logit_difference)) {
      comparison_.max_logit_difference = difference;
    }
    if (!(difference <= comparison_.tolerance)) {
      problem(fmt::format("{}: logits differ by {:.2e} of their range, allowed {:.2e}", place_,
                          difference, comparison_.tolerance));
    }
  }

  void compare_tokens(std::int64_t reference, std::int64_t other, const LogitsPair& logits,
                      bool is_greedy) {
    ++comparison_.tokens_compared;
    if (reference == other) return;
    const double gap = relative(logits.gap(reference, other), logits.range());
    // Both logits may be off by the tolerance. Where a draw falls follows from the logits.
    if (!is_greedy || gap <= 2 * comparison_.tolerance) {
      ++comparison_.ties;
      return;
    }
    ++comparison_.tokens_differing;
    problem(fmt::format("{}: found token {}, the reference has {}", place_, other, reference));
  }

  void problem(std::string text) {
    if (!comparison_.first_problem) comparison_.first_problem = std::move(text);
  }

  Comparison comparison_;
  std::string place_;
};

}  // namespace

std::vector<GenerationRequest> forced_to_follow(std::span<const GenerationRequest> requests,
                                                const Generation& generation) {
  std::vector<GenerationRequest> forced(requests.begin(), requests.end());
  for (std::size_t i = 0; i < forced.size(); ++i) {
    forced[i].forced = generation.outputs[i].tokens;
    forced[i].max_new_tokens = static_cast<std::int64_t>(forced[i].forced.size());
  }
  return forced;
}

double run_tolerance(const ModelSpec& model, StoredDTypes dtypes, std::int64_t longest) {
  const auto coarser = [](DType a, DType b) {
    return unit_roundoff(a) >= unit_roundoff(b) ? a : b;
  };
  return logits_tolerance(
      {.coarsest = coarser(dtypes.activations, dtypes.kv),
       .longest_reduction = std::max({model.hidden_size, model.intermediate_size,
                                      model.num_q_heads * model.head_dim, longest}),
       .num_layers = model.num_layers});
}

Comparison compare(const Generation& reference, const Generation& other,
                   std::span<const GenerationRequest> requests, double tolerance) {
  CHECK(reference.outputs.size() == requests.size() && other.outputs.size() == requests.size(),
        "generations of the same requests are compared");
  Comparer comparer(tolerance);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    comparer.compare_request(i, reference.outputs[i], other.outputs[i],
                             requests[i].sampling.temperature == 0);
  }
  return comparer.run();
}

}  // namespace weir
