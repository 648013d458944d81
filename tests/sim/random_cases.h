#pragma once
// Plans, lengths and clusters at random, from a seed.

#include <cstdint>
#include <initializer_list>

#include "base/random.h"
#include "plan/validate.h"
#include "spec/cluster.h"

namespace weir {

struct RandomCase {
  ValidPlan plan;
  ClusterSpec cluster;
  StepLengths lengths;
};

[[nodiscard]] std::int64_t one_of(Random& random, std::initializer_list<std::int64_t> values);

// Nodes of 1, 2 or all of the devices. Where links are shared, nodes have a bus and one card, and
// half the networks an oversubscribed core.
[[nodiscard]] ClusterSpec random_cluster(Random& random, std::int64_t devices, bool shared);

// Tensor and pipeline parallel plans of a tiny model on such clusters.
[[nodiscard]] RandomCase random_case(std::uint64_t seed, bool shared);

}  // namespace weir
