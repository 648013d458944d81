#pragma once
// One device: its cores, what it holds, and the thread that walks its queues. The thread does jobs
// one at a time, in the order in which they were posted; what one leaves behind belongs to whoever
// posted it once it is done. That thread is the worker's own, or the poster's, which does jobs when
// it waits for them.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "exec/device_state.h"
#include "exec/device_weights.h"
#include "exec/executor.h"
#include "exec/prepared_plan.h"
#include "kernel/team.h"
#include "result/timeline.h"

namespace weir {

// A task as its device saw it. When partners came is known when all devices are done.
struct Record {
  TaskRecord task;
  std::vector<DeviceId> partners;  // Of a communication.
};

// What a job leaves behind.
struct JobResult {
  std::string failure;          // Empty while all goes well, and where another device has failed.
  bool interrupted = false;     // A step ended early because some device has failed.
  std::vector<Record> records;  // Of a step that was to be recorded.
  std::vector<float> logits;    // See own_logits; only of steps without an output.
};

// What a worker is to do next. All that is pointed to stays there until the job is done.
struct Job {
  enum class Kind { prepare, step, release, stop } kind = Kind::stop;
  const ValidPlan* plan = nullptr;
  PreparedPlan* prepared = nullptr;
  const StepView* step = nullptr;
  StepOutput* output = nullptr;  // Where the device puts its logits; has room for them.
  JobResult* result = nullptr;   // Not of `release` and `stop`.
  SequenceId sequence{};         // Of `release`.
  std::int32_t step_index = 0;
  bool record = false;
};

class Worker {
 public:
  enum class Thread { own, posters };
  // Throws std::system_error where no thread can be started.
  Worker(DeviceId id, const ExecDevice& device, Thread thread,
         std::unique_ptr<Communicator> communicator, DeviceWeights weights);
  // Jobs that are not done are done first.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Jobs are posted and waited for by one thread at a time. Returns the job's number. Waits where
  // there are kMostJobs that are not done.
  static constexpr std::uint32_t kMostJobs = 16;
  std::uint32_t post(const Job& job);
  void wait_done(std::uint32_t number);
  void wait_all_done() { wait_done(posted_.load(std::memory_order_relaxed)); }
  // Where the poster's thread has to do them, does all jobs; otherwise does not wait.
  void do_own_jobs() {
    if (!thread_.joinable()) wait_all_done();
  }

  // Only while no job runs.
  [[nodiscard]] Executor::Held held() const;

 private:
  void main();
  void do_next();
  void run(const Job& job);
  void fail(JobResult& result, std::string text);
  void prepare(const Job& job);
  void walk(const Job& job);
  void begin_step(const Plan& plan, const PreparedDevice& prepared);
  [[nodiscard]] bool is_ready(const Node& node) const;
  void complete(const Plan& plan, NodeId id);
  [[nodiscard]] TaskRecord open_record(const Plan& plan, NodeId id, std::int32_t step) const;
  static void close_record(TaskRecord& record, JobResult& result,
                           std::vector<DeviceId> partners = {});

  // Job n is at n % kMostJobs: the poster's until `posted_` is n + 1, the worker's until `done_`
  // is. The two counters are a cache line apart.
  static constexpr std::size_t kCacheLine = 64;
  alignas(kCacheLine) std::atomic<std::uint32_t> posted_{0};
  std::unique_ptr<Communicator> communicator_;
  Team team_;
  std::thread thread_;  // Where it is the worker's own: starts and ends while all else is there.
  DeviceWeights weights_;
  DeviceState state_;
  alignas(kCacheLine) std::atomic<std::uint32_t> done_{0};
  std::array<Job, kMostJobs> jobs_;
};

}  // namespace weir
