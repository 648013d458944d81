#include "report/trace.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/random.h"
#include "tests/report/golden.h"
#include "tests/result/sample_timeline.h"

namespace weir {
namespace {

using nlohmann::json;

std::vector<json> events_of(const Timeline& timeline, std::string_view phase) {
  const json trace = json::parse(trace_of(timeline));
  std::vector<json> events;
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("ph") == phase) events.push_back(event);
  }
  return events;
}

std::int64_t ns_of(const json& microseconds) {
  return std::llround(microseconds.get<double>() * 1000);
}

struct Slice {
  std::int64_t start;
  std::int64_t end;
};

// Slices of each track in the order of the file.
std::map<std::pair<int, int>, std::vector<Slice>> tracks_of(const std::vector<json>& slices) {
  std::map<std::pair<int, int>, std::vector<Slice>> tracks;
  for (const json& slice : slices) {
    const std::int64_t start = ns_of(slice.at("ts"));
    tracks[{slice.at("pid").get<int>(), slice.at("tid").get<int>()}].push_back(
        {start, start + ns_of(slice.at("dur"))});
  }
  return tracks;
}

// Each slice lies within or after each earlier one of its track, parents before their children.
void expect_nested(const std::vector<Slice>& slices) {
  std::vector<Slice> open;
  for (const Slice& slice : slices) {
    while (!open.empty() && open.back().end <= slice.start) open.pop_back();
    if (!open.empty()) {
      EXPECT_GE(slice.start, open.back().start);
      EXPECT_LE(slice.end, open.back().end);
    }
    open.push_back(slice);
  }
}

// Sound, with communications on several devices and steps that overlap.
Timeline random_timeline(std::uint64_t seed) {
  Random random(seed);
  Timeline timeline;
  timeline.devices = {"a", "b", "c"};
  timeline.start = {1000};
  std::array<SimTime, 3> compute_free{};
  SimTime comm_free = timeline.start;
  compute_free.fill(timeline.start);
  for (std::int32_t s = 0; s < 20; ++s) {
    StepRecord step{.prefill = s == 0, .start = comm_free, .end = comm_free};
    std::array<SimTime, 3> arrivals{};
    SimTime last;
    for (std::size_t d = 0; d < 3; ++d) {
      const SimTime start = std::max(compute_free[d], step.start);
      compute_free[d] = start + SimTime{random.integer(0, 3000)};
      timeline.tasks.push_back({.step = s,
                                .node = NodeId{0},
                                .device = static_cast<DeviceId>(d),
                                .kind = OpKind::ffn_up,
                                .start = start,
                                .ready = start,
                                .end = compute_free[d]});
      arrivals[d] = std::max(compute_free[d] - SimTime{random.integer(0, 500)}, comm_free);
      last = std::max(last, arrivals[d]);
      step.end = std::max(step.end, compute_free[d]);
    }
    comm_free = last + SimTime{random.integer(0, 2000)};
    for (std::size_t d = 0; d < 3; ++d) {
      timeline.tasks.push_back({.step = s,
                                .node = NodeId{1},
                                .device = static_cast<DeviceId>(d),
                                .kind = OpKind::all_gather,
                                .start = arrivals[d],
                                .ready = last,
                                .end = comm_free});
    }
    step.end = std::max(step.end, comm_free);
    // The next step begins at comm_free, which may be before this one's computing ends.
    timeline.steps.push_back(step);
    timeline.end = std::max(timeline.end, step.end);
  }
  return timeline;
}

TEST(Trace, IsAsKept) { expect_golden("trace.json", trace_of(sample_timeline())); }

TEST(Trace, HasOneSliceForEverythingThatHappened) {
  // 7 tasks, 1 wait, 1 run, 2 steps, 2 requests, 3 tokens.
  EXPECT_EQ(events_of(sample_timeline(), "X").size(), 16);
}

TEST(Trace, KeepsTimesToTheNanosecond) {
  Timeline timeline = sample_timeline();
  timeline.start = {-3};
  for (const json& slice : events_of(timeline, "X")) {
    if (slice.at("name") != "all_reduce" || slice.at("args").at("wait_ns") == 0) continue;
    EXPECT_DOUBLE_EQ(slice.at("ts").get<double>(), 0.021);
    EXPECT_DOUBLE_EQ(slice.at("dur").get<double>(), 0.027);
    EXPECT_EQ(slice.at("args").at("wait_ns"), 4);
    EXPECT_EQ(slice.at("args").at("bytes"), 64);
  }
}

TEST(Trace, ShowsWhatCameBeforeTheRunBeforeZero) {
  Timeline timeline = sample_timeline();
  timeline.requests[0].arrival = {-1234};
  for (const json& slice : events_of(timeline, "X")) {
    if (slice.at("name") == "request 0") {
      EXPECT_DOUBLE_EQ(slice.at("ts").get<double>(), -1.234);
      EXPECT_DOUBLE_EQ(slice.at("dur").get<double>(), 1.331);
    }
  }
}

TEST(Trace, NamesEveryTrackThatItUses) {
  const Timeline timeline = sample_timeline();
  std::map<std::pair<int, int>, std::string> threads;
  std::map<int, std::string> processes;
  for (const json& event : events_of(timeline, "M")) {
    const int pid = event.at("pid").get<int>();
    if (event.at("name") == "process_name") processes[pid] = event.at("args").at("name");
    if (event.at("name") == "thread_name")
      threads[{pid, event.at("tid").get<int>()}] = event.at("args").at("name");
  }
  EXPECT_EQ(processes, (std::map<int, std::string>{{1, "run"}, {2, "gpu0"}, {3, "gpu1"}}));
  EXPECT_EQ((threads[{2, 4}]), "compute");
  EXPECT_EQ((threads[{3, 7}]), "comm");
  for (const auto& [track, slices] : tracks_of(events_of(timeline, "X")))
    EXPECT_TRUE(threads.contains(track)) << track.first << ":" << track.second;
}

TEST(Trace, LeadsArrowsFromTheLastMemberToThoseThatWaited) {
  const std::vector<json> starts = events_of(sample_timeline(), "s");
  const std::vector<json> ends = events_of(sample_timeline(), "f");
  ASSERT_EQ(starts.size(), 1);
  ASSERT_EQ(ends.size(), 1);
  // gpu1 arrived at 22 ns, gpu0 waited for it until then.
  EXPECT_EQ(starts[0].at("pid"), 3);
  EXPECT_EQ(ns_of(starts[0].at("ts")), 22);
  EXPECT_EQ(ends[0].at("pid"), 2);
  EXPECT_EQ(ns_of(ends[0].at("ts")), 22);
  EXPECT_EQ(starts[0].at("id"), ends[0].at("id"));
  EXPECT_EQ(json::parse(trace_of(sample_timeline(), {.arrows = false})).at("traceEvents").size(),
            json::parse(trace_of(sample_timeline())).at("traceEvents").size() - 2);
}

TEST(Trace, NestsTheSlicesOfEveryTrack) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    for (const auto& [track, slices] : tracks_of(events_of(random_timeline(seed), "X")))
      expect_nested(slices);
  }
}

TEST(Trace, EndsEveryArrowWithinASlice) {
  const Timeline timeline = random_timeline(3);
  const auto tracks = tracks_of(events_of(timeline, "X"));
  std::size_t arrows = 0;
  for (const std::string_view phase : {"s", "f"}) {
    for (const json& end : events_of(timeline, phase)) {
      const std::int64_t time = ns_of(end.at("ts"));
      const auto& slices = tracks.at({end.at("pid").get<int>(), end.at("tid").get<int>()});
      EXPECT_TRUE(std::ranges::any_of(
          slices, [&](const Slice& slice) { return slice.start <= time && time < slice.end; }));
      ++arrows;
    }
  }
  EXPECT_GT(arrows, 20);
}

TEST(Trace, CountsWhatDevicesHold) {
  const Timeline timeline = sample_timeline();
  MemoryTrace memory;
  memory.devices.resize(timeline.devices.size());
  memory.devices[1] = {
      {.time = timeline.start + SimTime{1500}, .memory = {.weights = 7, .attention = 3}},
      {.time = timeline.start + SimTime{2500}, .memory = {.weights = 7, .comm_buffers = 1}}};
  const json trace = json::parse(trace_of(timeline, {.memory = {&memory, 1}}));
  std::vector<json> counts;
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "C") counts.push_back(event);
  }
  ASSERT_EQ(counts.size(), 2U);
  EXPECT_EQ(ns_of(counts[0].at("ts")), 1500);
  EXPECT_EQ(counts[0].at("args"), json::parse(R"({"weights":7,"kv_cache":0,"activations":0,
                                                  "attention":3,"comm_buffers":0})"));
  EXPECT_EQ(counts[1].at("args").at("comm_buffers"), 1);
  const std::vector<json> names = events_of(timeline, "M");
  EXPECT_TRUE(std::ranges::any_of(names, [&](const json& name) {
    return name.at("pid") == counts[0].at("pid") && name.at("name") == "process_name" &&
           name.at("args").at("name") == timeline.devices[1];
  }));
}

TEST(Trace, EscapesNames) {
  Timeline timeline = sample_timeline();
  timeline.devices[0] = "g\"p\\u\n\xFF";
  const std::vector<json> names = events_of(timeline, "M");
  EXPECT_TRUE(std::ranges::any_of(names, [](const json& event) {
    return event.at("args").contains("name") &&
           event.at("args").at("name") == "g\"p\\u\uFFFD\uFFFD";
  }));
}

TEST(Trace, OfNothingIsStillATrace) {
  EXPECT_EQ(events_of({}, "X").size(), 1);  // The run.
}

TEST(Trace, IsWrittenToAFileAsItIs) {
  const std::string path = testing::TempDir() + "weir_trace_test.json";
  Timeline timeline = random_timeline(1);
  timeline.requests = {{.arrival = timeline.start,  // Enough events for several pieces.
                        .token_times = std::vector<SimTime>(5000, timeline.end)}};
  ASSERT_TRUE(write_trace(timeline, path));
  const Result<std::string> text = read_text_file(path);
  ASSERT_TRUE(text);
  EXPECT_EQ(*text, trace_of(timeline));
  EXPECT_GT(text->size(), std::size_t{1} << 17);
  std::filesystem::remove(path);
}

TEST(Trace, SaysWhyAFileCannotBeWritten) {
  const Status status = write_trace(sample_timeline(), "/nonexistent/trace.json");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message,
            "/nonexistent/trace.json: cannot be written: No such file or directory");
}

}  // namespace
}  // namespace weir
