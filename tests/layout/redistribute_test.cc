#include "layout/redistribute.h"

#include <gtest/gtest.h>

namespace weir {
namespace {

using Groups = std::vector<CollectiveGroup>;

std::vector<DeviceId> devices(std::uint32_t begin, std::uint32_t end) {
  std::vector<DeviceId> ids;
  for (std::uint32_t i = begin; i < end; ++i) ids.push_back(DeviceId{i});
  return ids;
}

Box heads(std::int64_t begin, std::int64_t end) { return {.head = Range::of(begin, end)}; }
Box tokens(std::int64_t i, std::int64_t parts) { return {.token = Range::block(i, parts)}; }

Piece piece(std::uint32_t device, const Box& box, const Box& over = {}) {
  return {.device = DeviceId{device}, .box = box, .over = over};
}

Layout whole(std::vector<Piece> pieces) {
  return {.kind = LayoutKind::whole, .pieces = std::move(pieces)};
}

// Term i of n of the box on device `first` + i.
Layout sums(const Box& box, std::uint32_t first, std::uint32_t n) {
  Layout layout = {.kind = LayoutKind::sum, .pieces = {}};
  for (std::uint32_t i = 0; i < n; ++i)
    layout.pieces.push_back(piece(first + i, box, {.dim = Range::of(i, i + 1)}));
  return layout;
}

Layout joined(Layout a, const Layout& b) {
  a.pieces.insert(a.pieces.end(), b.pieces.begin(), b.pieces.end());
  return a;
}

// Eight heads over devices `first`... in `n` equal parts.
Layout head_parts(std::uint32_t first, std::uint32_t n) {
  Layout layout;
  for (std::uint32_t i = 0; i < n; ++i)
    layout.pieces.push_back(piece(first + i, heads(8 * i / n, 8 * (i + 1) / n)));
  return layout;
}

Layout token_parts(std::uint32_t first, std::uint32_t n) {
  Layout layout;
  for (std::uint32_t i = 0; i < n; ++i) layout.pieces.push_back(piece(first + i, tokens(i, n)));
  return layout;
}

TEST(Redistribute, EqualLayoutsNeedNothing) {
  EXPECT_EQ(classify(head_parts(0, 4), head_parts(0, 4)).kind, Redistribution::none);
}

TEST(Redistribute, TakingAPartOfWhatOneHoldsIsASlice) {
  const RedistributionPlan plan = classify(replicated(devices(0, 4)), head_parts(0, 4));
  EXPECT_EQ(plan.kind, Redistribution::slice);
  EXPECT_TRUE(plan.groups.empty());
}

TEST(Redistribute, DroppingReplicasIsASlice) {
  EXPECT_EQ(classify(replicated(devices(0, 4)), replicated(devices(1, 2))).kind,
            Redistribution::slice);
}

TEST(Redistribute, PartialsWantedWholeByAllAreAnAllReduce) {
  const RedistributionPlan plan = classify(sums({}, 0, 4), replicated(devices(0, 4)));
  EXPECT_EQ(plan.kind, Redistribution::all_reduce);
  EXPECT_EQ(plan.groups,
            (Groups{CollectiveGroup{.members = devices(0, 4), .root = DeviceId{0}, .box = {}}}));
}

TEST(Redistribute, SoftmaxPartialsAreReducedAlike) {
  Layout partials = sums({}, 0, 2);
  partials.kind = LayoutKind::softmax;
  EXPECT_EQ(classify(partials, replicated(devices(0, 2))).kind, Redistribution::all_reduce);
}

TEST(Redistribute, GroupsSideBySideAreOneAllReduceEach) {
  const Layout from = joined(sums(heads(0, 4), 0, 2), sums(heads(4, 8), 2, 2));
  const Layout to =
      joined(replicated(devices(0, 2), heads(0, 4)), replicated(devices(2, 4), heads(4, 8)));
  const RedistributionPlan plan = classify(from, to);
  EXPECT_EQ(plan.kind, Redistribution::all_reduce);
  EXPECT_EQ(
      plan.groups,
      (Groups{CollectiveGroup{.members = devices(0, 2), .root = DeviceId{0}, .box = heads(0, 4)},
              CollectiveGroup{.members = devices(2, 4), .root = DeviceId{2}, .box = heads(4, 8)}}));
}

TEST(Redistribute, PartialsWantedInPartsAreAReduceScatter) {
  const RedistributionPlan plan = classify(sums({}, 0, 4), token_parts(0, 4));
  EXPECT_EQ(plan.kind, Redistribution::reduce_scatter);
  EXPECT_EQ(plan.groups,
            (Groups{CollectiveGroup{.members = devices(0, 4), .root = DeviceId{0}, .box = {}}}));
}

TEST(Redistribute, PartsMayBeUneven) {
  const Layout uneven = whole({piece(0, heads(0, 3)), piece(1, heads(3, 8))});
  EXPECT_EQ(classify(sums({}, 0, 2), uneven).kind, Redistribution::reduce_scatter);
  EXPECT_EQ(classify(uneven, replicated(devices(0, 2))).kind, Redistribution::all_gather);
}

TEST(Redistribute, PartialsWantedByOneMemberAreAReduce) {
  const RedistributionPlan plan = classify(sums({}, 0, 4), whole({piece(2, {})}));
  EXPECT_EQ(plan.kind, Redistribution::reduce);
  ASSERT_EQ(plan.groups.size(), 1U);
  EXPECT_EQ(plan.groups.front().root, DeviceId{2});
}

TEST(Redistribute, PartialsWantedElsewhereAreCopied) {
  EXPECT_EQ(classify(sums({}, 0, 4), whole({piece(7, {})})).kind, Redistribution::copy);
  EXPECT_EQ(classify(sums({}, 0, 2), replicated(devices(0, 3))).kind, Redistribution::copy);
}

TEST(Redistribute, PartsWantedWholeByAllAreAnAllGather) {
  const RedistributionPlan plan = classify(head_parts(0, 4), replicated(devices(0, 4)));
  EXPECT_EQ(plan.kind, Redistribution::all_gather);
  EXPECT_EQ(plan.groups,
            (Groups{CollectiveGroup{.members = devices(0, 4), .root = DeviceId{0}, .box = {}}}));
}

TEST(Redistribute, AGridIsGatheredAlongOneAxisInGroups) {
  // Heads over two groups of two, tokens within each.
  Layout from;
  Layout to;
  for (std::uint32_t i = 0; i < 4; ++i) {
    Box part = heads(4 * (i / 2), 4 * (i / 2) + 4);
    to.pieces.push_back(piece(i, part));
    part.token = Range::block(i % 2, 2);
    from.pieces.push_back(piece(i, part));
  }
  const RedistributionPlan plan = classify(from, to);
  EXPECT_EQ(plan.kind, Redistribution::all_gather);
  EXPECT_EQ(
      plan.groups,
      (Groups{CollectiveGroup{.members = devices(0, 2), .root = DeviceId{0}, .box = heads(0, 4)},
              CollectiveGroup{.members = devices(2, 4), .root = DeviceId{2}, .box = heads(4, 8)}}));
}

TEST(Redistribute, PartsWantedByOneMemberAreAGather) {
  const RedistributionPlan plan = classify(head_parts(0, 4), whole({piece(3, {})}));
  EXPECT_EQ(plan.kind, Redistribution::gather);
  ASSERT_EQ(plan.groups.size(), 1U);
  EXPECT_EQ(plan.groups.front().root, DeviceId{3});
  EXPECT_EQ(plan.groups.front().members, devices(0, 4));
}

TEST(Redistribute, PartsWantedByAnOutsiderAreCopied) {
  EXPECT_EQ(classify(head_parts(0, 4), whole({piece(4, {})})).kind, Redistribution::copy);
}

TEST(Redistribute, OneHolderAndManyReadersAreABroadcast) {
  const RedistributionPlan plan = classify(whole({piece(1, {})}), replicated(devices(0, 4)));
  EXPECT_EQ(plan.kind, Redistribution::broadcast);
  EXPECT_EQ(plan.groups,
            (Groups{CollectiveGroup{.members = devices(0, 4), .root = DeviceId{1}, .box = {}}}));
  // The sender need not want it afterwards.
  const RedistributionPlan away = classify(whole({piece(7, {})}), replicated(devices(0, 2)));
  EXPECT_EQ(away.kind, Redistribution::broadcast);
  EXPECT_EQ(away.groups.front().members,
            (std::vector<DeviceId>{DeviceId{0}, DeviceId{1}, DeviceId{7}}));
}

TEST(Redistribute, BetweenTwoDevicesItIsACopy) {
  EXPECT_EQ(classify(whole({piece(0, {})}), whole({piece(1, {})})).kind, Redistribution::copy);
  EXPECT_EQ(classify(whole({piece(0, {})}), replicated(devices(0, 2))).kind, Redistribution::copy);
}

TEST(Redistribute, AnotherAxisCutAfterwardsIsAnAllToAll) {
  const RedistributionPlan plan = classify(token_parts(0, 4), head_parts(0, 4));
  EXPECT_EQ(plan.kind, Redistribution::all_to_all);
  ASSERT_EQ(plan.groups.size(), 1U);
  EXPECT_EQ(plan.groups.front().members, devices(0, 4));
  EXPECT_EQ(classify(head_parts(0, 4), token_parts(0, 4)).kind, Redistribution::all_to_all);
}

TEST(Redistribute, AllToAllsSideBySideAreOneEach) {
  // Heads over two groups; within each, tokens over two devices before and heads after.
  Layout from;
  Layout to;
  for (std::uint32_t i = 0; i < 4; ++i) {
    Box before = heads(4 * (i / 2), 4 * (i / 2) + 4);
    before.token = Range::block(i % 2, 2);
    from.pieces.push_back(piece(i, before));
    to.pieces.push_back(piece(i, heads(2 * i, 2 * i + 2)));
  }
  const RedistributionPlan plan = classify(from, to);
  EXPECT_EQ(plan.kind, Redistribution::all_to_all);
  EXPECT_EQ(
      plan.groups,
      (Groups{CollectiveGroup{.members = devices(0, 2), .root = DeviceId{0}, .box = heads(0, 4)},
              CollectiveGroup{.members = devices(2, 4), .root = DeviceId{2}, .box = heads(4, 8)}}));
}

TEST(Redistribute, PermutingTheSamePartsIsACopy) {
  const Layout from = whole({piece(0, heads(0, 4)), piece(1, heads(4, 8))});
  const Layout to = whole({piece(1, heads(0, 4)), piece(0, heads(4, 8))});
  EXPECT_EQ(classify(from, to).kind, Redistribution::copy);
}

TEST(Redistribute, ReplicatedPartsAreCopied) {
  // Grouped-query heads held twice each: no standard collective gathers them.
  const Layout from = whole(
      {piece(0, heads(0, 4)), piece(1, heads(0, 4)), piece(2, heads(4, 8)), piece(3, heads(4, 8))});
  EXPECT_EQ(classify(from, replicated(devices(0, 4))).kind, Redistribution::copy);
}

TEST(Redistribute, FromStageToStageItIsACopy) {
  EXPECT_EQ(classify(replicated(devices(0, 4)), replicated(devices(4, 8))).kind,
            Redistribution::copy);
  EXPECT_EQ(classify(head_parts(0, 4), head_parts(4, 4)).kind, Redistribution::copy);
}

TEST(Redistribute, OverlappingPartsAreNoCollective) {
  const Layout overlapping = whole({piece(0, heads(0, 5)), piece(1, heads(3, 8))});
  EXPECT_EQ(classify(overlapping, replicated(devices(0, 2))).kind, Redistribution::copy);
  EXPECT_EQ(classify(sums({}, 0, 2), overlapping).kind, Redistribution::copy);
}

TEST(Redistribute, PartialsOfOverlappingBoxesAreNotReducedBoxByBox) {
  // Terms 0 and 1 of all heads on devices 0 and 1, terms 2 and 3 of each half on two more: the
  // whole of a half needs terms from all.
  Layout from = sums({}, 0, 2);
  for (std::uint32_t i = 0; i < 4; ++i) {
    from.pieces.push_back(piece(2 + i, heads(4 * (i / 2), 4 * (i / 2) + 4),
                                {.dim = Range::of(2 + i % 2, 3 + i % 2)}));
  }
  const Layout to =
      joined(joined(replicated(devices(0, 2)), replicated(devices(2, 4), heads(0, 4))),
             replicated(devices(4, 6), heads(4, 8)));
  EXPECT_EQ(classify(from, to).kind, Redistribution::copy);
}

TEST(Redistribute, AGatherThatNeedsAPartFromAnotherGroupIsACopy) {
  // Heads [5, 6) of the first group's result lie with the second group only.
  const Layout from = whole(
      {piece(0, heads(0, 3)), piece(1, heads(3, 5)), piece(2, heads(5, 7)), piece(3, heads(7, 8))});
  const Layout to =
      joined(replicated(devices(0, 2), heads(0, 6)), replicated(devices(2, 4), heads(5, 8)));
  EXPECT_EQ(classify(from, to).kind, Redistribution::copy);
}

TEST(Redistribute, OnOneDeviceNothingIsACollective) {
  const Layout all = whole({piece(0, {})});
  EXPECT_EQ(classify(all, all).kind, Redistribution::none);
  EXPECT_EQ(classify(all, whole({piece(0, heads(0, 4)), piece(0, heads(4, 8))})).kind,
            Redistribution::slice);
}

}  // namespace
}  // namespace weir
