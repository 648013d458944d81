#include "sim/activities.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace weir {
namespace {

constexpr double kGigabyte = 1e9;  // Per second: a byte per nanosecond.

std::vector<std::int64_t> ends_of(const ActivityTimes& times) {
  std::vector<std::int64_t> ends;
  for (const SimTime end : times.ends) ends.push_back(end.ns);
  return ends;
}

TEST(Activities, BeginWhenAllThatTheyWaitForIsOver) {
  ActivityGraph graph;
  const WorkId five = graph.add_work({5});
  const WorkId seven = graph.add_work({7});
  const ActivityId a = graph.add(five, {});
  const ActivityId b = graph.add(seven, {});
  const ActivityId both[] = {a, b};
  graph.add(five, both);
  graph.add(seven, {&a, 1});
  EXPECT_EQ(ends_of(run_in_order(graph)), (std::vector<std::int64_t>{5, 7, 12, 12}));
  EXPECT_EQ(ends_of(run_by_events(graph, {})), (std::vector<std::int64_t>{5, 7, 12, 12}));
  EXPECT_EQ(start_of(graph, run_in_order(graph).ends, 2).ns, 7);
}

TEST(Activities, NothingIsOverAtOnce) {
  const ActivityGraph graph;
  EXPECT_EQ(run_in_order(graph).end.ns, 0);
  EXPECT_EQ(run_by_events(graph, {}).end.ns, 0);
}

TEST(Activities, WhatTakesNoTimeIsOverWhenItBegins) {
  ActivityGraph graph;
  const WorkId nothing = graph.add_work(SimTime{});
  const WorkId three = graph.add_work({3});
  ActivityId last = graph.add(three, {});
  for (int i = 0; i < 100'000; ++i) last = graph.add(nothing, {&last, 1});
  EXPECT_EQ(run_by_events(graph, {}).ends.back().ns, 3);
}

TEST(Activities, TransfersShareALinkOnlyAfterTheirLatency) {
  ActivityGraph graph;
  const LinkUse use{.link = LinkId{0}, .bytes = 100};
  graph.add(graph.add_work({10}, {100}, {&use, 1}), {});
  graph.add(graph.add_work({60}, {100}, {&use, 1}), {});
  const double capacity = kGigabyte;
  // Alone from 10 to 60, half each until the first has had its 100 bytes at 160.
  const ActivityTimes times = run_by_events(graph, {&capacity, 1});
  EXPECT_EQ(ends_of(times), (std::vector<std::int64_t>{160, 210}));
  EXPECT_TRUE(times.has_slowed);
  EXPECT_EQ(ends_of(run_in_order(graph)), (std::vector<std::int64_t>{110, 160}));
}

TEST(Activities, WhoBeginsWhenAnotherEndsDoesNotMeetIt) {
  ActivityGraph graph;
  const LinkUse use{.link = LinkId{0}, .bytes = 100};
  const WorkId work = graph.add_work({}, {100}, {&use, 1});
  const ActivityId first = graph.add(work, {});
  graph.add(work, {&first, 1});
  const double capacity = kGigabyte;
  const ActivityTimes times = run_by_events(graph, {&capacity, 1});
  EXPECT_EQ(ends_of(times), (std::vector<std::int64_t>{100, 200}));
  EXPECT_FALSE(times.has_slowed);
}

TEST(Activities, APatternIsAddedAsItsActivitiesWouldBe) {
  ActivityGraph graph;
  const WorkId two = graph.add_work({2});
  const WorkId nine = graph.add_work({9});
  ActivityPattern pattern;
  const ActivityId a = pattern.add(two, {});
  const ActivityId b = pattern.add(nine, {&a, 1});
  const ActivityId both[] = {a, b};
  pattern.add(two, both);
  const ActivityId before = graph.add(nine, {});
  const ActivityId first = graph.append(pattern, {&before, 1});
  EXPECT_EQ(first, 1U);
  EXPECT_EQ(graph.append(pattern, {&before, 1}), 4U);
  EXPECT_EQ(ends_of(run_in_order(graph)), (std::vector<std::int64_t>{9, 11, 20, 22, 11, 20, 22}));
}

// Any graph, with what is sent over links that everybody has for himself.
ActivityGraph random_graph(Random& random, std::int64_t size, std::uint32_t links) {
  ActivityGraph graph;
  std::vector<WorkId> works;
  for (int i = 0; i < 12; ++i) works.push_back(graph.add_work({random.integer(0, 40)}));
  for (std::uint32_t link = 0; link < links; ++link) {
    const std::int64_t bytes = random.integer(1, 90);
    const LinkUse use{.link = LinkId{link}, .bytes = static_cast<double>(bytes)};
    works.push_back(graph.add_work({random.integer(0, 9)}, {bytes}, {&use, 1}));
  }
  for (std::int64_t i = 0; i < size; ++i) {
    std::vector<ActivityId> waits;
    const std::int64_t most = std::min<std::int64_t>(i, 4);
    for (std::int64_t w = random.integer(0, most); w > 0; --w)
      waits.push_back(
          static_cast<ActivityId>(random.integer(std::max<std::int64_t>(0, i - 50), i - 1)));
    graph.add(works[static_cast<std::size_t>(random.integer(0, std::ssize(works) - 1))], waits);
  }
  return graph;
}

TEST(Activities, ThePassGivesTheEventLoopsAnswerWhereNothingIsHeldUp) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    const ActivityGraph graph = random_graph(random, 400, 8);
    // So wide that all who want a link at one time have room.
    const std::vector<double> wide(8, 1000 * kGigabyte);
    const ActivityTimes events = run_by_events(graph, wide);
    EXPECT_EQ(events.ends, run_in_order(graph).ends) << "seed " << seed;
    EXPECT_EQ(events.end, run_in_order(graph).end) << "seed " << seed;
  }
}

TEST(Activities, SharingOnlyEverDelays) {
  int slowed = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    const ActivityGraph graph = random_graph(random, 400, 3);
    const std::vector<double> narrow(3, kGigabyte);
    const ActivityTimes events = run_by_events(graph, narrow);
    const ActivityTimes alone = run_in_order(graph);
    slowed += events.has_slowed ? 1 : 0;
    for (ActivityId id = 0; id < graph.size(); ++id) {
      EXPECT_GE(events.ends[id], alone.ends[id]) << "seed " << seed << " activity " << id;
      const ActivityGraph::Work& work = graph.work_of(id);
      EXPECT_GE(events.ends[id] - start_of(graph, events.ends, id), work.latency + work.transfer);
    }
  }
  EXPECT_GT(slowed, 40);
}

// A link is never asked for more than it can carry: what passed over it took at least its time.
TEST(Activities, ALinkIsBusyAtLeastAsLongAsItsBytesTake) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    const ActivityGraph graph = random_graph(random, 300, 2);
    const ActivityTimes times = run_by_events(graph, std::vector<double>(2, kGigabyte));
    for (std::uint32_t link = 0; link < 2; ++link) {
      double bytes = 0;
      SimTime last;
      SimTime first{1 << 30};
      for (ActivityId id = 0; id < graph.size(); ++id) {
        for (const LinkUse& use : graph.uses_of(graph.work_of(id))) {
          if (use.link != LinkId{link}) continue;
          bytes += use.bytes;
          first = std::min(first, start_of(graph, times.ends, id) + graph.work_of(id).latency);
          last = std::max(last, times.ends[id]);
        }
      }
      EXPECT_GE(static_cast<double>((last - first).ns), bytes) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace weir
