#include "report/trace.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>
#include <tuple>
#include <vector>

#include <fmt/format.h>

#include "report/format.h"
#include "report/output_file.h"

namespace weir {
namespace {

using Sink = std::function<Status(std::string_view)>;

// Where an event is shown. Viewers take process 0 for idling, and a thread with its process's
// number for the main one; so all numbers are different.
struct Track {
  std::size_t process = 0;
  std::size_t thread = 0;
};

struct Span {
  SimTime start;
  SimTime end;
};

constexpr std::size_t kRunProcess = 1;
constexpr std::size_t kFirstDeviceProcess = 2;

// Two for each device, then those of the run.
std::size_t first_thread(const Timeline& timeline) {
  return kFirstDeviceProcess + timeline.devices.size();
}
std::size_t first_run_thread(const Timeline& timeline) {
  return first_thread(timeline) + 2 * timeline.devices.size();
}
Track track_of(const Timeline& timeline, std::size_t device, Queue queue) {
  return {kFirstDeviceProcess + device,
          first_thread(timeline) + 2 * device + (queue == Queue::compute ? 0 : 1)};
}
Track track_of(const Timeline& timeline, const TaskRecord& task) {
  return track_of(timeline, index_of(task.device), queue_of(task.kind));
}

std::string quoted(std::string_view name) {
  std::string text = "\"";
  for (const char c : printable(name)) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

// Text of JSON events, handed on in large pieces. The first failure of the sink ends the writing.
class EventWriter {
 public:
  EventWriter(const Sink& sink, SimTime origin)
      : sink_(sink), origin_(origin), buffer_("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[") {}

  void process_name(std::size_t process, std::string_view name) {
    metadata({process, 0}, "process_name", "name", quoted(name));
    metadata({process, 0}, "process_sort_index", "sort_index", std::to_string(process));
  }

  void thread_name(Track track, std::string_view name) {
    metadata(track, "thread_name", "name", quoted(name));
    metadata(track, "thread_sort_index", "sort_index", std::to_string(track.thread));
  }

  // `args` is the inside of a JSON object.
  void slice(Track track, std::string_view name, std::string_view category, Span span,
             std::string_view args) {
    event(fmt::format(R"({{"ph":"X","pid":{},"tid":{},"name":{},"cat":"{}","ts":{},"dur":{})"
                      R"(,"args":{{{}}}}})",
                      track.process, track.thread, quoted(name), category,
                      microseconds(span.start - origin_), microseconds(span.end - span.start),
                      args));
  }

  // One area for each key of `args`, on top of each other.
  void counter(std::size_t process, std::string_view name, SimTime time, std::string_view args) {
    event(fmt::format(R"({{"ph":"C","pid":{},"tid":0,"name":"{}","ts":{},"args":{{{}}}}})", process,
                      name, microseconds(time - origin_), args));
  }

  // An arrow's ends lie in the slices that it joins.
  void arrow(Track from, SimTime from_time, Track to, SimTime to_time) {
    const std::size_t id = ++arrows_;
    constexpr std::string_view kFormat =
        R"({{"ph":"{}","pid":{},"tid":{},"name":"wait","cat":"arrival","id":{},"ts":{}{}}})";
    event(fmt::format(kFormat, "s", from.process, from.thread, id,
                      microseconds(from_time - origin_), ""));
    event(fmt::format(kFormat, "f", to.process, to.thread, id, microseconds(to_time - origin_),
                      R"(,"bp":"e")"));
  }

  [[nodiscard]] Status finish() {
    buffer_ += "\n]}\n";
    flush();
    return status_;
  }

 private:
  void metadata(Track track, std::string_view name, std::string_view key, std::string_view value) {
    event(fmt::format(R"({{"ph":"M","pid":{},"tid":{},"name":"{}","args":{{"{}":{}}}}})",
                      track.process, track.thread, name, key, value));
  }

  static std::string microseconds(SimTime time) {
    const std::uint64_t ns =
        time.ns < 0 ? 0 - static_cast<std::uint64_t>(time.ns) : static_cast<std::uint64_t>(time.ns);
    return fmt::format("{}{}.{:03}", time.ns < 0 ? "-" : "", ns / 1000, ns % 1000);
  }

  void event(std::string_view text) {
    buffer_ += first_ ? "\n" : ",\n";
    buffer_ += text;
    first_ = false;
    constexpr std::size_t kPiece = std::size_t{1} << 16;
    if (buffer_.size() >= kPiece) flush();
  }

  void flush() {
    if (status_) status_ = sink_(buffer_);
    buffer_.clear();
  }

  const Sink& sink_;
  SimTime origin_;
  std::string buffer_;
  bool first_ = true;
  std::size_t arrows_ = 0;
  Status status_;
};

// Steps that overlap need tracks of their own, because slices of one track must nest. Returns the
// lane of each step: the lowest one that is free when the step starts.
std::vector<std::size_t> lanes_of(std::span<const StepRecord> steps) {
  std::vector<std::size_t> order(steps.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return steps[i].start; });
  std::vector<std::size_t> lanes(steps.size(), 0);
  std::vector<SimTime> lane_ends;
  for (const std::size_t i : order) {
    const auto lane =
        std::ranges::find_if(lane_ends, [&](SimTime end) { return end <= steps[i].start; });
    lanes[i] = static_cast<std::size_t>(lane - lane_ends.begin());
    if (lane == lane_ends.end()) {
      lane_ends.push_back(steps[i].end);
    } else {
      *lane = steps[i].end;
    }
  }
  return lanes;
}

// Returns the first thread that is still free.
std::size_t write_run(EventWriter& writer, const Timeline& timeline) {
  std::size_t thread = first_run_thread(timeline);
  writer.process_name(kRunProcess, "run");
  writer.thread_name({kRunProcess, thread}, "run");
  writer.slice(
      {kRunProcess, thread}, "run", "run", {timeline.start, timeline.end},
      fmt::format(R"("steps":{},"requests":{})", timeline.steps.size(), timeline.requests.size()));
  ++thread;
  const std::vector<std::size_t> lanes = lanes_of(timeline.steps);
  const std::size_t num_lanes = lanes.empty() ? 0 : std::ranges::max(lanes) + 1;
  for (std::size_t lane = 0; lane < num_lanes; ++lane)
    writer.thread_name({kRunProcess, thread + lane}, "steps");
  for (std::size_t i = 0; i < timeline.steps.size(); ++i) {
    const StepRecord& step = timeline.steps[i];
    writer.slice({kRunProcess, thread + lanes[i]}, step.prefill ? "prefill" : "decode", "step",
                 {step.start, step.end},
                 fmt::format(R"("step":{},"new_tokens":{})", i, step.new_tokens));
  }
  return thread + num_lanes;
}

void write_requests(EventWriter& writer, const Timeline& timeline, std::size_t first_thread) {
  for (std::size_t r = 0; r < timeline.requests.size(); ++r) {
    const RequestRecord& request = timeline.requests[r];
    if (request.token_times.empty()) continue;
    const Track track{kRunProcess, first_thread + r};
    const std::string name = fmt::format("request {}", r);
    writer.thread_name(track, name);
    writer.slice(track, name, "request", {request.arrival, request.token_times.back()},
                 fmt::format(R"("input_tokens":{},"output_tokens":{})", request.input_tokens,
                             request.token_times.size()));
    SimTime before = request.arrival;
    for (std::size_t t = 0; t < request.token_times.size(); ++t) {
      writer.slice(track, t == 0 ? "ttft" : fmt::format("token {}", t), "token",
                   {before, request.token_times[t]}, fmt::format(R"("token":{})", t));
      before = request.token_times[t];
    }
  }
}

void write_device_names(EventWriter& writer, const Timeline& timeline) {
  for (std::size_t d = 0; d < timeline.devices.size(); ++d) {
    const std::size_t process = kFirstDeviceProcess + d;
    writer.process_name(process, timeline.devices[d]);
    for (const Queue queue : {Queue::compute, Queue::comm}) {
      writer.thread_name(track_of(timeline, d, queue), to_string(queue));
    }
  }
}

void write_task(EventWriter& writer, Track track, const TaskRecord& task) {
  const OpClass op_class = class_of(task.kind);
  const bool comm = op_class == OpClass::communication;
  writer.slice(
      track, to_string(task.kind), to_string(op_class), {task.start, task.end},
      fmt::format(
          R"("step":{},"node":{},"layer":{},"microbatch":{},"flops":{},"bytes":{})"
          R"({})",
          task.step, index_of(task.node), task.layer, task.microbatch, task.flops, task.bytes,
          comm ? fmt::format(R"(,"wait_ns":{})", (task.ready - task.start).ns) : std::string()));
  if (task.ready > task.start)
    writer.slice(track, "wait", "synchronisation", {task.start, task.ready}, "");
}

// From the last member of one communication to each that waited. An end must lie within its slice,
// so members that did nothing after the wait have no arrow.
void write_arrows(EventWriter& writer, const Timeline& timeline,
                  std::span<const TaskRecord* const> members) {
  const TaskRecord& last = **std::ranges::max_element(
      members, {}, [](const TaskRecord* member) { return member->start; });
  if (last.end <= last.start) return;
  for (const TaskRecord* member : members) {
    if (member->ready > member->start && member->ready < member->end)
      writer.arrow(track_of(timeline, last), last.start, track_of(timeline, *member),
                   member->ready);
  }
}

void write_tasks(EventWriter& writer, const Timeline& timeline, TraceOptions options) {
  std::vector<const TaskRecord*> tasks;
  for (const TaskRecord& task : timeline.tasks) tasks.push_back(&task);
  std::ranges::sort(tasks, {}, [](const TaskRecord* task) {
    return std::tuple(task->device, queue_of(task->kind), task->start, task->end, task->step,
                      task->node);
  });
  for (const TaskRecord* task : tasks) write_task(writer, track_of(timeline, *task), *task);
  if (!options.arrows) return;

  const auto node_of = [](const TaskRecord* task) { return std::tuple(task->step, task->node); };
  std::erase_if(tasks, [](const TaskRecord* t) { return queue_of(t->kind) == Queue::compute; });
  std::ranges::stable_sort(tasks, {}, node_of);
  for (auto first = tasks.begin(); first != tasks.end();) {
    const auto end = std::find_if(first, tasks.end(), [&](const TaskRecord* task) {
      return node_of(task) != node_of(*first);
    });
    write_arrows(writer, timeline, {first, end});
    first = end;
  }
}

void write_memory(EventWriter& writer, const MemoryTrace& trace) {
  for (std::size_t d = 0; d < trace.devices.size(); ++d) {
    for (const MemorySample& sample : trace.devices[d]) {
      const DeviceMemory& held = sample.memory;
      writer.counter(kFirstDeviceProcess + d, "memory (bytes)", sample.time,
                     fmt::format(R"("weights":{},"kv_cache":{},"activations":{},"attention":{},)"
                                 R"("comm_buffers":{})",
                                 held.weights, held.kv_cache, held.activations, held.attention,
                                 held.comm_buffers));
    }
  }
}

Status write_to(const Sink& sink, const Timeline& timeline, TraceOptions options) {
  EventWriter writer(sink, timeline.start);
  const std::size_t free_thread = write_run(writer, timeline);
  write_requests(writer, timeline, free_thread);
  write_device_names(writer, timeline);
  write_tasks(writer, timeline, options);
  for (const MemoryTrace& trace : options.memory) write_memory(writer, trace);
  return writer.finish();
}

}  // namespace

Status write_trace(const Timeline& timeline, const std::string& path, TraceOptions options) {
  Result<OutputFile> file = OutputFile::create(path);
  if (!file) return tl::unexpected<Error>(file.error());
  const Sink sink = [&](std::string_view text) { return file->write(text); };
  if (Status written = write_to(sink, timeline, options); !written) return written;
  return file->commit();
}

std::string trace_of(const Timeline& timeline, TraceOptions options) {
  std::string text;
  const Sink sink = [&](std::string_view piece) -> Status {
    text += piece;
    return {};
  };
  static_cast<void>(write_to(sink, timeline, options));  // This sink cannot fail.
  return text;
}

}  // namespace weir
