#include "sim/link_sharing.h"

#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "clusters_for_tests.h"

namespace weir {
namespace {

// A line of links of 1 byte per nanosecond each: the cards of single-device nodes.
class LinkSharingOnALine : public testing::Test {
 protected:
  LinkSharingOnALine() : topology_(cluster()) {
    for (std::uint32_t i = 0; i < 4; ++i)
      links_.push_back(topology_.route(DeviceId{i}, DeviceId{(i + 1) % 4})->links[0]);
  }
  static ClusterSpec cluster() {
    ClusterSpec cluster = round_cluster(1, 4);
    cluster.node_types[0].fabrics[0].bandwidth = BytesPerSecond{1e9};
    return cluster;
  }
  std::vector<LinkUse> over(const std::vector<std::size_t>& path, double bytes) const {
    std::vector<LinkUse> uses;
    for (const std::size_t link : path) uses.push_back({.link = links_[link], .bytes = bytes});
    return uses;
  }
  // Ends by name when all begin at 0, each as fast as its slowest link.
  std::map<std::uint32_t, std::int64_t> ends_of(
      const std::vector<std::vector<LinkUse>>& flows) const {
    LinkSharing sharing(topology_);
    for (std::uint32_t name = 0; name < flows.size(); ++name)
      sharing.begin(name, flows[name], {static_cast<std::int64_t>(flows[name][0].bytes)}, {});
    std::map<std::uint32_t, std::int64_t> ends;
    SimTime now;
    while (const auto end = sharing.next(now)) {
      now = end->time;
      ends[end->name] = now.ns;
      sharing.finish(*end);
    }
    return ends;
  }

  Topology topology_;
  std::vector<LinkId> links_;
};
using LinkSharingLine = LinkSharingOnALine;

TEST_F(LinkSharingLine, ATransferAloneEndsWhenItsDurationSays) {
  const auto uses = over({0}, 1000);
  LinkSharing sharing(topology_);
  sharing.begin(7, uses, {1234}, {50});
  const auto end = sharing.next({50});
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->time.ns, 1284);
  EXPECT_EQ(end->name, 7U);
  sharing.finish(*end);
  EXPECT_TRUE(sharing.empty());
  EXPECT_FALSE(sharing.has_slowed());
}

TEST_F(LinkSharingLine, EqualTransfersOnALinkEachGetTheirPart) {
  const auto ends = ends_of({over({0}, 1000), over({0}, 1000), over({0}, 1000), over({0}, 1000)});
  for (const auto& [name, end] : ends) EXPECT_EQ(end, 4000) << name;
}

TEST_F(LinkSharingLine, WhatAShortTransferLeavesGoesToTheOthers) {
  // Both at half rate until the short one ends at 2000; the other then has 2000 bytes left.
  const auto ends = ends_of({over({0}, 1000), over({0}, 3000)});
  EXPECT_EQ(ends.at(0), 2000);
  EXPECT_EQ(ends.at(1), 4000);
}

// The parking lot: a transfer over all links against one on each.
TEST_F(LinkSharingLine, ALongWaySharesEveryLinkOnIt) {
  const auto ends =
      ends_of({over({0, 1, 2}, 1000), over({0}, 1000), over({1}, 1000), over({2}, 3000)});
  EXPECT_EQ(ends.at(0), 2000);
  EXPECT_EQ(ends.at(1), 2000);
  EXPECT_EQ(ends.at(2), 2000);
  EXPECT_EQ(ends.at(3), 4000);
}

// Max-min, not equal shares: link 0 carries three, so the third of them leaves more of link 1.
TEST_F(LinkSharingLine, WhoIsHeldUpElsewhereLeavesItsPart) {
  const auto ends =
      ends_of({over({0}, 9000), over({0}, 9000), over({0, 1}, 3000), over({1}, 6000)});
  EXPECT_EQ(ends.at(2), 9000);
  EXPECT_EQ(ends.at(3), 9000) << "two thirds of link 1";
}

TEST_F(LinkSharingLine, ALaterTransferSlowsOneThatIsUnderWay) {
  const auto first = over({0}, 1000);
  const auto second = over({0}, 1000);
  LinkSharing sharing(topology_);
  sharing.begin(0, first, {1000}, {0});
  EXPECT_EQ(sharing.next({0})->time.ns, 1000);
  sharing.begin(1, second, {1000}, {500});
  const auto end = sharing.next({500});
  EXPECT_EQ(end->time.ns, 1500);
  EXPECT_EQ(end->name, 0U);
  sharing.finish(*end);
  EXPECT_EQ(sharing.next(end->time)->time.ns, 2000);
  EXPECT_TRUE(sharing.has_slowed());
}

TEST_F(LinkSharingLine, TransfersElsewhereAreNotTouched) {
  const auto here = over({0}, 1000);
  const auto there = over({2}, 1000);
  LinkSharing sharing(topology_);
  sharing.begin(0, here, {1000}, {0});
  sharing.begin(1, there, {1000}, {333});
  const auto end = sharing.next({333});
  EXPECT_EQ(end->time.ns, 1000);
  sharing.finish(*end);
  EXPECT_EQ(sharing.next(end->time)->time.ns, 1333);
  EXPECT_FALSE(sharing.has_slowed());
}

}  // namespace
}  // namespace weir
