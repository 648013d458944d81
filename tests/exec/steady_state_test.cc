#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "exec/executor.h"
#include "tests/exec/machine.h"
#include "tests/kernel/allocation_count.h"

namespace weir {
namespace {

struct StepCost {
  std::int64_t allocations = 0;
  std::int64_t buffer_growth = 0;  // Bytes of activations, all devices.
};

std::int64_t bytes_of_buffers(const Executor& executor) {
  std::int64_t bytes = 0;
  for (const Executor::Held& held : executor.held()) bytes += held.buffers;
  return bytes;
}

// What the decode step after a prompt and some decode steps takes.
StepCost cost_of_decode_step(std::uint32_t num_devices) {
  constexpr int kWarmSteps = 8;
  TestMachine machine({.num_devices = num_devices});
  const ValidPlan plan = machine.plan(tensor_parallel(device_range(0, num_devices), 1), 1);
  machine.run(plan, {{1, some_tokens(5, 1)}});
  const Tokens token = {7};
  StepInput input{.lengths = {{.q_len = 1, .kv_len = 5}},
                  .sequences = {SequenceId{1}},
                  .tokens = {token},
                  .rope_lengths = {64}};
  StepOutput output;
  StepCost cost;
  for (int step = 0; step <= kWarmSteps; ++step) {
    ++input.lengths[0].kv_len;
    const std::int64_t buffers = bytes_of_buffers(machine.executor());
    const std::int64_t allocations = allocations_so_far();
    EXPECT_TRUE(machine.executor().run(plan, input, step, nullptr, output));
    cost.allocations = allocations_so_far() - allocations;
    cost.buffer_growth = bytes_of_buffers(machine.executor()) - buffers;
  }
  return cost;
}

TEST(SteadyState, DecodeStepsTakeNoMoreMemoryForActivations) {
  EXPECT_EQ(cost_of_decode_step(1).buffer_growth, 0);
  EXPECT_EQ(cost_of_decode_step(2).buffer_growth, 0);
}

TEST(SteadyState, DecodeStepsDoNotAllocate) {
  EXPECT_EQ(cost_of_decode_step(1).allocations, 0);
  EXPECT_EQ(cost_of_decode_step(2).allocations, 0);
}

}  // namespace
}  // namespace weir
