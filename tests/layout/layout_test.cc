#include "layout/layout.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace weir {
namespace {

using Problems = std::vector<std::string>;

bool says_only(const Problems& problems, std::string_view text) {
  return problems.size() == 1 && problems.front().find(text) != std::string::npos;
}

// [2 requests, any q_len, 8 heads, 16 dims], contracted over [1, any length, 4 heads, 8 dims].
LayoutDomain domain() {
  return {.box = {.request = Range::of(0, 2), .head = Range::of(0, 8), .dim = Range::of(0, 16)},
          .over = {.request = Range::of(0, 1), .head = Range::of(0, 4), .dim = Range::of(0, 8)}};
}

Piece piece(std::uint32_t device, const Box& box, const Box& over = domain().over) {
  return {.device = DeviceId{device}, .box = box, .over = over};
}

Box box_of(Range token, Range head) {
  Box box = domain().box;
  box.token = token;
  box.head = head;
  return box;
}

Box over_keys(Range token) {
  Box over = domain().over;
  over.token = token;
  return over;
}

Layout whole(std::vector<Piece> pieces) {
  return {.kind = LayoutKind::whole, .pieces = std::move(pieces)};
}
Layout partial(LayoutKind kind, std::vector<Piece> pieces) {
  return {.kind = kind, .pieces = std::move(pieces)};
}

TEST(Layout, OnePieceOfEverythingIsSound) {
  EXPECT_EQ(problems_of(whole({piece(0, domain().box)}), domain()), Problems{});
  EXPECT_EQ(problems_of(partial(LayoutKind::sum, {piece(0, domain().box)}), domain()), Problems{});
}

TEST(Layout, NoPiecesAreAGap) {
  EXPECT_TRUE(says_only(problems_of(whole({}), domain()), "gap at"));
}

TEST(Layout, HeadsAndTokensInAGridAreSound) {
  Layout layout;
  for (std::uint32_t i = 0; i < 4; ++i) {
    for (std::uint32_t j = 0; j < 3; ++j) {
      layout.pieces.push_back(
          piece(i * 3 + j, box_of(Range::block(j, 3), Range::of(2 * i, 2 * i + 2))));
    }
  }
  EXPECT_EQ(problems_of(layout, domain()), Problems{});
  layout.pieces.erase(layout.pieces.begin() + 4);
  EXPECT_EQ(problems_of(layout, domain()),
            (Problems{"gap at request [0, 2) token [1/3, 2/3) head [2, 4) dim [0, 16)"}));
}

TEST(Layout, RequestsMayLieOnDifferentDevicesInDifferentCuts) {
  Box first = domain().box;
  first.request = Range::of(0, 1);
  Box second = box_of(Range::block(0, 2), Range::of(0, 8));
  second.request = Range::of(1, 2);
  Box third = box_of(Range::block(1, 2), Range::of(0, 8));
  third.request = Range::of(1, 2);
  EXPECT_EQ(problems_of(whole({piece(0, first), piece(1, second), piece(2, third)}), domain()),
            Problems{});
  EXPECT_EQ(problems_of(whole({piece(0, first), piece(1, second)}), domain()).size(), 1U);
}

TEST(Layout, AFixedNumberOfTokensThenTheRestIsSound) {
  const Range head = Range::of(0, 8);
  const Range rest = {.begin = Bound::at(4096), .end = Bound::end()};
  EXPECT_EQ(
      problems_of(whole({piece(0, box_of(Range::of(0, 4096), head)), piece(1, box_of(rest, head))}),
                  domain()),
      Problems{});
}

TEST(Layout, ReplicasAndOverlapsOfWholesAreAllowed) {
  const Layout replicas = whole({piece(0, domain().box), piece(1, domain().box)});
  EXPECT_EQ(problems_of(replicas, domain()), Problems{});
  const Layout overlapping = whole({piece(0, box_of(Range::all(), Range::of(0, 5))),
                                    piece(1, box_of(Range::all(), Range::of(3, 8)))});
  EXPECT_EQ(problems_of(overlapping, domain()), Problems{});
}

TEST(Layout, ReplicatedTermsAreCountedTwiceAndRefused) {
  const Layout layout = partial(LayoutKind::sum, {piece(0, domain().box), piece(1, domain().box)});
  EXPECT_TRUE(says_only(problems_of(layout, domain()), "2 pieces overlap at"));
}

TEST(Layout, PartialSumsTileBoxTimesTerms) {
  const auto over_heads = [](std::int64_t begin, std::int64_t end) {
    Box over = domain().over;
    over.head = Range::of(begin, end);
    return over;
  };
  const Layout sound = partial(LayoutKind::sum, {piece(0, domain().box, over_heads(0, 3)),
                                                 piece(1, domain().box, over_heads(3, 4))});
  EXPECT_EQ(problems_of(sound, domain()), Problems{});
  const Layout gap = partial(LayoutKind::sum, {piece(0, domain().box, over_heads(0, 2)),
                                               piece(1, domain().box, over_heads(3, 4))});
  EXPECT_TRUE(says_only(problems_of(gap, domain()), "over head [2, 3)"));
  const Layout overlap = partial(LayoutKind::sum, {piece(0, domain().box, over_heads(0, 3)),
                                                   piece(1, domain().box, over_heads(2, 4))});
  EXPECT_TRUE(says_only(problems_of(overlap, domain()), "over head [2, 3)"));
}

TEST(Layout, SoftmaxPartialsTileTheKeys) {
  const Layout blocks =
      partial(LayoutKind::softmax, {piece(0, domain().box, over_keys(Range::block(0, 3))),
                                    piece(1, domain().box, over_keys(Range::block(1, 3))),
                                    piece(2, domain().box, over_keys(Range::block(2, 3)))});
  EXPECT_EQ(problems_of(blocks, domain()), Problems{});
  const Range rest = {.begin = Bound::at(4096), .end = Bound::end()};
  const Layout spill =
      partial(LayoutKind::softmax, {piece(0, domain().box, over_keys(Range::of(0, 4096))),
                                    piece(1, domain().box, over_keys(rest))});
  EXPECT_EQ(problems_of(spill, domain()), Problems{});
  Layout twice = blocks;
  twice.pieces.push_back(piece(3, domain().box, over_keys(Range::block(1, 3))));
  EXPECT_EQ(problems_of(twice, domain()).size(), 1U);
}

TEST(Layout, APieceOutsideTheTensorIsNamed) {
  const Layout layout =
      whole({piece(0, domain().box), piece(7, box_of(Range::all(), Range::of(6, 10)))});
  EXPECT_EQ(problems_of(layout, domain()),
            (Problems{"piece 1 on device 7 leaves the tensor: head [6, 10) is not in [0, 8)"}));
}

TEST(Layout, BoundsWithoutAFixedOrderAreRefused) {
  const Range head = Range::of(0, 8);
  const Layout thirds_and_halves =
      whole({piece(0, box_of(Range::block(0, 2), head)), piece(1, box_of(Range::block(1, 2), head)),
             piece(2, box_of(Range::block(1, 3), head))});
  EXPECT_TRUE(says_only(problems_of(thirds_and_halves, domain()), "token: the order of bounds"));
}

TEST(Layout, EmptyPiecesDoNoHarm) {
  const Layout layout =
      whole({piece(0, domain().box), piece(1, box_of(Range::of(3, 3), Range::of(0, 8))),
             piece(2, box_of(Range::all(), Range::of(5, 2)))});
  EXPECT_EQ(problems_of(layout, domain()), Problems{});
  Layout terms = layout;
  terms.kind = LayoutKind::sum;
  EXPECT_EQ(problems_of(terms, domain()), Problems{});
}

TEST(Layout, ProblemsAreFew) {
  Layout layout;
  for (std::uint32_t i = 0; i < 2000; ++i)
    layout.pieces.push_back(piece(i, box_of(Range::all(), Range::of(i, i + 20))));
  EXPECT_EQ(problems_of(layout, domain()).size(), 8U);
}

TEST(Layout, ManyPiecesInAGridAreCheckedInOneGo) {
  // 4096 requests x heads x dims as partial sums over 8 slices: 32768 tiles of box and terms.
  const LayoutDomain large = {.box = {.request = Range::of(0, 64), .head = Range::of(0, 64)},
                              .over = {.dim = Range::of(0, 8)}};
  Layout layout = {.kind = LayoutKind::sum, .pieces = {}};
  for (std::uint32_t i = 0; i < 32768; ++i) {
    const std::int64_t request = i / 512;
    const std::int64_t head = i / 8 % 64;
    const std::int64_t slice = i % 8;
    layout.pieces.push_back(
        {.device = DeviceId{i},
         .box = {.request = Range::of(request, request + 1), .head = Range::of(head, head + 1)},
         .over = {.dim = Range::of(slice, slice + 1)}});
  }
  EXPECT_EQ(problems_of(layout, large), Problems{});
  layout.pieces.pop_back();
  EXPECT_EQ(problems_of(layout, large).size(), 1U);
}

// Thirds of one request's tokens and halves of another's: which comes first is no question.
TEST(Layout, BoundsOfDifferentRequestsNeedNoOrder) {
  const auto tokens_of = [](std::int64_t request, std::int64_t block, std::int64_t parts) {
    Box box = domain().box;
    box.request = Range::of(request, request + 1);
    box.token = Range::block(block, parts);
    return box;
  };
  std::vector<Piece> pieces;
  for (std::int64_t i = 0; i < 3; ++i) pieces.push_back(piece(0, tokens_of(0, i, 3)));
  for (std::int64_t i = 0; i < 5; ++i) pieces.push_back(piece(1, tokens_of(1, i, 5)));
  EXPECT_EQ(problems_of(whole(pieces), domain()), Problems{});
  pieces.pop_back();
  EXPECT_TRUE(says_only(problems_of(whole(pieces), domain()), "requests [1, 2): gap at"));
  pieces.push_back(piece(1, tokens_of(1, 1, 2)));
  EXPECT_TRUE(says_only(problems_of(whole(pieces), domain()), "depends on the length"));
}

TEST(Layout, DisorderIsGivenUpInsteadOfCheckedForHours) {
  // Two halves hold everything, and boxes that overlap in every axis cut it into some n^3 regions.
  const Range all = Range::of(0, 999);
  const LayoutDomain large = {.box = {.request = all, .token = all, .head = all, .dim = all},
                              .over = {}};
  Layout layout;
  for (const Range& half : {Range::of(0, 500), Range::of(500, 999)})
    layout.pieces.push_back(piece(0, {.request = all, .token = all, .head = all, .dim = half}));
  EXPECT_EQ(problems_of(layout, large), Problems{});
  for (std::uint32_t i = 1; i < 400; ++i) {
    const auto range = [&](std::uint32_t step) {
      return Range::of(i * step % 401, 999 - i * step * 7 % 397);
    };
    layout.pieces.push_back(
        piece(i, {.request = range(1), .token = range(3), .head = range(11), .dim = range(29)}));
  }
  EXPECT_TRUE(says_only(problems_of(layout, large), "too irregularly"));
}

TEST(Layout, DevicesAreListedOnceAscending) {
  const Layout layout = whole({piece(4, domain().box), piece(1, domain().box),
                               piece(4, box_of(Range::all(), Range::of(0, 1)))});
  EXPECT_EQ(devices_of(layout), (std::vector<DeviceId>{DeviceId{1}, DeviceId{4}}));
}

TEST(Layout, PartialPiecesOfOneDeviceAndBoxAreOneBuffer) {
  const Layout layout =
      partial(LayoutKind::softmax, {piece(0, domain().box, over_keys(Range::block(0, 4))),
                                    piece(1, domain().box, over_keys(Range::block(1, 4))),
                                    piece(0, domain().box, over_keys(Range::block(2, 4))),
                                    piece(1, domain().box, over_keys(Range::block(3, 4)))});
  EXPECT_EQ(buffers_of(layout),
            (std::vector<Buffer>{Buffer{.device = DeviceId{0}, .box = domain().box},
                                 Buffer{.device = DeviceId{1}, .box = domain().box}}));
}

TEST(Layout, EvenPartsDifferByOneAndLargerOnesComeFirst) {
  EXPECT_EQ(even_part(10, 0, 4), (Interval{.begin = 0, .end = 3}));
  EXPECT_EQ(even_part(10, 1, 4), (Interval{.begin = 3, .end = 6}));
  EXPECT_EQ(even_part(10, 3, 4), (Interval{.begin = 8, .end = 10}));
  EXPECT_TRUE(even_part(2, 3, 4).empty());
}

TEST(Layout, EqualLayoutsHashEqualAndOtherBoundsDiffer) {
  const Layout layout = whole({piece(0, box_of(Range::block(1, 3), Range::of(0, 8)))});
  Layout other = layout;
  EXPECT_EQ(hash_of(layout), hash_of(other));
  other.pieces.front().box.token = Range::block(2, 3);
  EXPECT_NE(hash_of(layout), hash_of(other));
  other = layout;
  other.kind = LayoutKind::sum;
  EXPECT_NE(hash_of(layout), hash_of(other));
}

}  // namespace
}  // namespace weir
