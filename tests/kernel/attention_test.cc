#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "kernel/kernel.h"
#include "tests/kernel/fixtures.h"
#include "tests/kernel/tolerance.h"

namespace weir::kernel {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Keys or values of one request, in blocks that lie apart.
struct OwnedKv {
  std::vector<Stored> blocks;
  std::vector<const void*> pointers;
  KvBlocks view;

  OwnedKv(Random& random, DType dtype, std::int64_t positions, std::int64_t heads,
          std::int64_t dim) {
    view.dtype = dtype;
    view.block_size = random.integer(1, 5) * 16;
    view.position_stride = dim + random.integer(0, 1) * 3;
    view.head_stride = view.block_size * view.position_stride + random.integer(0, 5);
    for (std::int64_t at = 0; at < positions; at += view.block_size) {
      blocks.emplace_back(dtype, heads * view.head_stride);
      blocks.back().randomise(random);
    }
    for (const Stored& block : blocks) pointers.push_back(block.data());
    view.blocks = pointers;
  }
};

// A tile with memory for everything it points to.
struct OwnedTile {
  std::vector<float> q;
  std::vector<std::int64_t> kv_head_of;
  OwnedKv keys;
  OwnedKv values;
  std::vector<float> out;
  std::vector<float> lse;
  AttentionTile tile;

  struct Shape {
    std::int64_t queries = 0;
    std::int64_t keys = 0;
    std::int64_t kv_heads = 1;
    std::int64_t heads_per_kv_head = 1;
    std::int64_t key_dim = 0;
    std::int64_t value_dim = 0;
    DType dtype = DType::f32;
  };

  OwnedTile(Random& random, Shape shape)
      : keys(random, shape.dtype, shape.keys, shape.kv_heads, shape.key_dim),
        values(random, shape.dtype, shape.keys, shape.kv_heads, shape.value_dim) {
    const std::int64_t heads = shape.kv_heads * shape.heads_per_kv_head;
    for (std::int64_t head = 0; head < heads; ++head) kv_head_of.push_back(head % shape.kv_heads);
    tile.q_head_stride = shape.key_dim + 1;
    tile.q_row_stride = heads * tile.q_head_stride + 2;
    q.resize(static_cast<std::size_t>(shape.queries * tile.q_row_stride));
    for (float& value : q) value = random_value(random);
    tile.out_head_stride = shape.value_dim + 3;
    tile.out_row_stride = heads * tile.out_head_stride + 1;
    out.assign(static_cast<std::size_t>(shape.queries * tile.out_row_stride), kUntouched);
    tile.lse_row_stride = heads + 1;
    lse.assign(static_cast<std::size_t>(shape.queries * tile.lse_row_stride), kUntouched);
    tile.num_queries = shape.queries;
    tile.num_heads = heads;
    tile.key_dim = shape.key_dim;
    tile.value_dim = shape.value_dim;
    tile.key_end = shape.keys;
    tile.scale = 1.0F / std::sqrt(static_cast<float>(std::max<std::int64_t>(1, shape.key_dim)));
    point_to_own_memory();
  }
  OwnedTile(const OwnedTile&) = delete;
  OwnedTile& operator=(const OwnedTile&) = delete;

  void point_to_own_memory() {
    tile.q = q.data();
    tile.kv_head_of = kv_head_of;
    tile.keys = keys.view;
    tile.values = values.view;
    tile.out = out.data();
    tile.lse = lse.data();
  }

  // Moves all positions of the request by `offset`.
  void shift(std::int64_t offset) {
    tile.keys.first_position += offset;
    tile.values.first_position += offset;
    tile.first_query += offset;
    tile.key_begin += offset;
    tile.key_end += offset;
  }

  [[nodiscard]] AttentionSizes sizes() const {
    return {.key_dim = tile.key_dim,
            .num_keys = tile.key_end - tile.key_begin,
            .largest_product = std::abs(tile.scale),
            .largest_value = 1};
  }
};

void expect_attention_matches_the_reference(Team& team, OwnedTile& owned) {
  attention(team, {&owned.tile, 1});
  const std::vector<float> out = owned.out;
  const std::vector<float> lse = owned.lse;
  std::ranges::fill(owned.out, kUntouched);
  std::ranges::fill(owned.lse, kUntouched);
  reference::attention({&owned.tile, 1});
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSERT_NEAR(out[i], owned.out[i], attention_tolerance(owned.sizes())) << "out at " << i;
  }
  for (std::size_t i = 0; i < lse.size(); ++i) {
    if (owned.lse[i] == kMinusInfinity) {
      ASSERT_EQ(lse[i], kMinusInfinity) << "lse at " << i;
    } else {
      ASSERT_NEAR(lse[i], owned.lse[i], lse_tolerance(owned.sizes())) << "lse at " << i;
    }
  }
}

TEST(Attention, MatchesTheReferenceOnRandomTiles) {
  on_every_target([] {
    Team team(2);
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      const std::int64_t keys = random.integer(0, 200);
      OwnedTile owned(random, {.queries = random.integer(0, 50),
                               .keys = keys,
                               .kv_heads = random.integer(1, 3),
                               .heads_per_kv_head = random.integer(1, 4),
                               .key_dim = random.integer(1, 70),
                               .value_dim = random.integer(1, 70),
                               .dtype = random_dtype(random)});
      owned.tile.first_query = random.integer(0, std::max<std::int64_t>(0, keys));
      owned.tile.causal = random.integer(0, 2) > 0;
      if (random.integer(0, 1) == 1) owned.tile.window = random.integer(1, 60);
      if (random.integer(0, 1) == 1) owned.tile.key_begin = random.integer(0, keys);
      if (random.integer(0, 1) == 1) {
        owned.tile.key_end = random.integer(owned.tile.key_begin, keys);
      }
      owned.shift(random.integer(0, 1) * 100000);
      if (random.integer(0, 3) == 0) owned.tile.lse = nullptr;
      expect_attention_matches_the_reference(team, owned);
    }
  });
}

TEST(Attention, MatchesTheReferenceForEveryStrideClassOfHeadDimension) {
  on_every_target([] {
    Team team(1);
    Random random(5);
    for (const std::int64_t dim : {64, 80, 128, 192, 256, 512}) {
      SCOPED_TRACE(testing::Message() << "dim " << dim);
      OwnedTile block(random, {.queries = 20, .keys = 40, .key_dim = dim, .value_dim = dim});
      block.tile.first_query = 20;
      expect_attention_matches_the_reference(team, block);
      // Groups of rows of every size that are streamed together, and more than one group.
      for (const std::int64_t heads : {1, 2, 3, 4, 9}) {
        OwnedTile stream(random, {.queries = 1,
                                  .keys = 100,
                                  .heads_per_kv_head = heads,
                                  .key_dim = dim,
                                  .value_dim = dim,
                                  .dtype = random_dtype(random)});
        stream.tile.first_query = 99;
        expect_attention_matches_the_reference(team, stream);
      }
    }
  });
}

TEST(Attention, MatchesTheReferenceAcrossManyBlocksOfKeysAndRows) {
  on_every_target([] {
    Team team(2);
    Random random(6);
    OwnedTile owned(random, {.queries = 300,
                             .keys = 310,
                             .heads_per_kv_head = 2,
                             .key_dim = 16,
                             .value_dim = 24,
                             .dtype = DType::bf16});
    owned.tile.first_query = 10;
    expect_attention_matches_the_reference(team, owned);
    owned.tile.window = 37;
    expect_attention_matches_the_reference(team, owned);
    owned.tile.causal = false;
    owned.tile.window = std::numeric_limits<std::int64_t>::max();
    expect_attention_matches_the_reference(team, owned);
  });
}

TEST(Attention, MatchesTheReferenceWhenADecodeIsSplitOverKeys) {
  on_every_target([] {
    Team team(3);
    Random random(7);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      OwnedTile owned(random, {.queries = 2,
                               .keys = 3000,
                               .heads_per_kv_head = 3,
                               .key_dim = 32,
                               .value_dim = 40,
                               .dtype = dtype});
      owned.tile.first_query = 2990;
      expect_attention_matches_the_reference(team, owned);
    }
  });
}

// Eight KV heads lie in one job over many ranges of keys; with 100 keys they are divided instead.
TEST(Attention, MatchesTheReferenceWhenADecodeOfManyHeadsIsCut) {
  on_every_target([] {
    Team team(3);
    Random random(13);
    for (const std::int64_t keys : {100, 2100}) {
      SCOPED_TRACE(testing::Message() << keys << " keys");
      OwnedTile owned(random, {.queries = 1,
                               .keys = keys,
                               .kv_heads = 8,
                               .heads_per_kv_head = 5,
                               .key_dim = 64,
                               .value_dim = 64,
                               .dtype = DType::bf16});
      owned.tile.first_query = keys - 1;
      expect_attention_matches_the_reference(team, owned);
    }
  });
}

TEST(Attention, MatchesTheReferenceForFewQueriesOfManyHeadsThatShareKeys) {
  on_every_target([] {
    Team team(2);
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      const std::int64_t queries = random.integer(1, 3);
      const std::int64_t keys = random.integer(1, 300);
      OwnedTile owned(random, {.queries = queries,
                               .keys = keys,
                               .kv_heads = random.integer(1, 3),
                               .heads_per_kv_head = random.integer(5, 16) / queries,
                               .key_dim = random.integer(1, 4) * 32,
                               .value_dim = random.integer(1, 4) * 32,
                               .dtype = random.integer(0, 2) > 0 ? DType::bf16 : DType::f16});
      owned.tile.first_query = std::max<std::int64_t>(0, keys - random.integer(0, 40));
      if (random.integer(0, 2) == 0) owned.tile.window = random.integer(1, 90);
      if (random.integer(0, 2) == 0) owned.tile.key_begin = random.integer(0, keys);
      owned.shift(random.integer(0, 1) * 100000);
      expect_attention_matches_the_reference(team, owned);
    }
  });
}

TEST(Attention, SharesTheTeamBetweenTilesOfABatch) {
  Team team(2);
  Random random(8);
  OwnedTile first(random, {.queries = 1, .keys = 500, .key_dim = 16, .value_dim = 16});
  OwnedTile second(random,
                   {.queries = 90, .keys = 90, .kv_heads = 2, .key_dim = 8, .value_dim = 8});
  OwnedTile none(random, {.queries = 0, .keys = 0, .key_dim = 8, .value_dim = 8});
  first.tile.first_query = 499;
  const std::vector<AttentionTile> both = {first.tile, second.tile, none.tile};
  attention(team, both);
  const std::vector<float> first_out = first.out;
  const std::vector<float> second_out = second.out;
  reference::attention(both);
  for (std::size_t i = 0; i < first_out.size(); ++i) {
    ASSERT_NEAR(first_out[i], first.out[i], attention_tolerance(first.sizes()));
  }
  for (std::size_t i = 0; i < second_out.size(); ++i) {
    ASSERT_NEAR(second_out[i], second.out[i], attention_tolerance(second.sizes()));
  }
}

TEST(Attention, GivesZerosAndMinusInfinityToAQueryThatSeesNothing) {
  on_every_target([] {
    Team team(1);
    for (const std::int64_t queries : {1, 40}) {
      Random random(9);
      OwnedTile owned(random, {.queries = queries, .keys = 64, .key_dim = 8, .value_dim = 8});
      owned.tile.first_query = 10;
      owned.tile.key_begin = 12;  // Queries at 10 and 11 see nothing.
      attention(team, {&owned.tile, 1});
      EXPECT_EQ(owned.lse[0], kMinusInfinity);
      for (std::size_t d = 0; d < 8; ++d) EXPECT_EQ(owned.out[d], 0.0F);
    }
  });
}

TEST(Attention, SurvivesScoresFarBeyondTheRangeOfExp) {
  on_every_target([] {
    Team team(1);
    for (const std::int64_t queries : {1, 40}) {
      Random random(10);
      OwnedTile owned(random, {.queries = queries, .keys = 50, .key_dim = 16, .value_dim = 16});
      owned.tile.first_query = 40;
      owned.tile.scale = 1000;
      expect_attention_matches_the_reference(team, owned);
    }
  });
}

TEST(Attention, LetsNanThrough) {
  on_every_target([] {
    Team team(1);
    for (const std::int64_t queries : {1, 40}) {
      Random random(11);
      OwnedTile owned(random, {.queries = queries, .keys = 50, .key_dim = 16, .value_dim = 16});
      owned.tile.causal = false;
      owned.keys.blocks[0].set(3, std::numeric_limits<float>::quiet_NaN());
      attention(team, {&owned.tile, 1});
      EXPECT_TRUE(std::isnan(owned.out[0]));
      EXPECT_TRUE(std::isnan(owned.lse[0]));
    }
  });
}

TEST(Attention, GivesTheSameBitsOnEveryCall) {
  Team team(3);
  Random random(12);
  OwnedTile owned(
      random, {.queries = 5, .keys = 2000, .heads_per_kv_head = 2, .key_dim = 32, .value_dim = 32});
  owned.tile.first_query = 1990;
  attention(team, {&owned.tile, 1});
  const std::vector<float> first = owned.out;
  for (int call = 0; call < 5; ++call) {
    std::ranges::fill(owned.out, kUntouched);
    attention(team, {&owned.tile, 1});
    ASSERT_EQ(owned.out, first);
  }
}

// Attention of the same queries over [begin, end) only, with contiguous outputs.
struct Partial {
  std::vector<float> out;
  std::vector<float> lse;
};

Partial attend_range(Team& team, const OwnedTile& owned, std::int64_t begin, std::int64_t end) {
  AttentionTile tile = owned.tile;
  Partial partial;
  partial.out.resize(static_cast<std::size_t>(tile.num_queries * tile.num_heads * tile.value_dim));
  partial.lse.resize(static_cast<std::size_t>(tile.num_queries * tile.num_heads));
  tile.key_begin = begin;
  tile.key_end = end;
  tile.out = partial.out.data();
  tile.out_head_stride = tile.value_dim;
  tile.out_row_stride = tile.num_heads * tile.value_dim;
  tile.lse = partial.lse.data();
  tile.lse_row_stride = tile.num_heads;
  attention(team, {&tile, 1});
  return partial;
}

TEST(MergePartial, OfSplitKeysEqualsWholeAttention) {
  on_every_target([] {
    Team team(2);
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      OwnedTile owned(random, {.queries = random.integer(1, 40),
                               .keys = 150,
                               .kv_heads = 2,
                               .heads_per_kv_head = 2,
                               .key_dim = 20,
                               .value_dim = 37});
      owned.tile.first_query = random.integer(0, 120);
      const AttentionTile& tile = owned.tile;
      const Partial whole = attend_range(team, owned, 0, 150);
      Partial merged = attend_range(team, owned, 0, random.integer(0, 50));
      const std::int64_t row = tile.num_heads * tile.value_dim;
      // Later parts lie beyond some queries' positions: their lse is -inf.
      for (std::int64_t begin = 0; begin < 150;) {
        const std::int64_t end = begin + random.integer(1, 100);
        Partial part = attend_range(team, owned, begin, std::min<std::int64_t>(150, end));
        if (begin == 0) {
          merged = part;
        } else {
          merge_partial(
              team,
              {.rows = tile.num_queries, .num_heads = tile.num_heads, .head_dim = tile.value_dim},
              {.out = merged.out.data(),
               .row_stride = row,
               .lse = merged.lse.data(),
               .lse_row_stride = tile.num_heads},
              {.out = part.out.data(),
               .row_stride = row,
               .lse = part.lse.data(),
               .lse_row_stride = tile.num_heads});
        }
        begin = end;
      }
      for (std::size_t i = 0; i < whole.out.size(); ++i) {
        ASSERT_NEAR(merged.out[i], whole.out[i], attention_tolerance(owned.sizes()));
      }
      for (std::size_t i = 0; i < whole.lse.size(); ++i) {
        ASSERT_NEAR(merged.lse[i], whole.lse[i], lse_tolerance(owned.sizes()));
      }
    }
  });
}

TEST(MergePartial, MatchesTheReferenceWithEmptyRangesOnEitherSide) {
  on_every_target([] {
    Team team(2);
    Random random(1);
    constexpr std::int64_t kRows = 9;
    constexpr std::int64_t kHeads = 3;
    constexpr std::int64_t kDim = 21;
    OwnedMatrix out(kRows, kHeads * kDim, 2);
    OwnedMatrix lse(kRows, kHeads, 1);
    OwnedMatrix other(kRows, kHeads * kDim, 4);
    OwnedMatrix other_lse(kRows, kHeads, 3);
    for (OwnedMatrix* matrix : {&out, &lse, &other, &other_lse}) matrix->randomise(random, 3);
    lse.at(0, 0) = kMinusInfinity;
    other_lse.at(1, 1) = kMinusInfinity;
    lse.at(2, 2) = other_lse.at(2, 2) = kMinusInfinity;
    OwnedMatrix expected_out = out;
    OwnedMatrix expected_lse = lse;
    const PartialShape shape{.rows = kRows, .num_heads = kHeads, .head_dim = kDim};
    const ConstPartialAttention from{other.values.data(), other.row_stride, other_lse.values.data(),
                                     other_lse.row_stride};
    merge_partial(team, shape,
                  {out.values.data(), out.row_stride, lse.values.data(), lse.row_stride}, from);
    reference::merge_partial(shape,
                             {expected_out.values.data(), expected_out.row_stride,
                              expected_lse.values.data(), expected_lse.row_stride},
                             from);
    const double tolerance = kFunctionUnits * unit_roundoff(DType::f32) * 3;
    expect_near(out, expected_out, tolerance);
    EXPECT_EQ(lse.at(2, 2), kMinusInfinity);
    lse.at(2, 2) = expected_lse.at(2, 2) = 0;  // Infinities have no distance.
    expect_near(lse, expected_lse, tolerance);
  });
}

}  // namespace
}  // namespace weir::kernel
