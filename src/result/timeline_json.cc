#include "result/timeline_json.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "result/timeline_check.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "weir-timeline-1";
constexpr IntegerLimits kInstant{.min = -kMaxTimelineNs, .max = kMaxTimelineNs};
constexpr IntegerLimits kSpan{.min = 0, .max = kMaxTimelineNs};
constexpr IntegerLimits kAmount{.min = 0};
constexpr IntegerLimits kTokens{.min = 0, .max = std::numeric_limits<std::int32_t>::max()};
constexpr IntegerLimits kIndex32{.min = 0, .max = std::numeric_limits<std::int32_t>::max()};
constexpr IntegerLimits kLayer{.min = -1, .max = std::numeric_limits<std::int32_t>::max()};
constexpr IntegerLimits kId{.min = 0, .max = std::numeric_limits<std::uint32_t>::max()};

// Each task field with its column, for writing.
json columns_of(const std::vector<TaskRecord>& tasks, const std::vector<OpKind>& kinds) {
  const auto column = [&](auto field) {
    json::array_t values;
    values.reserve(tasks.size());
    for (const TaskRecord& task : tasks) values.emplace_back(std::int64_t{field(task)});
    return values;
  };
  const auto kind_index = [&](const TaskRecord& task) {
    return std::ranges::find(kinds, task.kind) - kinds.begin();
  };
  return {
      {"step", column([](const TaskRecord& t) { return t.step; })},
      {"node", column([](const TaskRecord& t) { return static_cast<std::uint32_t>(t.node); })},
      {"device", column([](const TaskRecord& t) { return static_cast<std::uint32_t>(t.device); })},
      {"kind", column(kind_index)},
      {"layer", column([](const TaskRecord& t) { return t.layer; })},
      {"microbatch", column([](const TaskRecord& t) { return t.microbatch; })},
      {"start_ns", column([](const TaskRecord& t) { return t.start.ns; })},
      {"wait_ns", column([](const TaskRecord& t) { return (t.ready - t.start).ns; })},
      {"work_ns", column([](const TaskRecord& t) { return (t.end - t.ready).ns; })},
      {"flops", column([](const TaskRecord& t) { return t.flops; })},
      {"bytes", column([](const TaskRecord& t) { return t.bytes; })},
  };
}

std::vector<OpKind> kinds_in(const std::vector<TaskRecord>& tasks) {
  std::vector<OpKind> kinds;
  for (const TaskRecord& task : tasks) {
    if (std::ranges::find(kinds, task.kind) == kinds.end()) kinds.push_back(task.kind);
  }
  std::ranges::sort(kinds);
  return kinds;
}

std::vector<OpKind> read_kinds(ObjectReader& reader) {
  std::vector<OpKind> kinds;
  for (const std::string& name : reader.strings("kinds")) {
    const std::optional<OpKind> kind = parse_op_kind(name);
    if (!kind) {
      reader.problem("kinds",
                     fmt::format("found {}, allowed the name of an op", shown(json(name))));
    }
    kinds.push_back(kind.value_or(OpKind::embed));
  }
  return kinds;
}

std::vector<TaskRecord> read_tasks(ObjectReader reader, const std::vector<OpKind>& kinds) {
  const std::vector<std::int64_t> step = reader.integers("step", kIndex32);
  const std::vector<std::int64_t> node = reader.integers("node", kId);
  const std::vector<std::int64_t> device = reader.integers("device", kId);
  const std::vector<std::int64_t> kind =
      reader.integers("kind", {.min = 0, .max = std::max<std::int64_t>(1, std::ssize(kinds)) - 1});
  const std::vector<std::int64_t> layer = reader.integers("layer", kLayer);
  const std::vector<std::int64_t> microbatch = reader.integers("microbatch", kIndex32);
  const std::vector<std::int64_t> start = reader.integers("start_ns", kInstant);
  const std::vector<std::int64_t> wait = reader.integers("wait_ns", kSpan);
  const std::vector<std::int64_t> work = reader.integers("work_ns", kSpan);
  const std::vector<std::int64_t> flops = reader.integers("flops", kAmount);
  const std::vector<std::int64_t> bytes = reader.integers("bytes", kAmount);
  reader.refuse_unknown_keys();

  const std::array<std::pair<std::string_view, std::size_t>, 10> lengths = {{
      {"node", node.size()},
      {"device", device.size()},
      {"kind", kind.size()},
      {"layer", layer.size()},
      {"microbatch", microbatch.size()},
      {"start_ns", start.size()},
      {"wait_ns", wait.size()},
      {"work_ns", work.size()},
      {"flops", flops.size()},
      {"bytes", bytes.size()},
  }};
  bool even = true;
  for (const auto& [name, length] : lengths) {
    if (length != step.size()) {
      even = false;
      reader.problem(name,
                     fmt::format("found {} entries, allowed {} as in step", length, step.size()));
    }
  }
  if (!step.empty() && kinds.empty()) {
    even = false;
    reader.problem("kind", "found tasks, allowed none as kinds is empty");
  }
  std::vector<TaskRecord> tasks;
  if (!even) return tasks;
  tasks.reserve(step.size());
  for (std::size_t i = 0; i < step.size(); ++i) {
    tasks.push_back({.step = static_cast<std::int32_t>(step[i]),
                     .node = static_cast<NodeId>(node[i]),
                     .device = static_cast<DeviceId>(device[i]),
                     .kind = kinds[static_cast<std::size_t>(kind[i])],
                     .layer = static_cast<std::int32_t>(layer[i]),
                     .microbatch = static_cast<std::int32_t>(microbatch[i]),
                     .start = {start[i]},
                     .ready = {start[i] + wait[i]},
                     .end = {start[i] + wait[i] + work[i]},
                     .flops = flops[i],
                     .bytes = bytes[i]});
  }
  return tasks;
}

StepRecord read_step(ObjectReader& reader) {
  StepRecord step{.prefill = reader.boolean("prefill"),
                  .new_tokens = reader.integer("new_tokens", kTokens),
                  .start = {reader.integer("start_ns", kInstant)},
                  .end = {reader.integer("end_ns", kInstant)}};
  reader.refuse_unknown_keys();
  return step;
}

RequestRecord read_request(ObjectReader& reader) {
  RequestRecord request{.input_tokens = reader.integer("input_tokens", kTokens),
                        .arrival = {reader.integer("arrival_ns", kInstant)},
                        .token_times = {}};
  for (const std::int64_t time : reader.integers("token_times_ns", kInstant))
    request.token_times.push_back({time});
  reader.refuse_unknown_keys();
  return request;
}

}  // namespace

json timeline_to_json(const Timeline& timeline) {
  json steps = json::array();
  for (const StepRecord& step : timeline.steps) {
    steps.push_back({{"prefill", step.prefill},
                     {"new_tokens", step.new_tokens},
                     {"start_ns", step.start.ns},
                     {"end_ns", step.end.ns}});
  }
  json requests = json::array();
  for (const RequestRecord& request : timeline.requests) {
    json times = json::array();
    for (const SimTime time : request.token_times) times.push_back(time.ns);
    requests.push_back({{"input_tokens", request.input_tokens},
                        {"arrival_ns", request.arrival.ns},
                        {"token_times_ns", std::move(times)}});
  }
  const std::vector<OpKind> kinds = kinds_in(timeline.tasks);
  json names = json::array();
  for (const OpKind kind : kinds) names.push_back(to_string(kind));
  return {{"format", kFormat},
          {"devices", timeline.devices},
          {"start_ns", timeline.start.ns},
          {"end_ns", timeline.end.ns},
          {"steps", std::move(steps)},
          {"requests", std::move(requests)},
          {"kinds", std::move(names)},
          {"tasks", columns_of(timeline.tasks, kinds)}};
}

Result<Timeline> timeline_from_json(const json& document) {
  std::vector<std::string> problems;
  ObjectReader reader(document, "timeline", problems);
  static_cast<void>(reader.choice("format", std::array{kFormat}));
  Timeline timeline;
  timeline.devices = reader.strings("devices");
  if (timeline.devices.size() > kMaxTimelineDevices) {
    reader.problem("devices", fmt::format("found {}, allowed at most {}", timeline.devices.size(),
                                          kMaxTimelineDevices));
  }
  timeline.start = {reader.integer("start_ns", kInstant)};
  timeline.end = {reader.integer("end_ns", kInstant)};
  for (ObjectReader& step : reader.objects("steps")) timeline.steps.push_back(read_step(step));
  for (ObjectReader& request : reader.objects("requests"))
    timeline.requests.push_back(read_request(request));
  const std::vector<OpKind> kinds = read_kinds(reader);
  timeline.tasks = read_tasks(reader.object("tasks"), kinds);
  reader.refuse_unknown_keys();
  // The contradictions of a timeline that could not be read whole would only be noise.
  if (problems.empty()) problems = problems_of(timeline);
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return timeline;
}

}  // namespace weir
