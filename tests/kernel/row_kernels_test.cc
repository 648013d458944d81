#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "kernel/kernel.h"
#include "tests/kernel/fixtures.h"
#include "tests/kernel/tolerance.h"

namespace weir::kernel {
namespace {

constexpr Activation kActivations[] = {Activation::silu, Activation::gelu_erf,
                                       Activation::gelu_tanh};

TEST(RmsNorm, MatchesTheReferenceAndWorksInPlace) {
  on_every_target([] {
    Team team(2);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      const std::int64_t cols = random.integer(1, 300);
      OwnedMatrix x(random.integer(0, 9), cols, random.integer(0, 3));
      x.randomise(random);
      std::vector<float> weight(static_cast<std::size_t>(cols));
      for (float& value : weight) value = random_value(random);
      OwnedMatrix expected = x;
      reference::rms_norm(x.const_view(), {.weight = weight}, expected.view());
      rms_norm(team, x.const_view(), {.weight = weight}, x.view());
      // A value is at most sqrt(cols) times the root of the mean of squares.
      expect_near(x, expected,
                  (kFunctionUnits + std::sqrt(static_cast<double>(cols))) *
                      unit_roundoff(DType::f32) * std::sqrt(static_cast<double>(cols)));
    }
  });
}

TEST(Rope, MatchesTheReferenceAtPositionsOfMillions) {
  on_every_target([] {
    Team team(2);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      const std::int64_t pairs = random.integer(1, 40);
      const std::int64_t head_dim = 2 * pairs + random.integer(0, 9);
      const std::int64_t heads = random.integer(1, 4);
      std::vector<double> frequency(static_cast<std::size_t>(pairs));
      for (std::size_t i = 0; i < frequency.size(); ++i) {
        frequency[i] = std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(pairs));
      }
      OwnedMatrix x(random.integer(1, 9), heads * head_dim, random.integer(0, 3));
      x.randomise(random);
      std::vector<std::int64_t> positions(static_cast<std::size_t>(x.rows));
      for (std::int64_t& position : positions) position = random.integer(0, 5'000'000);
      const Rope how{
          .inverse_frequency = frequency, .scale = 1.25, .num_heads = heads, .head_dim = head_dim};
      OwnedMatrix expected = x;
      reference::rope(expected.view(), positions, how);
      rope(team, x.view(), positions, how);
      expect_near(x, expected, kFunctionUnits * unit_roundoff(DType::f32) * 1.25);
    }
  });
}

// From the far negative tail, through both sides of zero, to where activations are the identity.
OwnedMatrix activation_inputs() {
  OwnedMatrix x(1, 20003, 1);
  for (std::int64_t i = 0; i < x.cols; ++i) {
    x.at(0, i) = static_cast<float>(i - 10000) * 0.0125F;
  }
  return x;
}

TEST(Activations, MatchTheReferenceFromTailToTail) {
  on_every_target([] {
    Team team(1);
    for (const Activation which : kActivations) {
      const OwnedMatrix x = activation_inputs();
      OwnedMatrix expected = x;
      OwnedMatrix actual = x;
      reference::activation(which, x.const_view(), expected.view());
      activation(team, which, actual.const_view(), actual.view());
      for (std::int64_t i = 0; i < x.cols; ++i) {
        // The exponent of the tail grows as x^2, and its rounding is a relative error of the
        // result; below the least normal number results are flushed to zero.
        const double x_i = x.values[static_cast<std::size_t>(i)];
        const double units = kFunctionUnits + 4 * x_i * x_i;
        const double tolerance = units * unit_roundoff(DType::f32) * std::abs(expected.at(0, i)) +
                                 std::numeric_limits<float>::min() * (1 + std::abs(x_i));
        ASSERT_NEAR(actual.at(0, i), expected.at(0, i), tolerance)
            << "activation " << static_cast<int>(which) << " at " << x_i;
      }
    }
  });
}

TEST(Activations, GatedMatchesTheReferenceAndMayOverwriteEitherInput) {
  on_every_target([] {
    Team team(2);
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      const Activation which = kActivations[random.integer(0, 2)];
      OwnedMatrix gate(random.integer(0, 7), random.integer(1, 100), 3);
      OwnedMatrix up = gate;
      gate.randomise(random, 4);
      up.randomise(random, 4);
      OwnedMatrix expected(gate.rows, gate.cols, 3);
      reference::gated_activation(which, gate.const_view(), up.const_view(), expected.view());
      OwnedMatrix over_gate = gate;
      gated_activation(team, which, over_gate.const_view(), up.const_view(), over_gate.view());
      OwnedMatrix over_up = up;
      gated_activation(team, which, gate.const_view(), over_up.const_view(), over_up.view());
      const double tolerance = kFunctionUnits * unit_roundoff(DType::f32) * 16;
      expect_near(over_gate, expected, tolerance);
      expect_near(over_up, expected, tolerance);
    }
  });
}

TEST(Add, IsExact) {
  on_every_target([] {
    Team team(2);
    Random random(1);
    OwnedMatrix x(11, 77, 2);
    OwnedMatrix out(11, 77, 2);
    x.randomise(random);
    out.randomise(random);
    OwnedMatrix expected = out;
    reference::add(x.const_view(), expected.view());
    add(team, x.const_view(), out.view());
    EXPECT_EQ(out.values, expected.values);
  });
}

// Of rows that follow each other, and of rows that lie apart; small ones, and one that a team
// shares.
TEST(Sum, IsExactInTheOrderOfItsTermsAndMayOverwriteOne) {
  on_every_target([] {
    Team team(2);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      const std::int64_t rows = random.integer(0, 9);
      const std::int64_t cols = seed == 0 ? 20'011 : random.integer(1, 300);
      std::vector<OwnedMatrix> terms;
      for (std::int64_t term = random.integer(1, 9); term > 0; --term) {
        terms.emplace_back(rows, cols, random.integer(0, 1) * 3).randomise(random);
      }
      std::vector<ConstMatrix> views;
      for (const OwnedMatrix& term : terms) views.push_back(term.const_view());
      OwnedMatrix expected = terms.back();
      reference::sum(views, expected.view());
      sum(team, views, terms.back().view());
      EXPECT_EQ(terms.back().values, expected.values);
    }
  });
}

TEST(Copy, FillsItsRowsAndNothingBetweenThem) {
  Team team(2);
  Random random(1);
  for (const std::int64_t cols : {3, 70'001}) {
    for (const std::int64_t apart : {0, 2}) {
      OwnedMatrix x(3, cols, 0);
      x.randomise(random);
      OwnedMatrix out(3, cols, apart);
      OwnedMatrix expected = out;
      reference::sum(std::vector{x.const_view()}, expected.view());
      copy(team, x.const_view(), out.view());
      EXPECT_EQ(out.values, expected.values);
    }
  }
}

TEST(Embed, WidensRowsExactlyAndGivesZerosOutsideTheTable) {
  on_every_target([] {
    Team team(2);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      Random random(1);
      Stored table(dtype, 10 * 53);
      table.randomise(random);
      const EmbeddingTable view{
          .data = table.data(), .dtype = dtype, .first_row = 100, .rows = 10, .row_stride = 53};
      const std::vector<std::int64_t> ids = {100, 109, 99, 110, 0, 104, -1};
      OwnedMatrix expected(7, 51, 2);
      OwnedMatrix actual = expected;
      reference::embed(ids, view, expected.view());
      embed(team, ids, view, actual.view());
      EXPECT_EQ(actual.values, expected.values);
      EXPECT_EQ(actual.at(2, 0), 0.0F);
    }
  });
}

struct KvFixture {
  std::vector<float> source;
  std::vector<Stored> blocks;
  std::vector<void*> pointers;

  explicit KvFixture(DType dtype) {
    for (int block = 0; block < 3; ++block) blocks.emplace_back(dtype, 2 * (16 * 25 + 3));
    for (Stored& block : blocks) pointers.push_back(block.data());
  }
  [[nodiscard]] MutableKvBlocks view() {
    return {.blocks = pointers,
            .dtype = blocks[0].dtype(),
            .block_size = 16,
            .first_position = 32,
            .head_stride = 16 * 25 + 3,
            .position_stride = 25};
  }
};

TEST(WriteKv, RoundsAsTheReferenceDoesBitForBit) {
  on_every_target([] {
    Team team(2);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      Random random(1);
      OwnedMatrix source(20, 2 * 23, 5);
      source.randomise(random);
      // Ties, overflow, subnormals and signed zero of f16 and bf16.
      const std::vector<float> hard = {257.0F,  259.0F,  2049.0F,    65519.0F, 65520.0F, -1e30F,
                                       3e-6F,   -0.0F,   0x1p-25F,   3.4e38F,  1e-40F,   0x1.8p-25F,
                                       -2051.F, 6.1e-5F, kUntouched, 5e-8F};
      std::ranges::copy(hard, source.values.begin());
      const KvWrite write{.source = source.values.data(),
                          .source_row_stride = source.row_stride,
                          .rows = 20,
                          .num_heads = 2,
                          .head_dim = 23,
                          .first_position_of_rows = 32 + 9};
      KvFixture actual(dtype);
      KvFixture expected(dtype);
      write_kv(team, write, actual.view());
      reference::write_kv(write, expected.view());
      for (std::size_t block = 0; block < 3; ++block) {
        EXPECT_EQ(actual.blocks[block].bytes(), expected.blocks[block].bytes()) << to_string(dtype);
      }
    }
  });
}

TEST(WriteKv, KeepsNanANan) {
  on_every_target([] {
    Team team(1);
    for (const DType dtype : {DType::bf16, DType::f16}) {
      const std::vector<float> source(23, std::numeric_limits<float>::quiet_NaN());
      KvFixture written(dtype);
      write_kv(team,
               {.source = source.data(),
                .source_row_stride = 23,
                .rows = 1,
                .num_heads = 1,
                .head_dim = 23,
                .first_position_of_rows = 32},
               written.view());
      for (int d = 0; d < 23; ++d) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, written.blocks[0].data() + 2 * d, sizeof(bits));
        EXPECT_TRUE(std::isnan(dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits)));
      }
    }
  });
}

}  // namespace
}  // namespace weir::kernel
