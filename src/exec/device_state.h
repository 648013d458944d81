#pragma once
// What one device has while it walks its queues: its values of the step, and what outlives the
// step. Everything here is touched by the device's own worker only; other devices see memory only
// through the communicator.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "exec/bound_layout.h"
#include "exec/buffer_pool.h"
#include "exec/device_weights.h"
#include "exec/executor.h"
#include "exec/kv_store.h"
#include "exec/task_memory.h"
#include "kernel/team.h"
#include "plan/transfers.h"
#include "plan/validate.h"
#include "plan/work.h"

namespace weir {

// The weights of one compute task: for each output, for each of the device's buffers of it.
struct BufferWeights {
  const kernel::PackedWeights* matrix = nullptr;
  std::span<const float> vector;  // A bias beside a matrix, otherwise a norm's weight.
  kernel::EmbeddingTable table;
};
using TaskWeights = std::vector<std::vector<BufferWeights>>;

// What follows for a task from the plan and the numbers of new tokens: kept while these stay the
// same, as from one decode step to the next.
struct TaskFacts {
  bool by_tokens = false;  // Nothing that the task reads or writes counts past positions.
  std::optional<Work> work;
  std::optional<std::vector<Transfer>> transfers;  // To or from the device.
};

struct TaskFactsOfDevice {
  std::vector<TaskFacts> compute;  // By place in the compute queue,
  std::vector<TaskFacts> comm;     // and in the communication queue.
};

// What follows from a plan alone, for one device.
struct PreparedDevice {
  std::vector<TaskWeights> weights;                       // By place in the compute queue.
  std::vector<std::vector<DeviceId>> all_reduce_members;  // By place in the communication queue.
  std::vector<std::uint16_t> readers;  // Of each value, tasks of this device that read it.
  std::vector<bool> made_here;         // Of each value: by a task of this device, too.
};

// A step as all its devices see it.
struct StepView {
  const ValidPlan& plan;
  const StepInput& input;
  std::span<const BoundLayout> layouts;          // One per distinct (layout, tensor shape).
  std::span<const std::uint32_t> layout_of;      // By value.
  std::span<const ValueId> logits;               // Those that no node reads.
  std::span<const RopeFrequencies> frequencies;  // By request.
  std::span<TaskFactsOfDevice> facts;            // By device, whose worker fills them in.

  [[nodiscard]] const BoundLayout& bound(ValueId value) const {
    return layouts[layout_of[index_of(value)]];
  }
};

// One device's part of a value: memory for each of its buffers, in the order of
// BoundLayout::by_device.
struct LocalValue {
  std::vector<PooledBuffer> parts;
  std::vector<PooledBuffer> lse;  // Softmax partials only: [rows, heads].
  bool ready = false;             // Or no task of this device makes it.
  std::uint16_t readers_left = 0;
};

struct DeviceState {
  DeviceId id{};
  Team* team = nullptr;
  Communicator* communicator = nullptr;
  BufferPool pool;  // Before the values, which give their memory back to it.
  KvStore kv;
  std::vector<LocalValue> values;  // Of the current step.
  ComputeMemory compute_memory;
  CommMemory comm_memory;

  // Takes memory for the device's buffers of a value.
  void allocate(const StepView& step, ValueId value) {
    const BoundLayout& bound = step.bound(value);
    LocalValue& local = values[index_of(value)];
    for (const std::uint32_t buffer : bound.by_device[index_of(id)]) {
      const BoundBuffer& shape = bound.buffers[buffer];
      local.parts.push_back(pool.take(shape.elements));
      if (bound.kind == LayoutKind::softmax)
        local.lse.push_back(pool.take(shape.rows * shape.head.size()));
    }
  }

  // One reader is done; the last one gives the memory back.
  void release(ValueId value) {
    LocalValue& local = values[index_of(value)];
    if (--local.readers_left > 0) return;
    local.parts.clear();
    local.lse.clear();
  }
};

}  // namespace weir
