#pragma once
// The most that can be alive at once on a device whose two queues run side by side. Each queue
// keeps its order, but which task of one runs beside which task of the other is only known when the
// plan is run; so all pairs count that the device's own data edges allow. What other devices do can
// rule out some of them, never add one: no run of a valid plan exceeds what is found here.

#include <cstdint>
#include <vector>

#include "plan/plan.h"

namespace weir {

// A buffer, from the start of the task that writes it to the end of all that read it (of the writer
// itself where none does). Tasks are counted from 0 in their queue.
struct Lifetime {
  Queue queue = Queue::compute;    // Of the writer,
  std::int32_t writer = 0;         // and its place there.
  std::int32_t last_compute = -1;  // The last readers in each queue, -1 for none; not both.
  std::int32_t last_comm = -1;
  std::int64_t bytes = 0;
};

struct DeviceLifetimes {
  // One entry per task: the last task of the other queue that must have ended before it starts, -1
  // for none.
  std::vector<std::int32_t> compute_after_comm;
  std::vector<std::int32_t> comm_after_compute;
  std::vector<Lifetime> buffers;
};

// How far both queues are: 2 i before task i starts (and after task i - 1 has ended), 2 i + 1 while
// it runs.
struct QueueState {
  std::int32_t compute = 0;
  std::int32_t comm = 0;

  bool operator==(const QueueState&) const = default;
};

[[nodiscard]] bool is_alive(const Lifetime& buffer, QueueState state);
// A state that can be reached with the most bytes alive.
[[nodiscard]] QueueState fullest_state(const DeviceLifetimes& device);

}  // namespace weir
