#include "exec/executor.h"

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "plan/transfers.h"
#include "tests/exec/machine.h"

namespace weir {
namespace {

StepLayouts on_devices(std::uint32_t count, std::int64_t batch_size) {
  return tensor_parallel(device_range(0, count), batch_size);
}

Tokens joined(Tokens first, const Tokens& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

TEST(Executor, DecodesAsItPrefills) {
  TestMachine machine({.num_devices = 2, .logits = LogitsWanted::all});
  const ValidPlan plan = machine.plan(on_devices(2, 1), 1);
  const Tokens tokens = some_tokens(9, 1);
  Logits one_by_one(1);
  for (const std::int64_t token : tokens) {
    const Logits logits = machine.run(plan, {{1, {token}}});
    one_by_one[0].insert(one_by_one[0].end(), logits[0].begin(), logits[0].end());
  }
  expect_near(one_by_one, machine.run(plan, {{2, tokens}}));
}

// More than kOneShotAllReduce: members reduce a part each and hand it round, in place.
TEST(Executor, ReducesManyTokensInTwoRounds) {
  const std::vector<Turn> turns = {{1, some_tokens(200, 1)}, {2, some_tokens(200, 2)}};
  TestMachine alone({});
  const Logits expected = alone.run(alone.plan(on_devices(1, 2), 2), turns);
  for (const std::uint32_t devices : {2U, 4U}) {
    TestMachine machine({.num_devices = devices});
    const std::int64_t bytes = 400 * machine.header().model.hidden_size * 4;
    EXPECT_FALSE(is_one_shot(devices, bytes));
    expect_near(machine.run(machine.plan(on_devices(devices, 2), 2), turns), expected);
  }
}

TEST(Executor, LetsRequestsWithoutNewTokensRest) {
  TestMachine machine({.num_devices = 2});
  const ValidPlan plan = machine.plan(on_devices(2, 3), 3);
  const Logits all = machine.run(plan, {{1, some_tokens(5, 1)}, {2, {}}, {3, some_tokens(6, 3)}});
  EXPECT_TRUE(all[1].empty());
  EXPECT_EQ(all[0].size(), 300U);
  const Logits nobody = machine.run(plan, {{1, {}}, {2, {}}, {3, {}}});
  EXPECT_EQ(nobody, Logits(3));
  const Logits later = machine.run(plan, {{1, {4}}, {2, some_tokens(7, 2)}, {3, {}}});

  TestMachine alone({});
  const ValidPlan one = alone.plan(on_devices(1, 1), 1);
  expect_near({later[0]}, alone.run(one, {{1, joined(some_tokens(5, 1), {4})}}));
  expect_near({later[1]}, alone.run(one, {{2, some_tokens(7, 2)}}));
}

TEST(Executor, LetsSequencesJoinAndLeave) {
  TestMachine machine({.num_devices = 2});
  const ValidPlan two = machine.plan(on_devices(2, 2), 2);
  const ValidPlan three = machine.plan(on_devices(2, 3), 3);
  machine.run(two, {{1, some_tokens(20, 1)}, {2, some_tokens(30, 2)}});
  machine.run(three, {{2, {5}}, {3, some_tokens(10, 3)}, {1, {6}}});
  machine.release(1);
  const Logits last = machine.run(two, {{3, {7}}, {2, {8}}});

  TestMachine alone({});
  const ValidPlan one = alone.plan(on_devices(1, 1), 1);
  expect_near({last[0]}, alone.run(one, {{3, joined(some_tokens(10, 3), {7})}}));
  expect_near({last[1]}, alone.run(one, {{2, joined(some_tokens(30, 2), {5, 8})}}));
}

TEST(Executor, ForgetsAReleasedSequence) {
  TestMachine machine({.num_devices = 2});
  const ValidPlan plan = machine.plan(on_devices(2, 2), 2);
  machine.run(plan, {{1, some_tokens(20, 1)}, {2, some_tokens(200, 2)}});
  std::vector<std::int64_t> held;
  for (const Executor::Held& device : machine.executor().held()) held.push_back(device.kv_cache);
  // Two layers, K and V, 2 of the 4 KV heads of 8: one block of positions and two.
  const std::int64_t block = 2 * 2 * 2 * 8 * 128 * 4;
  EXPECT_EQ(held, std::vector<std::int64_t>({3 * block, 3 * block}));
  machine.release(2);
  for (const Executor::Held& device : machine.executor().held()) EXPECT_EQ(device.kv_cache, block);
  machine.release(1);
  for (const Executor::Held& device : machine.executor().held()) EXPECT_EQ(device.kv_cache, 0);
  // Its id begins anew.
  const Logits again = machine.run(plan, {{1, some_tokens(3, 3)}, {2, {}}});
  TestMachine alone({});
  expect_near({again[0]}, alone.run(alone.plan(on_devices(1, 1), 1), {{1, some_tokens(3, 3)}}));
}

TEST(Executor, DevicesGoFromStepToStepWithoutWaitingForAll) {
  TestMachine machine({.num_devices = 2});
  const ValidPlan plan = machine.plan(on_devices(2, 1), 1);
  const auto input = [](std::uint64_t sequence, const Tokens& tokens, std::int64_t past) {
    const std::int64_t length = std::ssize(tokens);
    return StepInput{.lengths = {{.q_len = length, .kv_len = past + length}},
                     .sequences = {SequenceId{sequence}},
                     .tokens = {tokens},
                     .rope_lengths = {64}};
  };
  Executor& executor = machine.executor();
  const std::array<Tokens, 3> prompts = {some_tokens(9, 1), some_tokens(5, 2), some_tokens(7, 3)};
  for (std::uint64_t s = 0; s < 3; ++s)
    ASSERT_TRUE(executor.begin(plan, input(s, prompts[s], 0), static_cast<std::int32_t>(s), false));
  TestMachine alone({});
  const ValidPlan one = alone.plan(on_devices(1, 1), 1);
  const std::array<Tokens, 3> next = {Tokens{4}, Tokens{5}, Tokens{6}};
  // The next step of a sequence begins while those of the others are under way.
  for (std::uint64_t s = 0; s < 3; ++s) {
    const auto output = executor.end(nullptr);
    ASSERT_TRUE(output);
    expect_near(output->logits, alone.run(one, {{s, prompts[s]}}));
    if (s == 1) executor.release(SequenceId{1});
    if (s == 1) continue;
    ASSERT_TRUE(executor.begin(plan, input(s, next[s], std::ssize(prompts[s])),
                               static_cast<std::int32_t>(3 + s), false));
  }
  expect_near(executor.end(nullptr)->logits, alone.run(one, {{0, next[0]}}));
  executor.abandon();
  for (const Executor::Held& device : executor.held()) {
    // Two sequences of a block: two layers, K and V, 2 of the 4 KV heads of 8.
    EXPECT_EQ(device.kv_cache, 2 * 2 * 2 * 2 * 8 * 128 * 4);
  }
}

TEST(Executor, EndsWhatHasBegunBeforeItGoes) {
  auto machine = std::make_unique<TestMachine>(TestMachine::Options{.num_devices = 2});
  const ValidPlan plan = machine->plan(on_devices(2, 1), 1);
  const Tokens prompt = some_tokens(9, 1);
  // The second device waits for the first in either.
  for (std::uint64_t s = 0; s < 2; ++s) {
    ASSERT_TRUE(machine->executor().begin(plan,
                                          {.lengths = {{.q_len = 9, .kv_len = 9}},
                                           .sequences = {SequenceId{s}},
                                           .tokens = {prompt},
                                           .rope_lengths = {64}},
                                          static_cast<std::int32_t>(s), false));
  }
  machine.reset();
}

// The calling thread is one of them.
TEST(Executor, HasAsManyThreadsAsItsDevicesHaveCores) {
  const auto threads = [] {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return std::distance(begin(tasks), end(tasks));
  };
  const auto before = threads();
  const TestMachine one({});
  EXPECT_EQ(threads(), before);
  const TestMachine three({.num_devices = 3});
  EXPECT_EQ(threads(), before + 2);
  const TestMachine two_of_two({.num_devices = 2, .cores = {0, 1}});
  EXPECT_EQ(threads(), before + 2 + 3);
}

TEST(Executor, GivesAllRanksTheSameBits) {
  Logits of_rank_0;
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    StepLayouts layouts = on_devices(4, 3);
    const std::vector<DeviceId> reader = {DeviceId{rank}};
    // Computes all logits from its own copy of the residual.
    layouts.microbatches[0].logits = layouts.microbatches[0].logits_out = replicated(reader);
    TestMachine machine({.num_devices = 4});
    const Logits logits = generate(machine, machine.plan(layouts, 3));
    if (rank == 0) of_rank_0 = logits;
    EXPECT_EQ(logits, of_rank_0) << "rank " << rank;
  }
}

TEST(Executor, RunsMoreDevicesThanThereAreCores) {
  TestMachine machine({.num_devices = 8});
  TestMachine alone({});
  expect_near(generate(machine, machine.plan(on_devices(8, 3), 3)),
              generate(alone, alone.plan(on_devices(1, 3), 3)));
}

TEST(Executor, SpreadsADeviceOverItsCores) {
  TestMachine machine({.cores = {0, 0}});
  TestMachine alone({});
  expect_near(generate(machine, machine.plan(on_devices(1, 3), 3)),
              generate(alone, alone.plan(on_devices(1, 3), 3)));
}

TEST(Executor, KnowsAPlanByItsContentNotByItsPlace) {
  TestMachine machine({.num_devices = 4});
  TestMachine alone({});
  const ValidPlan one = alone.plan(on_devices(1, 1), 1);
  // Plans that come and go where others were.
  for (const std::uint32_t devices : {4U, 1U, 3U, 2U, 4U}) {
    const Tokens tokens = some_tokens(4, devices);
    expect_near(machine.run(machine.plan(on_devices(devices, 1), 1), {{devices, tokens}}),
                alone.run(one, {{devices, tokens}}));
    machine.release(devices);
    alone.release(devices);
  }
}

TEST(Executor, LoadsWeightsWhenAPlanIsPrepared) {
  TestMachine machine({.num_devices = 2});
  const ValidPlan plan = machine.plan(on_devices(2, 1), 1);
  EXPECT_EQ(machine.executor().held()[0].weights, 0);
  ASSERT_TRUE(machine.executor().prepare(plan));
  const std::int64_t loaded = machine.executor().held()[0].weights;
  EXPECT_GT(loaded, 0);
  machine.run(plan, {{1, {1}}});
  EXPECT_EQ(machine.executor().held()[0].weights, loaded);
}

TEST(Executor, StopsAllocatingOnceShapesRepeat) {
  TestMachine machine({.num_devices = 2});
  const ValidPlan plan = machine.plan(on_devices(2, 2), 2);
  machine.run(plan, {{1, some_tokens(20, 1)}, {2, some_tokens(30, 2)}});
  machine.run(plan, {{1, {1}}, {2, {2}}});
  const std::int64_t held = machine.executor().held()[1].buffers;
  for (int i = 0; i < 5; ++i) machine.run(plan, {{1, {1}}, {2, {2}}});
  EXPECT_EQ(machine.executor().held()[1].buffers, held);
}

TEST(Executor, RecordsNothingUnlessAsked) {
  TestMachine machine({});
  const ValidPlan plan = machine.plan(on_devices(1, 1), 1);
  ExecutorOptions options = {.devices = {{.name = "0", .cores = {}}}, .record_tasks = false};
  auto quiet = Executor::make(random_model().checkpoint(), random_model().spec(), options).value();
  const Tokens tokens = {1, 2};
  std::vector<TaskRecord> tasks;
  const auto output = quiet->run(plan,
                                 {.lengths = {{.q_len = 2, .kv_len = 2}},
                                  .sequences = {SequenceId{1}},
                                  .tokens = {tokens},
                                  .rope_lengths = {2}},
                                 0, &tasks);
  ASSERT_TRUE(output);
  EXPECT_TRUE(tasks.empty());
}

TEST(Executor, RefusesToRunOnNothing) {
  const auto none = Executor::make(random_model().checkpoint(), random_model().spec(), {});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().message, "devices: found none, allowed at least 1");
}

// Leaves this process no more memory than it has mapped already, and a little.
void limit_memory() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const auto bytes = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + (4 << 20));
  const rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
  setrlimit(RLIMIT_AS, &limit);
}

// Sanitizers map terabytes of shadow memory, which no limit of address space survives.
bool address_space_can_be_limited() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE) < std::int64_t{1} << 40;
}

// Three devices wait for one another when memory runs out on some of them.
[[noreturn]] void run_out_of_memory() {
  TestMachine machine({.num_devices = 3});
  // A row of 256 bytes per token is more than malloc may still have in reserve.
  constexpr std::int64_t kLong = 1 << 19;
  PlanHeader header = machine.header();
  header.limits = {{.q_len = kLong, .kv_len = kLong}};
  const ValidPlan plan = validate(lower(header, on_devices(3, 1))).value();
  if (!machine.executor().prepare(plan)) std::exit(1);
  const Tokens tokens = some_tokens(kLong, 1);
  const StepInput input = {.lengths = header.limits,
                           .sequences = {SequenceId{1}},
                           .tokens = {tokens},
                           .rope_lengths = {kLong}};
  limit_memory();
  const auto first = machine.executor().run(plan, input, 0, nullptr);
  const auto second = machine.executor().run(plan, input, 1, nullptr);
  if (first || second || !first.error().message.ends_with(": out of memory")) std::exit(2);
  std::exit(second.error().message == first.error().message ? 0 : 3);
}

TEST(ExecutorDeathTest, SaysThatMemoryRanOutAndRefusesToGoOn) {
  if (!address_space_can_be_limited()) GTEST_SKIP() << "needs a run without sanitizers";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(run_out_of_memory(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace weir
