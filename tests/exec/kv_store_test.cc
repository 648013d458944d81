#include "exec/kv_store.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "exec/executor.h"

namespace weir {
namespace {

constexpr KvStrip::Shape kShape = {
    .heads = {.begin = 2, .end = 4}, .dims = {.begin = 0, .end = 8}, .dtype = DType::f32};
constexpr std::int64_t kBlockBytes = 2 * kKvBlockSize * 8 * 4;

// Row r of the values written has the values r * 16, r * 16 + 1, ...
void write(KvStrip& strip, Interval positions) {
  Team team(1, {});
  std::vector<float> rows(static_cast<std::size_t>(positions.size() * 16));
  std::iota(rows.begin(), rows.end(), static_cast<float>(positions.begin * 16));
  strip.reserve(positions);
  kernel::write_kv(team,
                   {.source = rows.data(),
                    .source_row_stride = 16,
                    .rows = positions.size(),
                    .num_heads = 2,
                    .head_dim = 8,
                    .first_position_of_rows = positions.begin},
                   strip.mutable_keys(positions));
}
std::vector<float> read(const KvStrip& strip, Interval positions) {
  std::vector<float> rows(static_cast<std::size_t>(positions.size() * 16));
  kernel::read_kv(
      strip.keys(positions),
      {.first_position = positions.begin, .rows = positions.size(), .num_heads = 2, .head_dim = 8},
      rows.data(), 16);
  return rows;
}

TEST(KvStrip, KeepsWhatWasWrittenWhileItGrows) {
  KvStrip strip(kShape);
  write(strip, {.begin = 100, .end = 130});
  write(strip, {.begin = 130, .end = 131});
  write(strip, {.begin = 0, .end = 100});
  std::vector<float> expected(131 * 16);
  std::iota(expected.begin(), expected.end(), 0.0F);
  EXPECT_EQ(read(strip, {.begin = 0, .end = 131}), expected);
}

TEST(KvStrip, KnowsWhichPositionsItHolds) {
  KvStrip strip(kShape);
  strip.reserve({.begin = 10, .end = 20});
  strip.reserve({.begin = 30, .end = 40});
  EXPECT_TRUE(strip.holds({.begin = 12, .end = 20}));
  EXPECT_FALSE(strip.holds({.begin = 12, .end = 21}));
  EXPECT_FALSE(strip.holds({.begin = 15, .end = 35}));
  EXPECT_TRUE(strip.holds({.begin = 25, .end = 25}));
  strip.reserve({.begin = 20, .end = 30});
  EXPECT_TRUE(strip.holds({.begin = 10, .end = 40}));
}

TEST(KvStrip, TakesMemoryForTheBlocksThatItHolds) {
  KvStrip strip(kShape);
  EXPECT_EQ(strip.bytes(), 0);
  strip.reserve({.begin = 5, .end = 5});
  EXPECT_EQ(strip.bytes(), 0);
  strip.reserve({.begin = 10 * kKvBlockSize, .end = 10 * kKvBlockSize + 1});
  EXPECT_EQ(strip.bytes(), 2 * kBlockBytes);
  strip.reserve({.begin = 10 * kKvBlockSize - 1, .end = 11 * kKvBlockSize});
  EXPECT_EQ(strip.bytes(), 4 * kBlockBytes);
}

TEST(KvStore, FindsAStripThatHoldsAllThatIsWanted) {
  KvStore store;
  store.strip(SequenceId{7}, 1, kShape).reserve({.begin = 0, .end = 50});
  const auto find = [&](std::int32_t layer, Interval heads, Interval positions) {
    return store.find(SequenceId{7}, layer, heads, {.begin = 2, .end = 8}, positions) != nullptr;
  };
  EXPECT_TRUE(find(1, {.begin = 3, .end = 4}, {.begin = 0, .end = 50}));
  EXPECT_FALSE(find(0, {.begin = 3, .end = 4}, {.begin = 0, .end = 50}));
  EXPECT_FALSE(find(1, {.begin = 1, .end = 3}, {.begin = 0, .end = 50}));
  EXPECT_FALSE(find(1, {.begin = 3, .end = 4}, {.begin = 0, .end = 51}));
}

TEST(KvStore, KeepsStripsOfOtherHeadsApart) {
  KvStore store;
  KvStrip& strip = store.strip(SequenceId{7}, 1, kShape);
  EXPECT_EQ(&store.strip(SequenceId{7}, 1, kShape), &strip);
  KvStrip::Shape other = kShape;
  other.heads = {.begin = 0, .end = 4};
  EXPECT_NE(&store.strip(SequenceId{7}, 1, other), &strip);
}

TEST(KvStore, ReleasesAllLayersOfOneSequence) {
  KvStore store;
  for (const std::uint64_t sequence : {1U, 2U, 3U}) {
    for (const std::int32_t layer : {0, 1})
      store.strip(SequenceId{sequence}, layer, kShape).reserve({.begin = 0, .end = 1});
  }
  EXPECT_EQ(store.bytes(), 6 * 2 * kBlockBytes);
  store.release(SequenceId{2});
  EXPECT_EQ(store.bytes(), 4 * 2 * kBlockBytes);
  EXPECT_EQ(store.find(SequenceId{2}, 0, kShape.heads, kShape.dims, {.begin = 0, .end = 1}),
            nullptr);
  EXPECT_NE(store.find(SequenceId{3}, 1, kShape.heads, kShape.dims, {.begin = 0, .end = 1}),
            nullptr);
  store.release(SequenceId{2});
}

}  // namespace
}  // namespace weir
