#include "base/tolerance.h"

#include <cmath>

namespace weir {

double logits_tolerance(RoundingPath path) {
  constexpr double kTailFactor = 16.0;
  const double walk = std::sqrt(2.0 * static_cast<double>(path.num_layers));
  const double summation =
      unit_roundoff(DType::f32) * std::sqrt(static_cast<double>(path.longest_reduction));
  const double storage = path.coarsest == DType::f32 ? 0.0 : unit_roundoff(path.coarsest);
  return kTailFactor * walk * (summation + storage);
}

}  // namespace weir
