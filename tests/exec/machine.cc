#include "tests/exec/machine.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "base/tolerance.h"
#include "checkpoint/random_model.h"
#include "result/paths.h"
#include "result/timeline_check.h"
#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

constexpr std::int64_t kMostTokens = 256;

ModelSpec small_spec() {
  ModelSpec spec;
  spec.architecture = Architecture::qwen2;
  spec.num_layers = 2;
  spec.hidden_size = 64;
  spec.intermediate_size = 96;
  spec.vocab_size = 300;
  spec.num_q_heads = 8;
  spec.num_kv_heads = 4;
  spec.head_dim = 8;
  spec.max_position = kMostTokens;
  spec.rope.rotary_dim = 8;
  spec.qkv_bias = true;
  return spec;
}

ModelSpec written_to(const TestFolder& folder) {
  const Status written = write_random_model(folder.path(), small_spec());
  EXPECT_TRUE(written) << written.error().message;
  return load_model_spec(folder.path()).value();
}

void append(Logits& all, Logits more) {
  for (auto& rows : more) all.push_back(std::move(rows));
}

}  // namespace

RandomModel::RandomModel()
    : spec_(written_to(folder_)), checkpoint_(Checkpoint::open(folder_.path(), spec_).value()) {}

const RandomModel& random_model() {
  static const RandomModel model;
  return model;
}

Tokens some_tokens(std::int64_t count, std::int64_t seed) {
  Tokens tokens;
  for (std::int64_t i = 0; i < count; ++i) {
    tokens.push_back((seed * 31 + i * (7 + 2 * seed) + i * i) % small_spec().vocab_size);
  }
  return tokens;
}

TestMachine::TestMachine(const Options& options) {
  header_.model = random_model().spec();
  header_.kv_dtype = options.kv_dtype;
  header_.logits = options.logits;
  ExecutorOptions executor;
  for (std::int64_t i = 0; i < options.num_devices; ++i) {
    const std::string name = std::to_string(i);
    header_.devices.push_back({.name = name, .memory_bytes = {}});
    executor.devices.push_back({.name = name, .cores = options.cores});
  }
  executor_ =
      Executor::make(random_model().checkpoint(), random_model().spec(), std::move(executor))
          .value();
}

ValidPlan TestMachine::plan(const StepLayouts& layouts, std::int64_t batch_size) const {
  PlanHeader header = header_;
  header.limits.assign(static_cast<std::size_t>(batch_size),
                       {.q_len = kMostTokens, .kv_len = kMostTokens});
  auto plan = validate(lower(header, layouts));
  if (!plan) {
    for (const std::string& problem : plan.error()) ADD_FAILURE() << problem;
  }
  return std::move(plan).value();
}

Logits TestMachine::run(const ValidPlan& plan, const std::vector<Turn>& turns) {
  StepInput input;
  for (const Turn& turn : turns) {
    std::int64_t& held = held_[turn.sequence];
    const auto q_len = static_cast<std::int64_t>(turn.tokens.size());
    held += q_len;
    input.lengths.push_back({.q_len = q_len, .kv_len = held});
    input.sequences.push_back(SequenceId{turn.sequence});
    input.tokens.emplace_back(turn.tokens);
    input.rope_lengths.push_back(kMostTokens);
  }
  std::vector<TaskRecord> tasks;
  auto output = executor_->run(plan, input, 0, &tasks);
  if (!output) {
    ADD_FAILURE() << output.error().message;
    return {};
  }
  check_record(plan, input.lengths, std::move(tasks));
  return std::move(output->logits);
}

void TestMachine::check_record(const ValidPlan& plan, const StepLengths& lengths,
                               std::vector<TaskRecord> tasks) const {
  Timeline timeline;
  for (const PlanDevice& device : plan->devices) timeline.devices.push_back(device.name);
  timeline.start = tasks.front().start;
  for (const TaskRecord& task : tasks) {
    timeline.start = std::min(timeline.start, task.start);
    timeline.end = std::max(timeline.end, task.end);
  }
  timeline.steps = {{.start = timeline.start, .end = timeline.end}};
  timeline.tasks = std::move(tasks);
  for (const std::string& problem : problems_of(timeline)) ADD_FAILURE() << problem;
  for (const std::string& problem : problems_of(timeline, 0, plan.plan(), lengths))
    ADD_FAILURE() << problem;
  const auto paths = summarize_paths(timeline, 0, plan.plan(), lengths);
  ASSERT_TRUE(paths) << paths.error().message;
  EXPECT_LE(paths->data_path, paths->critical_path);
  EXPECT_LE(paths->critical_path, paths->makespan);
}

void TestMachine::release(std::uint64_t sequence) {
  executor_->release(SequenceId{sequence});
  held_.erase(sequence);
}

std::vector<DeviceId> device_range(std::uint32_t begin, std::uint32_t end) {
  std::vector<DeviceId> devices;
  for (std::uint32_t i = begin; i < end; ++i) devices.push_back(DeviceId{i});
  return devices;
}

StepLayouts tensor_parallel(const std::vector<DeviceId>& group, std::int64_t batch_size) {
  const ModelSpec& model = random_model().spec();
  const Interval requests = {.begin = 0, .end = batch_size};
  return {.microbatches = {{.requests = requests,
                            .distinct = {tensor_parallel_layer(model, group, requests)},
                            .of_layer = {0, 0},
                            .embedding = vocabulary_parallel_embedding(model, group, requests),
                            .logits = vocabulary_parallel_logits(model, group, requests),
                            .logits_out = replicated(std::span(group).first(1))}},
          .order = in_microbatch_order(1, model.num_layers)};
}

Logits generate(TestMachine& machine, const ValidPlan& plan) {
  Logits all;
  append(all,
         machine.run(plan,
                     {{1, some_tokens(37, 1)}, {2, some_tokens(1, 2)}, {3, some_tokens(150, 3)}}));
  append(all, machine.run(plan, {{1, some_tokens(20, 4)}, {2, some_tokens(5, 5)}, {3, {}}}));
  append(all, machine.run(plan, {{1, {7}}, {2, {8}}, {3, {9}}}));
  append(all, machine.run(plan, {{1, {11}}, {2, {12}}, {3, {13}}}));
  return all;
}

void expect_near(const Logits& found, const Logits& expected, DType coarsest) {
  const double tolerance =
      logits_tolerance({.coarsest = coarsest, .longest_reduction = kMostTokens, .num_layers = 2});
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t request = 0; request < expected.size(); ++request) {
    ASSERT_EQ(found[request].size(), expected[request].size()) << "request " << request;
    if (expected[request].empty()) continue;
    const auto [least, most] = std::ranges::minmax(expected[request]);
    double worst = 0;
    for (std::size_t i = 0; i < expected[request].size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(found[request][i]) -
                                       static_cast<double>(expected[request][i])));
    }
    EXPECT_LE(worst, tolerance * static_cast<double>(most - least)) << "request " << request;
  }
}

}  // namespace weir
