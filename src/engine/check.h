#pragma once
// Law 1, asked of a real run: is what a strategy generated what a single device generates? The
// second run is fed the first one's tokens (teacher forcing), so that the logits of every token are
// comparable even where a choice fell the other way.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "engine/generate.h"
#include "spec/model.h"

namespace weir {

// The requests again, made to follow the tokens that `generation` chose. Requests without any
// tokens keep their prompts only.
[[nodiscard]] std::vector<GenerationRequest> forced_to_follow(
    std::span<const GenerationRequest> requests, const Generation& generation);

// Allowed difference of the logits of sequences of up to `longest` tokens, see logits_tolerance.
struct StoredDTypes {
  DType activations = DType::f32;
  DType kv = DType::f32;
};
[[nodiscard]] double run_tolerance(const ModelSpec& model, StoredDTypes dtypes,
                                   std::int64_t longest);

struct Comparison {
  std::int64_t tokens_compared = 0;
  // Chosen differently, although the reference's logits of the two tokens lie further apart than
  // rounding explains.
  std::int64_t tokens_differing = 0;
  // Chosen differently within rounding: ties, and draws that fell beside a token's edge.
  std::int64_t ties = 0;
  double max_logit_difference = 0;  // Of all tokens: max|a - b| / (max - min of the reference).
  double tolerance = 0;
  std::optional<std::string> first_problem;

  [[nodiscard]] bool agrees() const { return !first_problem.has_value(); }
};

// Both must have kept their logits, and one of them must have followed the other's tokens. They
// disagree where they differ in the number of tokens, in a token that is no tie, or in a logit by
// more than the tolerance (NaN included).
[[nodiscard]] Comparison compare(const Generation& reference, const Generation& other,
                                 std::span<const GenerationRequest> requests, double tolerance);

}  // namespace weir
