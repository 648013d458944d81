#pragma once
// How far two exact computations of the same logits may lie apart because of rounding. The one
// place where tolerances come from; no test has one of its own.

#include <cstdint>

#include "base/dtype.h"

namespace weir {

// What the values pass through between the weights and the logits.
struct RoundingPath {
  DType coarsest =
      DType::f32;  // The coarsest dtype in which an intermediate value (a KV entry, say) is stored.
  std::int64_t longest_reduction =
      1;  // The largest number of terms of a sum: hidden_size, intermediate_size, kv_len.
  std::int64_t num_layers = 1;
};

// Largest allowed max|a - b| divided by the range (max - min) of the reference logits.
//
// A sum of n terms computed in two orders differs by about u sqrt(n) relative to the root of the
// sum of squares (errors of random sign; Higham, "Accuracy and Stability of Numerical Algorithms",
// section 2.6), u being the unit roundoff. Each layer adds 2 residual branches, whose errors add up
// as a random walk over layers: sqrt(2 L). Values stored in a coarser dtype can fall to either side
// of a rounding boundary, which costs one u of that dtype per layer and value, not per term. The
// factor 16 covers the tail of the maximum over many logits and the gain through the norms.
[[nodiscard]] double logits_tolerance(RoundingPath path);

}  // namespace weir
