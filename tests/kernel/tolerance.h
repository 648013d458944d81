#pragma once
// How far a fast kernel may lie from the reference because it adds in f32 and in another order.
// Both read the same stored values, so a coarse dtype of weights or KV costs nothing here.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/dtype.h"

namespace weir::kernel {

// Elementary functions in f32 are accurate to a few units in the last place.
inline constexpr double kFunctionUnits = 8;

// For a sum of `terms` products of which none is larger than `largest`. Terms of random sign make
// sums of some sqrt(n) * largest, and the errors of n additions walk as far again as sqrt(n)
// (Higham, "Accuracy and Stability of Numerical Algorithms", section 2.6); doubled for the tail,
// plus the roundings of storing the result.
[[nodiscard]] inline double sum_tolerance(std::int64_t terms, double largest) {
  return (2.0 * static_cast<double>(terms) + 2) * unit_roundoff(DType::f32) * largest;
}

struct AttentionSizes {
  std::int64_t key_dim = 0;
  std::int64_t num_keys = 0;
  double largest_product = 0;  // Of |scale q_d k_d|.
  double largest_value = 0;    // Of |v_d|.
};

// An error in a score is a relative error of its weight.
[[nodiscard]] inline double lse_tolerance(AttentionSizes sizes) {
  return sum_tolerance(sizes.key_dim, sizes.largest_product) +
         (kFunctionUnits + std::sqrt(static_cast<double>(sizes.num_keys)) +
          std::log(static_cast<double>(sizes.num_keys) + 1)) *
             unit_roundoff(DType::f32);
}
// Weights are wrong in numerator and denominator.
[[nodiscard]] inline double attention_tolerance(AttentionSizes sizes) {
  return 2 * lse_tolerance(sizes) * sizes.largest_value;
}

}  // namespace weir::kernel
