#pragma once
// One device: its cores, what it holds, and the thread that walks its queues. The thread does one
// job at a time; whoever posted it may look at what it left when it is done.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "comm/communicator.h"
#include "exec/device_state.h"
#include "exec/executor.h"
#include "exec/prepared_plan.h"
#include "result/timeline.h"
#include "spec/model.h"

namespace weir {

// What a worker is to do next.
struct Job {
  enum class Kind { prepare, step, stop } kind = Kind::stop;
  const ValidPlan* plan = nullptr;
  PreparedPlan* prepared = nullptr;
  const StepView* step = nullptr;
  std::int32_t step_index = 0;
  bool record = false;
};

// A task as its device saw it. When partners came is known when all devices are done.
struct Record {
  TaskRecord task;
  std::vector<DeviceId> partners;  // Of a communication.
};

class Worker {
 public:
  // Throws std::system_error where no thread can be started.
  Worker(DeviceId id, const ExecDevice& device, std::unique_ptr<Communicator> communicator,
         const Checkpoint& checkpoint, const ModelSpec& model);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void post(const Job& job);  // Only when the last job is done.
  void wait_done();

  // The following only while no job runs.
  [[nodiscard]] DeviceId id() const { return state_.id; }
  // Empty while all goes well, and where another device has failed.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  // Whether the last step ended early because some device has failed.
  [[nodiscard]] bool interrupted() const { return interrupted_; }
  [[nodiscard]] DeviceState& state() { return state_; }
  [[nodiscard]] const DeviceState& state() const { return state_; }
  [[nodiscard]] std::vector<Record>& records() { return records_; }
  [[nodiscard]] Executor::Held held() const;

 private:
  void main();
  template <class Body>
  void guarded(Body body);
  void fail(std::string text);
  void prepare(const Job& job);
  void walk(const Job& job);
  void begin_step(const Plan& plan, const PreparedDevice& prepared);
  [[nodiscard]] bool is_ready(const StepView& step, NodeId id) const;
  void complete(const Plan& plan, NodeId id);
  [[nodiscard]] TaskRecord open_record(const Plan& plan, NodeId id, std::int32_t step) const;
  void close_record(TaskRecord& record, std::vector<DeviceId> partners = {});

  std::vector<int> cores_;
  std::unique_ptr<Communicator> communicator_;
  DeviceWeights weights_;
  DeviceState state_;
  std::vector<Record> records_;
  std::string failure_;
  bool interrupted_ = false;

  static constexpr std::size_t kCacheLine = 64;
  Job job_;  // The poster's until `posted_` grows, the worker's until `done_` has caught up.
  alignas(kCacheLine) std::atomic<std::uint32_t> posted_{0};
  alignas(kCacheLine) std::atomic<std::uint32_t> done_{0};
  std::jthread thread_;  // Last: starts when everything else is there.
};

}  // namespace weir
