// The laws of plans and timelines on random plans, lengths and clusters. Each case prints its seed.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "clusters_for_tests.h"
#include "plan/transfers.h"
#include "random_cases.h"
#include "result/paths.h"
#include "result/timeline_check.h"
#include "result/timeline_json.h"
#include "sim/memory_trace.h"
#include "sim/simulate.h"
#include "strategy/strategy.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

constexpr std::uint64_t kPropertyCases = 60;

SimulatedStep simulated(const RandomCase& made,
                        SimulationMethod method = SimulationMethod::automatic) {
  SimulateOptions options;
  options.method = method;
  auto step = simulate(made.plan, made.cluster, made.lengths, options);
  EXPECT_TRUE(step.has_value()) << step.error().message;
  return *std::move(step);
}

// By looking at every value: written by then, and still to be read or being written.
std::int64_t buffers_in_use(const RandomCase& made, const Timeline& timeline, DeviceId device,
                            SimTime now) {
  const Plan& plan = made.plan.plan();
  std::int64_t bytes = 0;
  for (std::size_t v = 0; v < plan.values.size(); ++v) {
    const auto id = static_cast<ValueId>(v);
    SimTime from{-1};
    SimTime until{-1};
    for (const TaskRecord& task : timeline.tasks) {
      if (task.device != device) continue;
      const Node& node = plan.at(task.node);
      const bool writes = std::ranges::find(node.outputs, id) != node.outputs.end();
      const bool reads = std::ranges::find(node.inputs, id) != node.inputs.end();
      if (writes && !writes_state(node.kind)) from = task.start;
      if (writes || reads) until = std::max(until, task.end);
    }
    if (from.ns >= 0 && from <= now && now < until)
      bytes += value_bytes_by_device(plan, id, made.lengths)[index_of(device)];
  }
  return bytes;
}

class SimulateLaws : public testing::TestWithParam<bool> {};  // Whether links are shared.

TEST_P(SimulateLaws, TimelinesAreSoundRunsOfTheirPlans) {
  for (std::uint64_t seed = 0; seed < kPropertyCases; ++seed) {
    const RandomCase made = random_case(seed, GetParam());
    const Timeline timeline = simulated(made).timeline;
    EXPECT_EQ(problems_of(timeline), std::vector<std::string>{}) << "seed " << seed;
    EXPECT_EQ(problems_of(timeline, 0, made.plan.plan(), made.lengths), std::vector<std::string>{})
        << "seed " << seed;
  }
}

TEST_P(SimulateLaws, Law5BytesSentAreBytesReceived) {
  for (std::uint64_t seed = 0; seed < kPropertyCases; ++seed) {
    const RandomCase made = random_case(seed, GetParam());
    std::vector<std::int64_t> received(made.plan->nodes.size(), 0);
    const SimulatedStep step = simulated(made);
    for (const TaskRecord& task : step.timeline.tasks) {
      if (queue_of(task.kind) == Queue::comm) received[index_of(task.node)] += task.bytes;
    }
    for (std::size_t n = 0; n < received.size(); ++n) {
      EXPECT_EQ(received[n], bytes_sent(made.plan.plan(), static_cast<NodeId>(n), made.lengths))
          << "seed " << seed << " " << to_string(made.plan->nodes[n].kind);
    }
  }
}

TEST_P(SimulateLaws, Law5MemoryNeverExceedsWhatThePlanComputes) {
  int several = 0;
  for (std::uint64_t seed = 0; seed < 2 * kPropertyCases; ++seed) {
    const RandomCase made = random_case(seed, GetParam());
    several += made.plan->microbatches.size() > 1 ? 1 : 0;
    const SimulatedStep step = simulated(made);
    const MemoryTrace trace = trace_memory(step.timeline, 0, made.plan.plan(), made.lengths);
    const std::vector<DeviceMemory> planned = memory_by_device(made.plan.plan(), made.lengths);
    for (std::size_t d = 0; d < planned.size(); ++d) {
      const DeviceMemory& peak = trace.peak(static_cast<DeviceId>(d)).memory;
      EXPECT_LE(peak.total(), planned[d].total()) << "seed " << seed << " device " << d;
    }
  }
  EXPECT_GT(several, 20);
}

// Rounds of a ring, pools and their bases: transfers go on behind compute in each in another way.
TEST_P(SimulateLaws, Law5HoldsForEveryStrategy) {
  const std::vector<std::pair<std::string, OptionValues>> setups = {
      {"tp_pp", {{"tp", "2"}, {"pp", "2"}, {"microbatches", "3"}}},
      {"attention_pool",
       {{"tp", "2"},
        {"pool", "3"},
        {"threshold", "8"},
        {"kv_block", "8"},
        {"pool_policy", "fixed"},
        {"microbatches", "2"}}},
      {"tp_pp", {{"tp", "3"}, {"pp", "2"}, {"sequence_parallel", "1"}}},
      {"attention_pool",
       {{"tp", "1"},
        {"pool", "2"},
        {"threshold", "8"},
        {"split", "heads"},
        {"pool_policy", "fixed"},
        {"microbatches", "2"},
        {"pp", "2"}}},
      {"two_level", {{"microbatches", "2"}, {"pp", "2"}}},
      {"cache_fit", {{"devices", "2"}, {"capacity_kib", "64"}, {"microbatches", "2"}}},
      {"context_parallel", {{"cp", "3"}, {"kv_block", "8"}, {"microbatches", "2"}}},
      {"context_parallel", {{"cp", "2"}, {"exchange", "all_to_all"}, {"pp", "2"}}}};
  for (std::uint64_t seed = 0; seed < 70; ++seed) {
    Random random(seed);
    const auto& [strategy, values] = setups[seed % setups.size()];
    const std::int64_t requests = random.integer(1, 4);
    const auto named = make_strategy(strategy, values, tiny_model(4));
    ASSERT_TRUE(named.has_value()) << named.error().message;
    const std::int64_t devices = named->strategy->num_devices();
    PlanHeader header = tiny_header(devices, 4, requests);
    StepShape shape;
    StepLengths lengths;
    for (std::int64_t r = 0; r < requests; ++r) {
      const std::int64_t q_len = random.integer(1, 16);
      const std::int64_t past_len = random.integer(0, 48);
      shape.push_back({.past_len = past_len, .q_len = q_len, .max_len = 64});
      lengths.push_back({.q_len = q_len, .kv_len = past_len + q_len});
    }
    auto plan = validate(lower(header, named->strategy->layouts(shape)));
    ASSERT_TRUE(plan.has_value()) << join_problems(plan.error());
    const RandomCase made = {.plan = *std::move(plan),
                             .cluster = random_cluster(random, devices, GetParam()),
                             .lengths = lengths};
    const SimulatedStep step = simulated(made);
    const MemoryTrace trace = trace_memory(step.timeline, 0, made.plan.plan(), made.lengths);
    const std::vector<DeviceMemory> planned = memory_by_device(made.plan.plan(), made.lengths);
    for (std::size_t d = 0; d < planned.size(); ++d) {
      const DeviceMemory& peak = trace.peak(static_cast<DeviceId>(d)).memory;
      EXPECT_LE(peak.total(), planned[d].total())
          << named->label << " seed " << seed << " device " << d;
    }
  }
}

TEST_P(SimulateLaws, Law5MemoryAtEveryInstantIsThatOfTheBuffersInUse) {
  for (std::uint64_t seed = 0; seed < kPropertyCases; seed += 5) {
    const RandomCase made = random_case(seed, GetParam());
    const Plan& plan = made.plan.plan();
    const SimulatedStep step = simulated(made);
    const MemoryTrace trace = trace_memory(step.timeline, 0, plan, made.lengths);
    for (std::size_t d = 0; d < plan.devices.size(); ++d) {
      for (const MemorySample& sample : trace.devices[d]) {
        const DeviceMemory& memory = sample.memory;
        EXPECT_EQ(memory.activations + memory.attention + memory.comm_buffers,
                  buffers_in_use(made, step.timeline, static_cast<DeviceId>(d), sample.time))
            << "seed " << seed << " device " << d << " at " << sample.time.ns;
      }
      const DeviceMemory& last = trace.devices[d].back().memory;
      EXPECT_EQ(last.total(), last.weights + last.kv_cache) << "all buffers are freed";
    }
  }
}

TEST_P(SimulateLaws, Law6CriticalPathIsAtMostTheMakespanIsAtMostTheSerialSum) {
  for (std::uint64_t seed = 0; seed < kPropertyCases; ++seed) {
    const RandomCase made = random_case(seed, GetParam());
    const auto paths = summarize_paths(simulated(made).timeline, 0, made.plan.plan(), made.lengths);
    ASSERT_TRUE(paths.has_value()) << paths.error().message;
    EXPECT_LE(paths->data_path, paths->critical_path) << "seed " << seed;
    EXPECT_LE(paths->critical_path, paths->makespan) << "seed " << seed;
    EXPECT_LE(paths->makespan, paths->serial_sum) << "seed " << seed;
  }
}

TEST_P(SimulateLaws, Law7TheSameInputGivesTheSameBytes) {
  for (std::uint64_t seed = 0; seed < kPropertyCases; seed += 7) {
    const auto text = [&] {
      return timeline_to_json(simulated(random_case(seed, GetParam())).timeline).dump();
    };
    EXPECT_EQ(text(), text()) << "seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(OwnLinks, SimulateLaws, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(SharedLinks, SimulateLaws, testing::Values(true));

TEST(SimulateMethods, WhereNoLinkIsSharedTheStaticPassGivesTheEventLoopsAnswer) {
  int compared = 0;
  for (std::uint64_t seed = 0; seed < kPropertyCases; ++seed) {
    const RandomCase made = random_case(seed, seed % 2 == 0);
    const SimulatedStep by_events = simulated(made, SimulationMethod::event_loop);
    if (by_events.links_shared) continue;
    ++compared;
    const SimulatedStep statically = simulated(made, SimulationMethod::static_pass);
    EXPECT_EQ(statically.timeline, by_events.timeline) << "seed " << seed;
  }
  EXPECT_GT(compared, 20);
}

TEST(SimulateMethods, SharedLinksTakeTimeThatTheStaticPassDoesNotSee) {
  int slower = 0;
  for (std::uint64_t seed = 0; seed < kPropertyCases; ++seed) {
    const RandomCase made = random_case(seed, true);
    const SimulatedStep step = simulated(made);
    const SimulatedStep alone = simulated(made, SimulationMethod::static_pass);
    if (!step.links_shared) {
      EXPECT_EQ(step.timeline, alone.timeline) << "seed " << seed;
    } else if (step.timeline.end > alone.timeline.end) {
      ++slower;
    }
  }
  EXPECT_GT(slower, 0);
}

}  // namespace
}  // namespace weir
