// problems_of against counting every cell of small tensors.

#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "layout/layout.h"

namespace weir {
namespace {

constexpr int kRounds = 2000;

// Token, head, and the terms' dim: three axes that a random layout cuts; the others stay whole.
struct Extents {
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  std::int64_t terms = 0;
};

LayoutDomain domain_of(const Extents& extents, bool token_is_symbolic) {
  return {.box = {.request = Range::of(0, 1),
                  .token = token_is_symbolic ? Range::all() : Range::of(0, extents.tokens),
                  .head = Range::of(0, extents.heads)},
          .over = {.dim = Range::of(0, extents.terms)}};
}

// How often each cell of the tensor is held; false where a piece leaves it.
bool count_cells(const Layout& layout, const Extents& extents, std::int64_t token_extent,
                 std::vector<int>& counts) {
  counts.assign(static_cast<std::size_t>(extents.tokens * extents.heads * extents.terms), 0);
  for (const Piece& piece : layout.pieces) {
    const Interval tokens = resolve(piece.box.token, token_extent);
    const Interval heads = resolve(piece.box.head, 1000);
    const Interval terms = resolve(piece.over.dim, 1000);
    if (tokens.empty() || heads.empty() || terms.empty()) continue;
    if (tokens.end > extents.tokens || heads.end > extents.heads || terms.end > extents.terms)
      return false;
    for (std::int64_t t = tokens.begin; t < tokens.end; ++t) {
      for (std::int64_t h = heads.begin; h < heads.end; ++h) {
        for (std::int64_t k = terms.begin; k < terms.end; ++k)
          ++counts[static_cast<std::size_t>((t * extents.heads + h) * extents.terms + k)];
      }
    }
  }
  return true;
}

bool sound_by_counting(const Layout& layout, const Extents& extents, std::int64_t token_extent) {
  std::vector<int> counts;
  if (!count_cells(layout, extents, token_extent, counts)) return false;
  for (const int count : counts) {
    if (count == 0 || (count > 1 && layout.kind != LayoutKind::whole)) return false;
  }
  return true;
}

// Tiles of a domain, cut in two at random until they are small or chance says stop.
class RandomTiling {
 public:
  RandomTiling(Random& random, LayoutKind kind) : random_(random), kind_(kind) {}

  Layout of(const LayoutDomain& domain) {
    layout_ = {.kind = kind_, .pieces = {}};
    cut(domain.box, kind_ == LayoutKind::whole ? Box{} : domain.over, 4);
    return layout_;
  }

 private:
  void cut(const Box& box, const Box& over, int depth) {
    const auto axis = random_.integer(0, kind_ == LayoutKind::whole ? 1 : 2);
    Box first_box = box;
    Box second_box = box;
    Box first_over = over;
    Box second_over = over;
    Range& first = axis == 0 ? first_box.token : axis == 1 ? first_box.head : first_over.dim;
    Range& second = axis == 0 ? second_box.token : axis == 1 ? second_box.head : second_over.dim;
    const std::int64_t begin = first.begin.offset;
    const std::int64_t end = first.end.offset;
    if (depth == 0 || end - begin < 2 || random_.integer(0, 5) == 0) {
      layout_.pieces.push_back(
          {.device = DeviceId{static_cast<std::uint32_t>(random_.integer(0, 3))},
           .box = box,
           .over = over});
      return;
    }
    first.end = second.begin = Bound::at(random_.integer(begin + 1, end - 1));
    cut(first_box, first_over, depth - 1);
    cut(second_box, second_over, depth - 1);
  }

  Random& random_;
  LayoutKind kind_;
  Layout layout_;
};

Extents random_extents(Random& random, LayoutKind kind) {
  return {.tokens = random.integer(1, 6),
          .heads = random.integer(1, 5),
          .terms = kind == LayoutKind::whole ? 1 : random.integer(1, 4)};
}

// In a whole layout the terms are not looked at; one is enough to count by.
Layout with_one_term(Layout layout) {
  for (Piece& piece : layout.pieces) piece.over.dim = Range::of(0, 1);
  return layout;
}

class LayoutProperty : public ::testing::TestWithParam<LayoutKind> {};

TEST_P(LayoutProperty, EveryTilingIsSoundAndStopsBeingSoWithoutAnyOfItsPieces) {
  Random random(1);
  for (int round = 0; round < kRounds; ++round) {
    const Extents extents = random_extents(random, GetParam());
    const LayoutDomain domain = domain_of(extents, false);
    const Layout layout = RandomTiling(random, GetParam()).of(domain);
    ASSERT_TRUE(problems_of(layout, domain).empty()) << "round " << round;
    for (std::size_t i = 0; i < layout.pieces.size(); ++i) {
      Layout smaller = layout;
      smaller.pieces.erase(smaller.pieces.begin() + static_cast<std::ptrdiff_t>(i));
      ASSERT_FALSE(problems_of(smaller, domain).empty()) << "round " << round << " piece " << i;
    }
  }
}

TEST_P(LayoutProperty, APieceTwiceIsAReplicaOfWholesAndAnErrorOfPartials) {
  Random random(2);
  for (int round = 0; round < kRounds; ++round) {
    const Extents extents = random_extents(random, GetParam());
    const LayoutDomain domain = domain_of(extents, false);
    Layout layout = RandomTiling(random, GetParam()).of(domain);
    layout.pieces.push_back(layout.pieces[layout.pieces.size() / 2]);
    ASSERT_EQ(problems_of(layout, domain).empty(), GetParam() == LayoutKind::whole)
        << "round " << round;
  }
}

TEST_P(LayoutProperty, AgreesWithCountingAfterAPieceHasMoved) {
  Random random(3);
  int unsound = 0;
  for (int round = 0; round < kRounds; ++round) {
    const Extents extents = random_extents(random, GetParam());
    const LayoutDomain domain = domain_of(extents, false);
    Layout layout = RandomTiling(random, GetParam()).of(domain);
    for (std::int64_t moves = random.integer(1, 2); moves > 0; --moves) {
      Piece& piece = layout.pieces[static_cast<std::size_t>(
          random.integer(0, static_cast<std::int64_t>(layout.pieces.size()) - 1))];
      Range& range = random.integer(0, 1) == 0 ? piece.box.token : piece.box.head;
      const auto by = static_cast<std::int32_t>(random.integer(-1, 1));
      range.begin.offset = std::max(0, range.begin.offset + by);
      range.end.offset = std::max(0, range.end.offset + by);
    }
    const Layout counted = GetParam() == LayoutKind::whole ? with_one_term(layout) : layout;
    const bool sound = sound_by_counting(counted, extents, 1000);
    ASSERT_EQ(problems_of(layout, domain).empty(), sound) << "round " << round;
    unsound += sound ? 0 : 1;
  }
  EXPECT_GT(unsound, kRounds / 10);
}

// Token bounds that depend on the length: what is called sound is so for every length.
TEST_P(LayoutProperty, SymbolicLayoutsThatAreCalledSoundAreSoForEveryLength) {
  Random random(4);
  int sound = 0;
  for (int round = 0; round < kRounds; ++round) {
    Extents extents = random_extents(random, GetParam());
    const LayoutDomain domain = domain_of(extents, true);
    const auto parts = static_cast<std::int32_t>(random.integer(1, 4));
    std::vector<Bound> cuts = {Bound{}};
    for (std::int32_t i = 1; i < parts; ++i) cuts.push_back(Bound::block(i, parts));
    cuts.push_back(Bound::end());
    // Chance shifts a cut: sometimes for both neighbours, sometimes for one only.
    Layout layout = {.kind = GetParam(), .pieces = {}};
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      if (random.integer(0, 3) == 0) cuts[i + 1].offset += random.integer(0, 1) == 0 ? 1 : -1;
      Range token = {.begin = cuts[i], .end = cuts[i + 1]};
      if (random.integer(0, 7) == 0) token.begin.offset -= 1;
      layout.pieces.push_back(
          {.device = DeviceId{0},
           .box = {.request = domain.box.request, .token = token, .head = domain.box.head},
           .over = domain.over});
    }
    if (!problems_of(layout, domain).empty()) continue;
    ++sound;
    const Layout counted = GetParam() == LayoutKind::whole ? with_one_term(layout) : layout;
    for (extents.tokens = 0; extents.tokens <= 14; ++extents.tokens) {
      ASSERT_TRUE(sound_by_counting(counted, extents, extents.tokens))
          << "round " << round << " length " << extents.tokens;
    }
  }
  EXPECT_GT(sound, kRounds / 10);
}

INSTANTIATE_TEST_SUITE_P(Kinds, LayoutProperty,
                         ::testing::Values(LayoutKind::whole, LayoutKind::sum, LayoutKind::softmax),
                         [](const auto& kind) { return std::string(to_string(kind.param)); });

}  // namespace
}  // namespace weir
