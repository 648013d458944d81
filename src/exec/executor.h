#pragma once
// Runs plans for real: every device is a group of CPU cores with its own weights, KV cache and
// buffers, and one worker that walks the device's queues. Devices share nothing but what the
// communicator hands over. The first device's worker is the thread that calls: so no step begins or
// ends with waking another thread, and there are no more threads than cores.
//
// All devices live in this process, or each in a rank of its own: then this executor is rank 0's,
// holds device 0, sends plans and steps to the others, and gets back logits and records. They
// follow it (exec/follower.h).

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/patience.h"
#include "base/result.h"
#include "checkpoint/checkpoint.h"
#include "comm/ranks.h"
#include "kernel/team.h"
#include "plan/validate.h"
#include "result/timeline.h"
#include "spec/model.h"

namespace weir {

// A request's name inside the executor: its KV cache is found by it from step to step.
enum class SequenceId : std::uint64_t {};

struct ExecDevice {
  std::string name;
  std::vector<int> cores;  // Operating-system CPU numbers, one worker thread each; empty: one
                           // thread, not pinned.
};

struct ExecutorOptions {
  std::vector<ExecDevice> devices;
  bool record_tasks = true;  // Fill TaskRecords; costs two clock reads per op.
  // nullptr: all devices live here. Else device i lives in rank i, and this process is rank 0; the
  // others are in follow() until the executor is gone. The ranks must outlive it.
  Ranks* ranks = nullptr;
  // So long a device of this process that waits for others keeps its core awake.
  Patience::Clock::duration awake = Patience::kUsual;
};

// One step of a batch. All vectors are as long as the plan's batch.
struct StepInput {
  StepLengths lengths;  // Within the plan's limits.
  std::vector<SequenceId> sequences;
  std::vector<std::span<const std::int64_t>>
      tokens;  // The q_len new tokens of each request, each < vocab_size.
  std::vector<std::int64_t>
      rope_lengths;  // Length that each request will reach (see rope_frequencies).
};

struct StepOutput {
  // Per request [wanted tokens, vocab_size], in order; empty when the plan wants none or the
  // request has no new tokens.
  std::vector<std::vector<float>> logits;
};

class Executor {
 public:
  // Starts the workers. The checkpoint must outlive the executor. Weights are loaded when a plan
  // first needs them.
  static Result<std::unique_ptr<Executor>> make(const Checkpoint& checkpoint,
                                                const ModelSpec& model, ExecutorOptions options);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Loads what the plan needs, so that the first step is not charged for it. Fails when memory runs
  // out.
  Status prepare(const ValidPlan& plan);

  // Runs one step on all devices of the plan and returns when all are done. Call from one thread at
  // a time. Appends one StepRecord's worth of TaskRecords (step index `step`) to `tasks` unless
  // null; times are nanoseconds of this process's steady clock. After a failure the executor only
  // accepts destruction.
  Result<StepOutput> run(const ValidPlan& plan, const StepInput& input, std::int32_t step,
                         std::vector<TaskRecord>* tasks);
  // The same into the output of an earlier step, whose memory is used again.
  Status run(const ValidPlan& plan, const StepInput& input, std::int32_t step,
             std::vector<TaskRecord>* tasks, StepOutput& output);

  // The same in two parts, so that devices that are done with a step can go on with the next one:
  // each does the steps in the order in which they were begun, and they end in it. The first device
  // does its part of all that have been begun when one is to end. The plan and the tokens must stay
  // where they are until the step has ended. At most kMostStepsUnderWay at a time; a sequence is in
  // one of them only.
  static constexpr std::size_t kMostStepsUnderWay = 8;
  Status begin(const ValidPlan& plan, const StepInput& input, std::int32_t step, bool record);
  Result<StepOutput> end(std::vector<TaskRecord>* tasks);
  Status end(std::vector<TaskRecord>* tasks, StepOutput& output);
  // Waits for the steps that have not ended, and forgets them.
  void abandon();

  // Forgets the sequence's KV cache on all devices, after the steps that have been begun.
  void release(SequenceId sequence);

  // Bytes held now, by device. While no step is under way.
  struct Held {
    std::int64_t weights = 0;
    std::int64_t kv_cache = 0;
    std::int64_t buffers = 0;
  };
  [[nodiscard]] std::vector<Held> held() const;

  // Keeps the calling thread on the first device's first core for as long as the result lives:
  // around runs of many steps.
  [[nodiscard]] PinnedThread pin_caller() const;

  // The clock of TaskRecords.
  [[nodiscard]] static SimTime now();

 private:
  struct Impl;
  explicit Executor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weir
