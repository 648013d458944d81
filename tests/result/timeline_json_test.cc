#include "result/timeline_json.h"

#include <functional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/result/sample_timeline.h"

namespace weir {
namespace {

using nlohmann::json;

std::string refusal_after(const std::function<void(json&)>& change) {
  json document = timeline_to_json(sample_timeline());
  change(document);
  const Result<Timeline> timeline = timeline_from_json(document);
  return timeline ? "accepted" : timeline.error().message;
}

TEST(TimelineJson, ReadsBackWhatItWrote) {
  for (const Timeline& timeline : {sample_timeline(), Timeline{}}) {
    const json document = json::parse(timeline_to_json(timeline).dump());
    const Result<Timeline> read = timeline_from_json(document);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, timeline);
  }
}

TEST(TimelineJson, StaysCompactForManyTasks) {
  Timeline timeline = sample_timeline();
  timeline.tasks.resize(1, timeline.tasks[1]);
  const auto one = static_cast<double>(timeline_to_json(timeline).dump().size());
  timeline.tasks.resize(1001, timeline.tasks[0]);
  const auto many = static_cast<double>(timeline_to_json(timeline).dump().size());
  EXPECT_LT((many - one) / 1000, 40);  // 11 numbers with their commas.
}

TEST(TimelineJson, RefusesColumnsOfDifferentLengths) {
  EXPECT_EQ(refusal_after([](json& d) { d["tasks"]["flops"].erase(0); }),
            "timeline.tasks.flops: found 6 entries, allowed 7 as in step");
}

TEST(TimelineJson, RefusesKindsThatItDoesNotKnow) {
  EXPECT_EQ(refusal_after([](json& d) { d["kinds"][0] = "dance"; }),
            "timeline.kinds: found \"dance\", allowed the name of an op");
  EXPECT_EQ(refusal_after([](json& d) { d["tasks"]["kind"][0] = 6; }),
            "timeline.tasks.kind[0]: found 6, allowed an integer in 0..5");
  EXPECT_EQ(refusal_after([](json& d) {
              d["kinds"] = json::array();
              for (json& kind : d["tasks"]["kind"]) kind = 0;
            }),
            "timeline.tasks.kind: found tasks, allowed none as kinds is empty");
}

TEST(TimelineJson, RefusesMissingAndUnknownFields) {
  EXPECT_EQ(refusal_after([](json& d) { d.erase("end_ns"), d["more"] = 1; }),
            "timeline.end_ns: missing, allowed an integer in "
            "-1000000000000000..1000000000000000; timeline.more: unknown key");
  EXPECT_EQ(refusal_after([](json& d) { d["format"] = "weir-timeline-9"; }),
            "timeline.format: found \"weir-timeline-9\", allowed one of: weir-timeline-1");
  EXPECT_EQ(refusal_after([](json& d) { d["tasks"] = 3; }).find("timeline.tasks: found 3"), 0);
  EXPECT_EQ(refusal_after([](json& d) { d = json::array(); }).find("timeline: found"), 0);
}

TEST(TimelineJson, RefusesTimesThatSumsCouldNotHold) {
  EXPECT_EQ(refusal_after([](json& d) { d["end_ns"] = kMaxTimelineNs + 1; }),
            "timeline.end_ns: found 1000000000000001, allowed an integer in "
            "-1000000000000000..1000000000000000");
  EXPECT_EQ(refusal_after([](json& d) {
              d["devices"] = std::vector<std::string>(kMaxTimelineDevices + 1, "gpu");
            }),
            "timeline.devices: found 4097, allowed at most 4096");
}

TEST(TimelineJson, RefusesATimelineThatContradictsItself) {
  EXPECT_EQ(refusal_after([](json& d) { d["steps"][0]["end_ns"] = 44; }),
            "tasks[2] (all_reduce on gpu0): found 18..45 ns, allowed within the 10..44 ns of step "
            "0");
}

}  // namespace
}  // namespace weir
