#include "exec/kv_store.h"

#include <numeric>
#include <span>
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
                   strip.mutable_blocks(positions));
}
std::vector<float> read(const KvStrip& strip, Interval positions) {
  std::vector<float> rows(static_cast<std::size_t>(positions.size() * 16));
  kernel::read_kv(
      strip.blocks(positions),
      {.first_position = positions.begin, .rows = positions.size(), .num_heads = 2, .head_dim = 8},
      rows.data(), 16);
  return rows;
}

TEST(KvStrip, KeepsWhatWasWrittenWhileItGrows) {
  KvMemory memory;
  KvStrip strip(kShape, memory);
  write(strip, {.begin = 100, .end = 130});
  write(strip, {.begin = 130, .end = 131});
  write(strip, {.begin = 0, .end = 100});
  std::vector<float> expected(131 * 16);
  std::iota(expected.begin(), expected.end(), 0.0F);
  EXPECT_EQ(read(strip, {.begin = 0, .end = 131}), expected);
}

TEST(KvStrip, KnowsWhichPositionsItHolds) {
  KvMemory memory;
  KvStrip strip(kShape, memory);
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
  KvMemory memory;
  KvStrip strip(kShape, memory);
  EXPECT_EQ(strip.bytes(), 0);
  strip.reserve({.begin = 5, .end = 5});
  EXPECT_EQ(strip.bytes(), 0);
  strip.reserve({.begin = 10 * kKvBlockSize, .end = 10 * kKvBlockSize + 1});
  EXPECT_EQ(strip.bytes(), kBlockBytes);
  strip.reserve({.begin = 10 * kKvBlockSize - 1, .end = 11 * kKvBlockSize});
  EXPECT_EQ(strip.bytes(), 2 * kBlockBytes);
}

constexpr KvKey kKey = {.sequence = SequenceId{7}, .layer = 1, .tensor = KvTensor::keys};

TEST(KvStore, FindsAStripThatHoldsAllThatIsWanted) {
  KvStore store;
  store.strip(kKey, kShape).reserve({.begin = 0, .end = 50});
  const auto finds = [&](KvKey key, Interval heads, std::int64_t end) {
    return store.find(key, {.heads = heads,
                            .dims = {.begin = 2, .end = 8},
                            .positions = {.begin = 0, .end = end}}) != nullptr;
  };
  EXPECT_TRUE(finds(kKey, {.begin = 3, .end = 4}, 50));
  EXPECT_FALSE(finds(kKey, {.begin = 1, .end = 3}, 50));
  EXPECT_FALSE(finds(kKey, {.begin = 3, .end = 4}, 51));
  KvKey other = kKey;
  other.layer = 0;
  EXPECT_FALSE(finds(other, {.begin = 3, .end = 4}, 50));
  other = kKey;
  other.tensor = KvTensor::values;
  EXPECT_FALSE(finds(other, {.begin = 3, .end = 4}, 50));
}

TEST(KvStore, KeepsStripsOfOtherHeadsApart) {
  KvStore store;
  KvStrip& strip = store.strip(kKey, kShape);
  EXPECT_EQ(&store.strip(kKey, kShape), &strip);
  KvStrip::Shape other = kShape;
  other.heads = {.begin = 0, .end = 4};
  EXPECT_NE(&store.strip(kKey, other), &strip);
}

TEST(KvStore, DropsStripsOfShapesThatAreNoLongerKept) {
  KvStore store;
  KvStrip::Shape other = kShape;
  other.heads = {.begin = 4, .end = 6};
  store.strip(kKey, kShape).reserve({.begin = 0, .end = 1});
  store.strip(kKey, other).reserve({.begin = 0, .end = 200});
  store.keep_only(kKey, std::span(&kShape, 1));
  EXPECT_EQ(store.bytes(), kBlockBytes);
}

TEST(KvStore, ReleasesAllLayersOfOneSequence) {
  KvStore store;
  const auto key = [](std::uint64_t sequence, std::int32_t layer, KvTensor tensor) {
    return KvKey{.sequence = SequenceId{sequence}, .layer = layer, .tensor = tensor};
  };
  for (const std::uint64_t sequence : {1U, 2U, 3U}) {
    for (const std::int32_t layer : {0, 1}) {
      for (const KvTensor tensor : {KvTensor::keys, KvTensor::values})
        store.strip(key(sequence, layer, tensor), kShape).reserve({.begin = 0, .end = 1});
    }
  }
  EXPECT_EQ(store.bytes(), 12 * kBlockBytes);
  store.release(SequenceId{2});
  EXPECT_EQ(store.bytes(), 8 * kBlockBytes);
  const KvStore::Wanted wanted = {
      .heads = kShape.heads, .dims = kShape.dims, .positions = {.begin = 0, .end = 1}};
  EXPECT_EQ(store.find(key(2, 0, KvTensor::keys), wanted), nullptr);
  EXPECT_NE(store.find(key(3, 1, KvTensor::values), wanted), nullptr);
  store.release(SequenceId{2});
}

}  // namespace
}  // namespace weir
