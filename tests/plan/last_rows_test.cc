#include "plan/last_rows.h"

#include <gtest/gtest.h>

#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

Layout by_token(std::uint32_t devices) {
  Layout layout;
  for (std::uint32_t i = 0; i < devices; ++i)
    layout.pieces.push_back(
        {.device = DeviceId{i}, .box = {.token = Range::block(i, devices)}, .over = {}});
  return layout;
}

// Device i attends with its part of the tokens to the keys of device i + shift.
AttentionRound ring_round(std::uint32_t devices, std::uint32_t shift) {
  AttentionRound round = {.k_cache = {},
                          .v_cache = {},
                          .attention = {.kind = LayoutKind::softmax, .pieces = {}},
                          .scores = {},
                          .scores_complete = {}};
  for (std::uint32_t i = 0; i < devices; ++i) {
    const Range keys = Range::block((i + shift) % devices, devices);
    round.k_cache.pieces.push_back({.device = DeviceId{i}, .box = {.token = keys}, .over = {}});
    Piece tile = by_token(devices).pieces[i];
    tile.over.token = keys;
    round.attention.pieces.push_back(tile);
  }
  round.v_cache = round.k_cache;
  return round;
}

TEST(LastRows, WhatIsNotCutByTokensStaysAsItIs) {
  const LayerLayouts layer = tensor_parallel_layer(tiny_model(), device_range(0, 4));
  EXPECT_EQ(last_rows_of(layer), layer);
}

TEST(LastRows, TheFirstOfThePiecesThatDifferInTokensTakesTheRow) {
  LayerLayouts layer = tensor_parallel_layer(tiny_model(), device_range(0, 2));
  layer.q = layer.attention = layer.attention_out = layer.ffn_hidden = layer.residual = by_token(2);
  layer.rounds[0].attention = by_token(2);
  const LayerLayouts last = last_rows_of(layer);
  const Layout on_the_first = {.kind = LayoutKind::whole,
                               .pieces = {{.device = DeviceId{0}, .box = {}, .over = {}}}};
  EXPECT_EQ(last.q, on_the_first);
  EXPECT_EQ(last.attention, on_the_first);
  EXPECT_EQ(last.attention_out, on_the_first);
  EXPECT_EQ(last.ffn_hidden, on_the_first);
  EXPECT_EQ(last.residual, on_the_first);
  ASSERT_EQ(last.rounds.size(), 1U);
  EXPECT_EQ(last.rounds[0].attention, on_the_first);
  // K and V are of all tokens.
  EXPECT_EQ(last.kv, layer.kv);
  EXPECT_EQ(last.k_cache, layer.k_cache);
  EXPECT_EQ(last.rounds[0].k_cache, layer.rounds[0].k_cache);
}

TEST(LastRows, AResidualThatIsCutIsWhereTheFfnIs) {
  LayerLayouts layer = tensor_parallel_layer(tiny_model(), device_range(0, 3));
  layer.residual = by_token(3);
  EXPECT_EQ(last_rows_of(layer).residual, replicated(device_range(0, 3)));
}

TEST(LastRows, ARingHasAllKeysInItsFirstRound) {
  LayerLayouts layer = tensor_parallel_layer(tiny_model(), device_range(0, 3));
  layer.rounds = {ring_round(3, 0), ring_round(3, 1), ring_round(3, 2)};
  // A device without keys attends to nothing, in each round to another nothing.
  layer.rounds[0].attention.pieces[1].over.token = Range::of(0, 0);
  layer.rounds[2].attention.pieces[2].over.token = Range::of(2, 2);
  const LayerLayouts last = last_rows_of(layer);
  ASSERT_EQ(last.rounds.size(), 2U);
  ASSERT_EQ(last.rounds[0].attention.pieces.size(), 2U);
  for (const Piece& tile : last.rounds[0].attention.pieces) {
    EXPECT_EQ(tile.box.token, Range::all());
    EXPECT_EQ(tile.over.token, Range::block(index_of(tile.device), 3));
  }
  // What the first had not is made up for by the first round that has it.
  ASSERT_EQ(last.rounds[1].attention.pieces.size(), 1U);
  EXPECT_EQ(last.rounds[1].attention.pieces[0].device, DeviceId{0});
  EXPECT_EQ(last.rounds[1].attention.pieces[0].over.token, Range::block(1, 3));
}

}  // namespace
}  // namespace weir
