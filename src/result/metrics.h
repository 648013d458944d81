#pragma once
// What a timeline says about a run: latency and throughput for its users, and where the time of its
// devices went. Written once for simulated and measured runs.
//
// Times are integer nanoseconds wherever they are parts of a whole, so that the parts add up to it
// exactly. What is undefined (a rate over no time, a latency of no token) is nullopt.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/units.h"
#include "plan/plan.h"
#include "result/timeline.h"

namespace weir {

// What a device does at one instant of the run. Where several apply, because the two queues work at
// the same time, the one named first counts: communication behind compute costs nothing, so only
// what is exposed is counted.
enum class TimeClass : std::uint8_t {
  attention,            // Compute, by the class of the op.
  linear,               //
  elementwise,          //
  exposed_comm,         // A communication is under way, all its members there.
  synchronisation,      // A communication waits for another member to arrive.
  idle,                 // Inside a step, nothing to do until inputs come (or nothing left to do).
  resource_management,  // Between steps: planning, sampling, bookkeeping.
};
inline constexpr std::array kTimeClasses = {TimeClass::attention,          TimeClass::linear,
                                            TimeClass::elementwise,        TimeClass::exposed_comm,
                                            TimeClass::synchronisation,    TimeClass::idle,
                                            TimeClass::resource_management};
[[nodiscard]] std::string_view to_string(TimeClass time_class);

// A device's run, every instant in exactly one class.
struct Breakdown {
  std::array<SimTime, kTimeClasses.size()> times{};

  [[nodiscard]] SimTime& operator[](TimeClass c) { return times[static_cast<std::size_t>(c)]; }
  [[nodiscard]] SimTime operator[](TimeClass c) const { return times[static_cast<std::size_t>(c)]; }
  [[nodiscard]] SimTime total() const;
  [[nodiscard]] SimTime compute() const;  // Attention, linear and elementwise.

  bool operator==(const Breakdown&) const = default;
};

// Work done by tasks, overlapped or not. `time` excludes waiting for other members.
struct WorkDone {
  std::int64_t tasks = 0;
  SimTime time;
  double flops = 0;  // Exact up to 2^53; a day of an H200 exceeds 64-bit integers.
  double bytes = 0;  // As TaskRecord::bytes: memory traffic of compute, received by communication.

  [[nodiscard]] std::optional<FlopsPerSecond> flops_per_second() const;
  [[nodiscard]] std::optional<BytesPerSecond> bytes_per_second() const;
  WorkDone& operator+=(const WorkDone& other);

  bool operator==(const WorkDone&) const = default;
};

inline constexpr std::array kOpClasses = {OpClass::attention, OpClass::linear, OpClass::elementwise,
                                          OpClass::communication};

struct WorkByClass {
  std::array<WorkDone, kOpClasses.size()> work{};

  [[nodiscard]] WorkDone& operator[](OpClass c) { return work[static_cast<std::size_t>(c)]; }
  [[nodiscard]] const WorkDone& operator[](OpClass c) const {
    return work[static_cast<std::size_t>(c)];
  }

  bool operator==(const WorkByClass&) const = default;
};

struct DeviceMetrics {
  std::string name;
  Breakdown breakdown;         // Adds up to Metrics::total_time.
  WorkByClass work;            // Whether overlapped or not.
  SimTime waiting_for_others;  // All waits of its communications, hidden behind compute or not.
  std::optional<double> utilisation;  // Time with compute / total time.

  bool operator==(const DeviceMetrics&) const = default;
};

// Percentiles are values that occurred (nearest rank).
struct Distribution {
  std::int64_t count = 0;
  Seconds mean;
  Seconds p50;
  Seconds p99;
  Seconds max;

  bool operator==(const Distribution&) const = default;
};

struct Metrics {
  SimTime total_time;  // Of the run.
  std::int64_t num_devices = 0;
  std::int64_t num_requests = 0;
  std::int64_t input_tokens = 0;  // Of all requests.
  std::int64_t output_tokens = 0;

  // Over requests: arrival to first token.
  std::optional<Distribution> ttft;
  // Generation time / output tokens, a request's generation time lasting from its arrival to its
  // last token. The prompt's time is in it. With one request that arrives when the run starts, this
  // is run time / output tokens.
  std::optional<Seconds> tpot;
  // The definition that serving benchmarks call TPOT or ITL: from one token to the next of the same
  // request, so without the first. Over all such pairs.
  std::optional<Distribution> itl;
  std::optional<double> tps;         // (input + output tokens) / total time, in seconds.
  std::optional<double> output_tps;  // Output tokens / total time.

  std::optional<Distribution> prefill_steps;
  std::optional<Distribution> decode_steps;

  // Only where the timeline has tasks, or set_devices has given them:
  std::vector<DeviceMetrics> devices;       // By DeviceId.
  std::optional<Breakdown> breakdown;       // Mean over devices, rounded so that it still adds up.
  std::optional<double> utilisation;        // Mean over devices.
  WorkByClass work;                         // Over all devices.
  std::map<OpKind, WorkDone> work_by_kind;  // Kinds that occurred; only from tasks.

  bool operator==(const Metrics&) const = default;
};

// The timeline must be sound (problems_of in result/timeline_check.h). What lies outside the run is
// not counted in a breakdown.
[[nodiscard]] Metrics compute_metrics(const Timeline& timeline);

// What follows from the devices: breakdown, utilisation and work. For runs whose devices are known
// otherwise than from tasks; each breakdown must add up to the run.
void set_devices(Metrics& metrics, std::vector<DeviceMetrics> devices);

// Times end in _ns where they are parts of a whole, in _s elsewhere; what is undefined is null.
[[nodiscard]] nlohmann::json metrics_to_json(const Metrics& metrics);

}  // namespace weir
