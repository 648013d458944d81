#pragma once
// Plans, lengths and clusters at random, from a seed.

#include <cstdint>

#include "plan/validate.h"
#include "spec/cluster.h"

namespace weir {

struct RandomCase {
  ValidPlan plan;
  ClusterSpec cluster;
  StepLengths lengths;
};

// Tensor and pipeline parallel plans of a tiny model. Where links are shared, nodes have a bus and
// one card, and half the networks an oversubscribed core.
[[nodiscard]] RandomCase random_case(std::uint64_t seed, bool shared);

}  // namespace weir
