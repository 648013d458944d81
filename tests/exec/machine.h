#pragma once
// A small random model, and an executor that runs it for tests: knows how long every sequence has
// become, and holds every recorded step against its plan.

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "exec/executor.h"
#include "plan/lower.h"
#include "plan/validate.h"
#include "spec/model.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {

// 2 layers of 8 query heads on 4 KV heads of 8, with biases: hidden 64, FFN 96, vocabulary 300.
class RandomModel {
 public:
  RandomModel();
  [[nodiscard]] const ModelSpec& spec() const { return spec_; }
  [[nodiscard]] const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  TestFolder folder_;
  ModelSpec spec_;
  Checkpoint checkpoint_;
};
// Made once, for all tests.
[[nodiscard]] const RandomModel& random_model();

using Tokens = std::vector<std::int64_t>;
// `count` tokens that depend on the seed only.
[[nodiscard]] Tokens some_tokens(std::int64_t count, std::int64_t seed);

// The new tokens of one request in a step.
struct Turn {
  std::uint64_t sequence = 0;
  Tokens tokens;
};
using Logits = std::vector<std::vector<float>>;  // By request.

class TestMachine {
 public:
  struct Options {
    std::int64_t num_devices = 1;
    DType kv_dtype = DType::f32;
    LogitsWanted logits = LogitsWanted::last;
    std::vector<int> cores = {};  // Of every device.
  };
  explicit TestMachine(const Options& options);

  // Fails the test where the layouts do not make a valid plan.
  [[nodiscard]] ValidPlan plan(const StepLayouts& layouts, std::int64_t batch_size) const;
  // One step; fails the test where its record contradicts itself or the plan.
  Logits run(const ValidPlan& plan, const std::vector<Turn>& turns);
  void release(std::uint64_t sequence);

  [[nodiscard]] Executor& executor() { return *executor_; }
  [[nodiscard]] const PlanHeader& header() const { return header_; }

 private:
  void check_record(const ValidPlan& plan, const StepLengths& lengths,
                    std::vector<TaskRecord> tasks) const;

  PlanHeader header_;
  std::unique_ptr<Executor> executor_;
  std::map<std::uint64_t, std::int64_t> held_;  // Positions in the KV cache.
};

[[nodiscard]] std::vector<DeviceId> device_range(std::uint32_t begin, std::uint32_t end);
// Plain tensor parallelism over the group, one microbatch.
[[nodiscard]] StepLayouts tensor_parallel(const std::vector<DeviceId>& group,
                                          std::int64_t batch_size);

// Prefills three prompts at once, lets two of them go on by a chunk while one rests, then decodes
// twice. `plan` is for three requests. Logits of all steps, one after the other.
[[nodiscard]] Logits generate(TestMachine& machine, const ValidPlan& plan);

// Equal up to rounding (base/tolerance.h).
void expect_near(const Logits& found, const Logits& expected, DType coarsest = DType::f32);

}  // namespace weir
