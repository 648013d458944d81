#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "kernel/kernel.h"
#include "tests/kernel/allocation_count.h"
#include "tests/kernel/fixtures.h"

namespace weir::kernel {
namespace {

TEST(SteadyState, KernelsAllocateNothingOnceTheyHaveSeenAShape) {
  Team team(2);
  Random random(1);
  OwnedMatrix x(600, 64, 0);
  x.randomise(random);
  OwnedMatrix y = x;
  Stored stored(DType::bf16, 64 * 64);
  stored.randomise(random);
  const PackedWeights weights(team, {.data = stored.data(),
                                     .dtype = DType::bf16,
                                     .out_features = 64,
                                     .in_features = 64,
                                     .row_stride = 64});
  const std::vector<float> ones(64, 1.0F);
  const std::vector<double> frequency(8, 0.5);
  const std::vector<std::int64_t> ids(600, 1);
  const std::vector<const void*> blocks = {x.values.data()};
  const std::vector<std::int64_t> kv_head_of = {0, 0, 1, 1};
  std::vector<float> lse(4 * 600);
  const KvBlocks kv{.blocks = blocks, .block_size = 600, .head_stride = 16, .position_stride = 64};
  AttentionTile tile{.q = x.values.data(),
                     .q_row_stride = 64,
                     .q_head_stride = 16,
                     .num_queries = 600,
                     .num_heads = 4,
                     .key_dim = 16,
                     .value_dim = 16,
                     .kv_head_of = kv_head_of,
                     .keys = kv,
                     .values = kv,
                     .key_end = 600,
                     .out = y.values.data(),
                     .out_row_stride = 64,
                     .out_head_stride = 16,
                     .lse = lse.data(),
                     .lse_row_stride = 4};
  AttentionTile decode = tile;
  decode.num_queries = 1;
  decode.first_query = 599;
  const auto everything = [&] {
    linear(team, x.const_view(), weights, ones, y.view());
    rms_norm(team, x.const_view(), {.weight = ones}, y.view());
    rope(team, y.view(), ids, {.inverse_frequency = frequency, .num_heads = 4, .head_dim = 16});
    gated_activation(team, Activation::silu, x.const_view(), x.const_view(), y.view());
    activation(team, Activation::gelu_erf, x.const_view(), y.view());
    add(team, x.const_view(), y.view());
    embed(team, ids, {.data = stored.data(), .dtype = DType::bf16, .rows = 64, .row_stride = 64},
          y.view());
    attention(team, {&tile, 1});
    attention(team, {&decode, 1});
    merge_partial(team, {.rows = 600, .num_heads = 4, .head_dim = 16},
                  {y.values.data(), 64, lse.data(), 4}, {x.values.data(), 64, lse.data(), 4});
  };
  // Tasks go to whichever worker is free, so a worker may meet its largest one late.
  for (int call = 0; call < 20; ++call) everything();
  const std::int64_t before = allocations_so_far();
  for (int call = 0; call < 5; ++call) everything();
  EXPECT_EQ(allocations_so_far(), before);
}

}  // namespace
}  // namespace weir::kernel
