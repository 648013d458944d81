#include "checkpoint/recall.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>

#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {
namespace {

using Vector = std::vector<double>;

struct Matrix {
  std::int64_t cols = 0;
  Vector values;

  [[nodiscard]] Vector row(std::int64_t index) const {
    const auto begin = values.begin() + index * cols;
    return {begin, begin + cols};
  }
  [[nodiscard]] Vector times(const Vector& x) const {
    Vector y;
    for (auto row = values.begin(); row != values.end(); row += cols) {
      y.push_back(std::inner_product(x.begin(), x.end(), row, 0.0));
    }
    return y;
  }
};

double value_at(const StoredWeight& weight, std::int64_t index) {
  if (weight.dtype == DType::f32) return static_cast<const float*>(weight.data)[index];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(weight.data)[index];
  return weight.dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

// The two heads of the circuit, computed densely in double from the weights as stored.
class RecallCircuit : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    const auto written = write_recall_model(folder_.file("recall"), GetParam(), {.seed = 3});
    ASSERT_TRUE(written) << written.error().message;
    auto checkpoint = Checkpoint::open(folder_.file("recall"), model_);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    checkpoint_.emplace(*std::move(checkpoint));
    frequency_ = rope_frequencies(model_.rope, model_.max_position).inverse_frequency;
    embedding_ = matrix(WeightKind::embedding, 0);
  }

  [[nodiscard]] Matrix matrix(WeightKind kind, std::int64_t layer) const {
    const StoredWeight weight = checkpoint_->weight(kind, layer);
    Matrix matrix{.cols = weight.cols, .values = {}};
    for (std::int64_t i = 0; i < weight.rows * weight.cols; ++i) {
      matrix.values.push_back(value_at(weight, i));
    }
    return matrix;
  }

  [[nodiscard]] Vector normalised(Vector x, WeightKind norm, std::int64_t layer) const {
    const Vector weight = matrix(norm, layer).values;
    const double mean_square =
        std::inner_product(x.begin(), x.end(), x.begin(), 0.0) / static_cast<double>(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] *= weight[i] / std::sqrt(mean_square + model_.rms_norm_eps);
    }
    return x;
  }

  // What layer `layer` adds to the residual stream of a token whose heads all attend to exactly one
  // token, whose residual stream is `attended`.
  [[nodiscard]] Vector fetched(const Matrix& v_proj, const Matrix& o_proj, const Vector& attended,
                               std::int64_t layer) const {
    const Vector v = v_proj.times(normalised(attended, WeightKind::attn_norm, layer));
    const std::int64_t group = model_.num_q_heads / model_.num_kv_heads;
    Vector heads;
    for (std::int64_t head = 0; head < model_.num_q_heads; ++head) {
      const auto first = v.begin() + head / group * model_.head_dim;
      heads.insert(heads.end(), first, first + model_.head_dim);
    }
    return o_proj.times(heads);
  }

  // Score contribution of every rotary pair at distance 0; a distance d turns pair i by
  // d * frequency[i].
  [[nodiscard]] std::vector<std::complex<double>> pairs(const Vector& q, const Vector& k,
                                                        std::int64_t q_head) const {
    const std::int64_t group = model_.num_q_heads / model_.num_kv_heads;
    const double* query = q.data() + q_head * model_.head_dim;
    const double* key = k.data() + q_head / group * model_.head_dim;
    const std::int64_t half = model_.head_dim / 2;
    std::vector<std::complex<double>> products;
    for (std::int64_t i = 0; i < half; ++i) {
      products.push_back(std::complex(query[i], query[i + half]) *
                         std::conj(std::complex(key[i], key[i + half])) /
                         std::sqrt(static_cast<double>(model_.head_dim)));
    }
    return products;
  }

  // How far every pair turns over a distance.
  [[nodiscard]] std::vector<std::complex<double>> turns(std::int64_t distance) const {
    std::vector<std::complex<double>> turns;
    for (const double frequency : frequency_) {
      turns.push_back(std::polar(1.0, static_cast<double>(distance) * frequency));
    }
    return turns;
  }

  [[nodiscard]] static double score(const std::vector<std::complex<double>>& products,
                                    const std::vector<std::complex<double>>& turns) {
    double sum = 0;
    for (std::size_t i = 0; i < products.size(); ++i) {
      sum += products[i].real() * turns[i].real() - products[i].imag() * turns[i].imag();
    }
    return sum;
  }

  TestFolder folder_;
  ModelSpec model_ = recall_model(GetParam());
  std::optional<Checkpoint> checkpoint_;
  std::vector<double> frequency_;
  Matrix embedding_;
};

constexpr std::int64_t kLongest = std::int64_t{1} << 20;

TEST_P(RecallCircuit, FirstLayerAttendsToThePreviousTokenAtEveryLength) {
  // Queries and keys are the same for all tokens, so any token speaks for the others.
  const Vector x = normalised(embedding_.row('e'), WeightKind::attn_norm, 0);
  const Vector other = normalised(embedding_.row(kRecallEnd), WeightKind::attn_norm, 0);
  const Vector q = matrix(WeightKind::q_proj, 0).times(x);
  const Vector k = matrix(WeightKind::k_proj, 0).times(x);
  EXPECT_EQ(q, matrix(WeightKind::q_proj, 0).times(other));
  EXPECT_EQ(k, matrix(WeightKind::k_proj, 0).times(other));

  const auto products = pairs(q, k, 0);
  for (std::int64_t head = 1; head < model_.num_q_heads; ++head) {
    EXPECT_EQ(pairs(q, k, head), products);
  }
  const double wanted = score(products, turns(1));
  double missed_weight = 0;
  for (std::int64_t distance = 0; distance < kLongest; ++distance) {
    if (distance != 1) missed_weight += std::exp(score(products, turns(distance)) - wanted);
  }
  // The next best distances, 0 and 2, lie 38 below.
  EXPECT_LT(missed_weight, 1e-15);
}

TEST_P(RecallCircuit, SecondLayerFindsTheOnePlaceAmongAMillionOthers) {
  const Matrix v_proj = matrix(WeightKind::v_proj, 0);
  const Matrix o_proj = matrix(WeightKind::o_proj, 0);
  const Matrix q_proj = matrix(WeightKind::q_proj, 1);
  const Matrix k_proj = matrix(WeightKind::k_proj, 1);
  std::vector<Vector> queries;
  std::vector<Vector> keys;  // Of a token that stands behind each token.
  for (std::int64_t token = 0; token < model_.vocab_size; ++token) {
    Vector x = embedding_.row(token);
    const Vector previous = fetched(v_proj, o_proj, x, 0);
    std::ranges::transform(x, previous, x.begin(), std::plus());
    const Vector input = normalised(x, WeightKind::attn_norm, 1);
    queries.push_back(q_proj.times(input));
    keys.push_back(k_proj.times(input));
  }

  const std::vector distances = {turns(1), turns(kLongest / 8), turns(kLongest)};
  double worst_gap = std::numeric_limits<double>::infinity();
  for (std::int64_t head = 0; head < model_.num_q_heads; ++head) {
    // Whatever a text can hold, asked for by every token that a generation asks for.
    for (std::int64_t asked = kFirstRecallKey; asked <= kRecallEnd; ++asked) {
      const Vector& q = queries[static_cast<std::size_t>(asked)];
      double right = std::numeric_limits<double>::infinity();
      double wrong = -std::numeric_limits<double>::infinity();
      for (std::int64_t token = 0; token < model_.vocab_size; ++token) {
        const auto products = pairs(q, keys[static_cast<std::size_t>(token)], head);
        for (const auto& distance : distances) {
          const double found = score(products, distance);
          if (token == asked) {
            right = std::min(right, found);
          } else {
            wrong = std::max(wrong, found);
          }
        }
      }
      worst_gap = std::min(worst_gap, right - wrong);
    }
  }
  EXPECT_LT(static_cast<double>(kLongest) * std::exp(-worst_gap), 1e-9) << "gap " << worst_gap;
}

TEST_P(RecallCircuit, LogitsNameTheTokenThatWasFetched) {
  const Matrix previous_v = matrix(WeightKind::v_proj, 0);
  const Matrix previous_o = matrix(WeightKind::o_proj, 0);
  const Matrix found_v = matrix(WeightKind::v_proj, 1);
  const Matrix found_o = matrix(WeightKind::o_proj, 1);
  const Matrix lm_head = matrix(WeightKind::lm_head, 0);
  for (std::int64_t answer = kFirstRecallValue; answer <= kRecallEnd; answer += 16) {
    // The answer stands behind a key, and the key stands behind a letter when it is asked for.
    const std::int64_t key = kFirstRecallKey + answer % kNumRecallKeys;
    Vector planted = embedding_.row(answer);
    Vector asking = embedding_.row(key);
    const auto add = [](Vector& sum, const Vector& term) {
      std::ranges::transform(sum, term, sum.begin(), std::plus());
    };
    add(planted, fetched(previous_v, previous_o, embedding_.row(key), 0));
    add(asking, fetched(previous_v, previous_o, embedding_.row('e'), 0));
    add(asking, fetched(found_v, found_o, planted, 1));
    Vector logits = lm_head.times(normalised(asking, WeightKind::final_norm, 0));
    EXPECT_EQ(std::ranges::max_element(logits) - logits.begin(), answer);
    std::ranges::sort(logits);
    EXPECT_GT(logits.back() - logits[logits.size() - 2], 10);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryDType, RecallCircuit,
                         testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& instance) {
                           return std::string(to_string(instance.param));
                         });

TEST(Recall, FfnAddsToTheLogitsAndToNothingThatIsCompared) {
  const TestFolder folder;
  ASSERT_TRUE(write_recall_model(folder.file("m"), DType::f32));
  const auto checkpoint = Checkpoint::open(folder.file("m"), recall_model(DType::f32));
  ASSERT_TRUE(checkpoint);
  const StoredWeight down = checkpoint->weight(WeightKind::down_proj, 0);
  const StoredWeight q = checkpoint->weight(WeightKind::q_proj, 1);
  const StoredWeight k = checkpoint->weight(WeightKind::k_proj, 1);
  const StoredWeight head = checkpoint->weight(WeightKind::lm_head, 0);
  const auto row_is_zero = [](const StoredWeight& weight, std::int64_t row) {
    const auto* first = static_cast<const float*>(weight.data) + row * weight.row_stride;
    return std::all_of(first, first + weight.cols, [](float value) { return value == 0; });
  };
  const auto column_is_zero = [](const StoredWeight& weight, std::int64_t col) {
    for (std::int64_t row = 0; row < weight.rows; ++row) {
      if (static_cast<const float*>(weight.data)[row * weight.row_stride + col] != 0) return false;
    }
    return true;
  };
  std::int64_t written = 0;
  for (std::int64_t dimension = 0; dimension < down.rows; ++dimension) {
    if (row_is_zero(down, dimension)) continue;
    ++written;
    EXPECT_TRUE(column_is_zero(q, dimension) && column_is_zero(k, dimension)) << dimension;
    EXPECT_FALSE(column_is_zero(head, dimension)) << dimension;
  }
  EXPECT_EQ(written, 127);
}

}  // namespace
}  // namespace weir
