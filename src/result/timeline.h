#pragma once
// What happened when: the one record of a run, whether simulated or measured. Whoever reads it
// (metrics, traces, reports) cannot tell who wrote it.

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/units.h"
#include "plan/plan.h"

namespace weir {

// One node on one device: from the moment when its queue reached it and its own inputs were there,
// to its end.
struct TaskRecord {
  std::int32_t step = 0;  // Index into Timeline::steps.
  NodeId node{};
  DeviceId device{};
  OpKind kind = OpKind::embed;
  std::int32_t layer = -1;
  std::int32_t microbatch = 0;
  SimTime start;
  // When the last of the members that this one exchanges data with (partners_of, plan/transfers.h)
  // had arrived: their latest start. `start` for compute. start <= ready <= end. A member that only
  // sends ends when its data has been read, so it has waited for its readers too.
  SimTime ready;
  SimTime end;
  std::int64_t flops = 0;
  std::int64_t bytes =
      0;  // Compute: read and written in memory. Communication: received from other devices.

  bool operator==(const TaskRecord&) const = default;
};

// One pass through a plan.
struct StepRecord {
  bool prefill = false;         // A step that processes prompt tokens; otherwise a decode.
  std::int64_t new_tokens = 0;  // Tokens that requests got from this step.
  SimTime start;                // From here the devices worked,
  SimTime end;                  // until here.

  bool operator==(const StepRecord&) const = default;
};

// One request's life. A token's instant is when it was known outside the devices.
struct RequestRecord {
  std::int64_t input_tokens = 0;
  SimTime arrival;
  std::vector<SimTime> token_times;  // One per output token.

  bool operator==(const RequestRecord&) const = default;
};

struct Timeline {
  std::vector<std::string> devices;  // Names, by DeviceId.
  SimTime start;                     // Of the whole run, before the first step is planned.
  SimTime end;
  std::vector<StepRecord> steps;
  std::vector<RequestRecord> requests;
  std::vector<TaskRecord> tasks;  // In no particular order; empty when only summaries were wanted.

  bool operator==(const Timeline&) const = default;
};

}  // namespace weir
