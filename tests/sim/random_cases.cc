#include "random_cases.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "clusters_for_tests.h"
#include "strategy/strategy.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {

std::int64_t one_of(Random& random, std::initializer_list<std::int64_t> values) {
  return values.begin()[random.integer(0, std::ssize(values) - 1)];
}

ClusterSpec random_cluster(Random& random, std::int64_t devices, bool shared) {
  const std::int64_t per_node = one_of(random, {1, 2, devices});
  ClusterSpec cluster = round_cluster((devices + per_node - 1) / per_node, per_node);
  NodeType& node = cluster.node_types[0];
  node.fabrics[0].latency = Seconds{1e-7 * static_cast<double>(random.integer(0, 50))};
  node.fabrics[0].bandwidth = BytesPerSecond{1e8 * static_cast<double>(random.integer(1, 100))};
  if (shared) {
    node.fabrics[0].shared_bandwidth = node.fabrics[0].bandwidth;
    node.nics->owner = NicOwner::node;
    if (random.uniform() < 0.5) {
      cluster.network.nodes_per_leaf = 1;
      cluster.network.oversubscription = 2;
    }
  }
  return cluster;
}

RandomCase random_case(std::uint64_t seed, bool shared) {
  Random random(seed);
  const std::int64_t tp = one_of(random, {1, 2, 4});
  const std::int64_t pp = one_of(random, {1, 2, 3});
  const std::int64_t requests = random.integer(1, 5);
  PlanHeader header = tiny_header(tp * pp, random.integer(3, 6), requests);
  const auto named =
      make_strategy("tp_pp",
                    {{"tp", fmt::format("{}", tp)},
                     {"pp", fmt::format("{}", pp)},
                     {"microbatches", fmt::format("{}", random.integer(1, requests))}},
                    header.model);
  EXPECT_TRUE(named.has_value()) << named.error().message;
  StepShape shape(static_cast<std::size_t>(requests), {.past_len = 48, .q_len = 16, .max_len = 64});
  auto plan = validate(lower(header, named->strategy->layouts(shape)));
  EXPECT_TRUE(plan.has_value()) << join_problems(plan.error());
  StepLengths lengths;
  for (std::int64_t r = 0; r < requests; ++r) {
    const std::int64_t q_len = random.integer(0, 16);
    lengths.push_back({.q_len = q_len, .kv_len = random.integer(q_len, 64)});
  }
  return {.plan = *std::move(plan),
          .cluster = random_cluster(random, tp * pp, shared),
          .lengths = std::move(lengths)};
}

}  // namespace weir
