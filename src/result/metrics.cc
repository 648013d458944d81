#include "result/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "base/check.h"

namespace weir {
namespace {

struct Span {
  SimTime start;
  SimTime end;
};

// A moment at which a device begins (+1) or ceases (-1) to do something of a class.
struct Edge {
  SimTime time;
  TimeClass time_class;
  int change;
};

void add_span(std::vector<Edge>& edges, TimeClass time_class, Span span, Span run) {
  span = {std::clamp(span.start, run.start, run.end), std::clamp(span.end, run.start, run.end)};
  if (span.start >= span.end) return;
  edges.push_back({span.start, time_class, +1});
  edges.push_back({span.end, time_class, -1});
}

TimeClass time_class_of(OpClass op_class) {
  switch (op_class) {
    case OpClass::attention:
      return TimeClass::attention;
    case OpClass::linear:
      return TimeClass::linear;
    case OpClass::elementwise:
      return TimeClass::elementwise;
    case OpClass::communication:
      return TimeClass::exposed_comm;
  }
  CHECK(false, "unknown op class");
}

// Sweeps over the edges: each stretch between two of them goes to the first class that has
// something under way, and to resource management where none has.
Breakdown sweep(std::vector<Edge> edges, Span run) {
  std::ranges::sort(edges, {}, &Edge::time);
  std::array<std::int64_t, kTimeClasses.size()> under_way{};
  Breakdown breakdown;
  SimTime now = run.start;
  const auto advance_to = [&](SimTime time) {
    const auto first = std::ranges::find_if(
        kTimeClasses, [&](TimeClass c) { return under_way[static_cast<std::size_t>(c)] > 0; });
    breakdown[first == kTimeClasses.end() ? TimeClass::resource_management : *first] += time - now;
    now = time;
  };
  for (const Edge& edge : edges) {
    advance_to(edge.time);
    under_way[static_cast<std::size_t>(edge.time_class)] += edge.change;
  }
  advance_to(run.end);
  return breakdown;
}

// Steps as edges: the same for all devices, so found once. Overlapping steps are merged.
std::vector<Edge> step_edges(const Timeline& timeline, Span run) {
  std::vector<StepRecord> steps = timeline.steps;
  std::ranges::sort(steps, {}, &StepRecord::start);
  std::vector<Edge> edges;
  std::optional<Span> open;
  for (const StepRecord& step : steps) {
    if (open && step.start <= open->end) {
      open->end = std::max(open->end, step.end);
      continue;
    }
    if (open) add_span(edges, TimeClass::idle, *open, run);
    open = Span{step.start, step.end};
  }
  if (open) add_span(edges, TimeClass::idle, *open, run);
  return edges;
}

DeviceMetrics metrics_of(std::span<const TaskRecord* const> tasks, std::vector<Edge> edges,
                         Span run) {
  DeviceMetrics device;
  for (const TaskRecord* task : tasks) {
    const OpClass op_class = class_of(task->kind);
    add_span(edges, time_class_of(op_class), {task->ready, task->end}, run);
    add_span(edges, TimeClass::synchronisation, {task->start, task->ready}, run);
    device.work[op_class] += {.tasks = 1,
                              .time = task->end - task->ready,
                              .flops = static_cast<double>(task->flops),
                              .bytes = static_cast<double>(task->bytes)};
    device.waiting_for_others += task->ready - task->start;
  }
  device.breakdown = sweep(std::move(edges), run);
  if (run.end > run.start)
    device.utilisation = to_seconds(device.breakdown.compute()) / to_seconds(run.end - run.start);
  return device;
}

// The mean of parts that each add up to `total`, which the means do too: all are rounded down, and
// the few nanoseconds that are missing go to those that lost the most.
Breakdown mean_of(std::span<const DeviceMetrics> devices, SimTime total) {
  const auto n = static_cast<std::int64_t>(devices.size());
  Breakdown mean;
  std::array<std::int64_t, kTimeClasses.size()> lost{};
  for (std::size_t c = 0; c < mean.times.size(); ++c) {
    std::int64_t sum = 0;
    for (const DeviceMetrics& device : devices) sum += device.breakdown.times[c].ns;
    mean.times[c] = {sum / n};
    lost[c] = sum % n;
  }
  std::array<std::size_t, kTimeClasses.size()> order{};
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater{}, [&](std::size_t c) { return lost[c]; });
  for (const std::size_t c : order) {
    if (mean.total() == total) break;
    mean.times[c] += {1};
  }
  return mean;
}

Seconds seconds(SimTime time) { return {to_seconds(time)}; }

std::optional<Distribution> distribution_of(std::vector<SimTime> times) {
  if (times.empty()) return std::nullopt;
  std::ranges::sort(times);
  const auto count = static_cast<double>(times.size());
  const auto nearest_rank = [&](double share) {
    return seconds(times[static_cast<std::size_t>(std::ceil(share * count)) - 1]);
  };
  double sum_ns = 0;
  for (const SimTime time : times) sum_ns += static_cast<double>(time.ns);
  return Distribution{.count = std::ssize(times),
                      .mean = {sum_ns / count * 1e-9},
                      .p50 = nearest_rank(0.50),
                      .p99 = nearest_rank(0.99),
                      .max = seconds(times.back())};
}

void add_requests(Metrics& metrics, const Timeline& timeline) {
  std::vector<SimTime> first;
  std::vector<SimTime> between;
  double generation_ns = 0;
  for (const RequestRecord& request : timeline.requests) {
    metrics.input_tokens += request.input_tokens;
    metrics.output_tokens += std::ssize(request.token_times);
    if (request.token_times.empty()) continue;
    first.push_back(request.token_times.front() - request.arrival);
    generation_ns += static_cast<double>((request.token_times.back() - request.arrival).ns);
    for (std::size_t i = 1; i < request.token_times.size(); ++i)
      between.push_back(request.token_times[i] - request.token_times[i - 1]);
  }
  metrics.ttft = distribution_of(std::move(first));
  metrics.itl = distribution_of(std::move(between));
  if (metrics.output_tokens > 0)
    metrics.tpot = Seconds{generation_ns / static_cast<double>(metrics.output_tokens) * 1e-9};
  if (metrics.total_time > SimTime{}) {
    const double total = to_seconds(metrics.total_time);
    metrics.tps = static_cast<double>(metrics.input_tokens + metrics.output_tokens) / total;
    metrics.output_tps = static_cast<double>(metrics.output_tokens) / total;
  }
}

void add_steps(Metrics& metrics, const Timeline& timeline) {
  std::vector<SimTime> prefill;
  std::vector<SimTime> decode;
  for (const StepRecord& step : timeline.steps)
    (step.prefill ? prefill : decode).push_back(step.end - step.start);
  metrics.prefill_steps = distribution_of(std::move(prefill));
  metrics.decode_steps = distribution_of(std::move(decode));
}

void add_devices(Metrics& metrics, const Timeline& timeline) {
  if (timeline.tasks.empty() || timeline.devices.empty()) return;
  const Span run{timeline.start, timeline.end};
  std::vector<std::vector<const TaskRecord*>> tasks(timeline.devices.size());
  for (const TaskRecord& task : timeline.tasks) {
    CHECK(index_of(task.device) < tasks.size(), "a task names a device that is not there");
    tasks[index_of(task.device)].push_back(&task);
    metrics.work_by_kind[task.kind] += {.tasks = 1,
                                        .time = task.end - task.ready,
                                        .flops = static_cast<double>(task.flops),
                                        .bytes = static_cast<double>(task.bytes)};
  }
  const std::vector<Edge> steps = step_edges(timeline, run);
  std::vector<DeviceMetrics> devices;
  for (std::size_t d = 0; d < tasks.size(); ++d) {
    devices.push_back(metrics_of(tasks[d], steps, run));
    devices.back().name = timeline.devices[d];
  }
  set_devices(metrics, std::move(devices));
}

}  // namespace

std::string_view to_string(TimeClass time_class) {
  switch (time_class) {
    case TimeClass::attention:
      return "attention";
    case TimeClass::linear:
      return "linear";
    case TimeClass::elementwise:
      return "elementwise";
    case TimeClass::exposed_comm:
      return "exposed_comm";
    case TimeClass::synchronisation:
      return "synchronisation";
    case TimeClass::idle:
      return "idle";
    case TimeClass::resource_management:
      return "resource_management";
  }
  CHECK(false, "unknown time class");
}

SimTime Breakdown::total() const { return std::accumulate(times.begin(), times.end(), SimTime{}); }

SimTime Breakdown::compute() const {
  return (*this)[TimeClass::attention] + (*this)[TimeClass::linear] +
         (*this)[TimeClass::elementwise];
}

std::optional<FlopsPerSecond> WorkDone::flops_per_second() const {
  if (time <= SimTime{}) return std::nullopt;
  return FlopsPerSecond{flops / to_seconds(time)};
}

std::optional<BytesPerSecond> WorkDone::bytes_per_second() const {
  if (time <= SimTime{}) return std::nullopt;
  return BytesPerSecond{bytes / to_seconds(time)};
}

WorkDone& WorkDone::operator+=(const WorkDone& other) {
  tasks += other.tasks;
  time += other.time;
  flops += other.flops;
  bytes += other.bytes;
  return *this;
}

void set_devices(Metrics& metrics, std::vector<DeviceMetrics> devices) {
  CHECK(!devices.empty(), "somebody did something");
  metrics.devices = std::move(devices);
  metrics.work = {};
  double busy_share = 0;
  for (const DeviceMetrics& device : metrics.devices) {
    CHECK(device.breakdown.total() == metrics.total_time, "every instant is in one class");
    busy_share += device.utilisation.value_or(0);
    for (const OpClass c : kOpClasses) metrics.work[c] += device.work[c];
  }
  metrics.breakdown = mean_of(metrics.devices, metrics.total_time);
  if (metrics.total_time > SimTime{})
    metrics.utilisation = busy_share / static_cast<double>(metrics.devices.size());
}

Metrics compute_metrics(const Timeline& timeline) {
  CHECK(timeline.start <= timeline.end, "the run ends before it starts");
  Metrics metrics;
  metrics.total_time = timeline.end - timeline.start;
  metrics.num_devices = std::ssize(timeline.devices);
  metrics.num_requests = std::ssize(timeline.requests);
  add_requests(metrics, timeline);
  add_steps(metrics, timeline);
  add_devices(metrics, timeline);
  return metrics;
}

}  // namespace weir
