#pragma once
// Redistributions on one device: copies within it, and the exchange with other devices that a
// communication node stands for.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "exec/device_state.h"
#include "plan/transfers.h"

namespace weir {

// The transfers inside the device, for nodes whose outputs are allocated (slice).
void copy_local(const StepView& step, DeviceState& device, const Node& node,
                std::span<const Transfer> transfers);

// Those with which the device reduces partial sums in this node; empty where the node is something
// else. Follows from the plan alone.
[[nodiscard]] std::vector<DeviceId> all_reduce_members(const Plan& plan, NodeId node,
                                                       DeviceId device);

// One communication node on one device, as a state machine that never blocks: begin() once, then
// progress() until it says that it is over. Partial sums are folded in the order of their terms, so
// every device gets the same bits.
class CommTask {
 public:
  // `members`: see all_reduce_members(); must outlive the task.
  CommTask(const StepView& step, DeviceState& device, NodeId node,
           std::span<const DeviceId> members, std::uint64_t tag);

  // Allocates the outputs and offers what this device has to give. `facts` are the task's and must
  // outlive it. Throws std::bad_alloc when memory runs out.
  void begin(TaskFacts& facts);
  // Goes as far as it can; true if anything happened.
  bool progress();
  [[nodiscard]] bool over() const { return phase_ == Phase::over; }
  // The devices that this one exchanges data with, itself not among them. After begin().
  [[nodiscard]] const std::vector<DeviceId>& partners() const { return memory_.partners; }
  [[nodiscard]] std::int64_t received_bytes() const { return received_bytes_; }

 private:
  enum class Phase { reading, draining, over };

  // All-reduce of one box: parts are reduced each by one member, then handed round.
  struct AllReduce {
    std::span<const DeviceId> members;
    std::size_t rank = 0;
    std::int64_t elements = 0;
    const float* input = nullptr;  // This device's terms.
    bool one_shot = false;         // Everybody sends everything: fewer rounds, for small messages.
    bool handing_round = false;
  };

  void begin_transfers();
  void offer_transfers();
  void await_transfers();
  void begin_all_reduce();
  void begin_hand_round();
  void consume();
  void consume_transfers();
  void consume_all_reduce();
  [[nodiscard]] bool is_all_reduce() const { return !all_reduce_.members.empty(); }
  void note_partners();
  void start_exchange();

  const StepView& step_;
  const Plan& plan_;
  DeviceState& device_;
  const Node& node_;
  std::uint64_t tag_;
  Phase phase_ = Phase::reading;
  std::int64_t received_bytes_ = 0;
  AllReduce all_reduce_;                 // Without members it is none.
  std::span<const Transfer> transfers_;  // To or from this device.
  CommMemory& memory_;                   // The device's, and this task's while it lasts.
};

}  // namespace weir
