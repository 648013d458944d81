#include "checkpoint/recall.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/random.h"
#include "checkpoint/random_model.h"

namespace weir {
namespace {

constexpr std::int64_t kHeadDim = 64;
constexpr std::int64_t kNumQHeads = 8;
constexpr std::int64_t kNumKvHeads = 4;
constexpr std::int64_t kHiddenSize = 512;
constexpr std::int64_t kIntermediateSize = 1024;
constexpr std::int64_t kVocabSize = 640;  // 577 tokens and a multiple of 128.
// The longest context at which the margins were verified.
constexpr std::int64_t kMaxPosition = std::int64_t{1} << 20;
constexpr std::int64_t kHeadsPerGroup = kNumQHeads / kNumKvHeads;
constexpr std::int64_t kCodeSize = kNumKvHeads * kRecallSliceSize;

// The residual stream: three codes, one constant, and the rest for what is random.
constexpr std::int64_t kTokenCode = 0;                          // Code of this token.
constexpr std::int64_t kPreviousCode = kTokenCode + kCodeSize;  // Of the token before: layer 0.
constexpr std::int64_t kFoundCode = kPreviousCode + kCodeSize;  // Of the answer: layer 1.
constexpr std::int64_t kConstant = kFoundCode + kCodeSize;
constexpr std::int64_t kScratch = kConstant + 1;
static_assert(kScratch < kHiddenSize);

constexpr double kConstantValue = 8;

// theta^(-2 i / 64) turns pair i per token: pair 0 by 1 radian, pair 11 by 1.6e-5, pairs 16 and up
// by 1e-7 or less.
constexpr double kRopeTheta = 1e14;
constexpr std::int64_t kNumPairs = kHeadDim / 2;
// Pairs that tell distances apart: the periods grow by a factor of 2.7 from 6 to 400,000 tokens,
// like the hands of a clock.
constexpr std::int64_t kNumDistancePairs = 12;
// Pairs that compare codes, from here to the last: two signs each.
constexpr std::int64_t kFirstCodePair = kNumPairs - kRecallSliceSize / 2;
static_assert(kFirstCodePair >= kNumDistancePairs);

// Length of q and of k in each distance pair: each adds up to 24 * 24 / sqrt(64) = 72 to the score.
constexpr double kDistanceAmplitude = 24;
// Length of q and of k per sign: a sign that differs costs 2 * 4 * 4 / sqrt(64) = 4 of the score.
constexpr double kMatchAmplitude = 4;
// A fetched code scores 128 * 0.1875 = 24 against itself.
constexpr double kLogitPerSign = 0.1875;
// What the random dimensions add to a logit then has a deviation of about 1.
constexpr double kScratchLogit = 0.09;
constexpr double kScratchOutput = 0.25;

struct Matrix {
  std::int64_t cols = 0;
  std::vector<float> values;

  void set(std::int64_t row, std::int64_t col, double value) {
    values[static_cast<std::size_t>(row * cols + col)] = static_cast<float>(value);
  }
};

// One bit per sign, one slice per KV head.
using TokenCode = std::array<std::uint32_t, kNumKvHeads>;
static_assert(kRecallSliceSize == 32);

double sign_of(const TokenCode& code, std::int64_t index) {
  const std::uint32_t slice = code[static_cast<std::size_t>(index / kRecallSliceSize)];
  return ((slice >> (index % kRecallSliceSize)) & 1U) != 0 ? 1 : -1;
}

// Random codes, drawn again until every slice differs enough from that of all tokens before. The
// last token needs some 500 draws per slice.
std::vector<TokenCode> draw_codes(std::uint64_t seed) {
  Random random(seed);
  std::vector<TokenCode> codes;
  for (std::int64_t token = 0; token < kVocabSize; ++token) {
    TokenCode code{};
    for (std::size_t slice = 0; slice < code.size(); ++slice) {
      const auto is_near = [&](const TokenCode& other) {
        return std::popcount(other[slice] ^ code[slice]) < kMinCodeDistance;
      };
      do {
        code[slice] = static_cast<std::uint32_t>(random.next() >> 32);
      } while (std::ranges::any_of(codes, is_near));
    }
    codes.push_back(code);
  }
  return codes;
}

// RMSNorm divides by the root of the mean square; as its weight, the same root undoes that.
double norm_weight(double sum_of_squares) { return std::sqrt(sum_of_squares / kHiddenSize); }

// Dimension of a head that holds sign i of a slice: pair p is the dimensions p and p + 32.
std::int64_t dimension_of_sign(std::int64_t i) {
  const std::int64_t half = kRecallSliceSize / 2;
  return i < half ? kFirstCodePair + i : kFirstCodePair + kNumPairs + (i - half);
}

class RecallWeights {
 public:
  RecallWeights(const ModelSpec& model, std::uint64_t seed)
      : seed_(seed),
        codes_(draw_codes(seed)),
        inverse_frequency_(rope_frequencies(model.rope, model.max_position).inverse_frequency) {}

  [[nodiscard]] TensorFill fill(const ModelTensor& tensor) const {
    return [values = make(tensor).values, next = std::size_t{0}](std::span<float> out) mutable {
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(next), out.size(), out.begin());
      next += out.size();
    };
  }

 private:
  [[nodiscard]] Matrix make(const ModelTensor& tensor) const {
    Matrix matrix{
        .cols = tensor.shape.back(),
        .values = std::vector<float>(static_cast<std::size_t>(num_elements(tensor.shape)))};
    const std::int64_t rows = num_elements(tensor.shape) / matrix.cols;
    const double per_column = 1 / std::sqrt(static_cast<double>(matrix.cols));
    const auto randomise = [&](double deviation) {
      random_fill(seed_, tensor.name, 0, deviation)(matrix.values);
    };
    using enum WeightKind;
    switch (tensor.weights.front()) {
      case embedding:
        write_codes(kTokenCode, 1, matrix);
        for (std::int64_t row = 0; row < rows; ++row) matrix.set(row, kConstant, kConstantValue);
        break;
      case attn_norm:
      case ffn_norm:
      case final_norm:
        std::ranges::fill(matrix.values, static_cast<float>(norm_of(tensor)));
        break;
      case q_proj:
        write_queries(tensor.layer, matrix);
        break;
      case k_proj:
        write_keys(tensor.layer, matrix);
        break;
      case v_proj:
        randomise(per_column);
        write_values(matrix);
        break;
      case o_proj:
        randomise(kScratchOutput * per_column);
        keep_only_scratch_rows(matrix);
        write_output(tensor.layer == 0 ? kPreviousCode : kFoundCode, matrix);
        break;
      case gate_proj:
      case up_proj:
        randomise(per_column);
        break;
      case down_proj:
        randomise(per_column);
        keep_only_scratch_rows(matrix);
        break;
      case lm_head:
        randomise(kScratchLogit);
        for (std::int64_t row = 0; row < rows; ++row) {
          for (std::int64_t col = 0; col < kScratch; ++col) matrix.set(row, col, 0);
        }
        write_codes(kFoundCode, kLogitPerSign, matrix);
        break;
      case q_bias:
      case k_bias:
      case v_bias:
      case q_norm:
      case k_norm:
      case o_bias:
      case gate_bias:
      case up_bias:
      case down_bias:
        CHECK(false, "the recall model has no such weight");
    }
    return matrix;
  }

  // The mean square of a code is its size, that of the constant its square. What the random
  // dimensions gain per layer was measured on English text.
  [[nodiscard]] static double norm_of(const ModelTensor& tensor) {
    constexpr double kConstantSquare = kConstantValue * kConstantValue;
    constexpr double kScratchPerLayer = 49;
    switch (tensor.weights.front()) {
      case WeightKind::attn_norm:
        return tensor.layer == 0 ? norm_weight(kCodeSize + kConstantSquare)
                                 : norm_weight(2 * kCodeSize + kConstantSquare + kScratchPerLayer);
      case WeightKind::final_norm:
        return norm_weight(3 * kCodeSize + kConstantSquare + 2 * kScratchPerLayer);
      default:
        return 1;
    }
  }

  void write_codes(std::int64_t first_col, double scale, Matrix& matrix) const {
    for (std::int64_t token = 0; token < kVocabSize; ++token) {
      for (std::int64_t i = 0; i < kCodeSize; ++i) {
        const double sign = sign_of(codes_[static_cast<std::size_t>(token)], i);
        matrix.set(token, first_col + i, scale * sign);
      }
    }
  }

  void write_queries(std::int64_t layer, Matrix& matrix) const {
    for (std::int64_t head = 0; head < kNumQHeads; ++head) {
      const std::int64_t first = head * kHeadDim;
      if (layer == 0) {
        // A query turned back by one token's angle meets a key of angle 0 one token earlier.
        for (std::int64_t pair = 0; pair < kNumDistancePairs; ++pair) {
          const double angle = -inverse_frequency_[static_cast<std::size_t>(pair)];
          constexpr double kScale = kDistanceAmplitude / kConstantValue;
          matrix.set(first + pair, kConstant, kScale * std::cos(angle));
          matrix.set(first + pair + kNumPairs, kConstant, kScale * std::sin(angle));
        }
      } else {
        write_match(first, kTokenCode + head / kHeadsPerGroup * kRecallSliceSize, matrix);
      }
    }
  }

  static void write_keys(std::int64_t layer, Matrix& matrix) {
    for (std::int64_t head = 0; head < kNumKvHeads; ++head) {
      const std::int64_t first = head * kHeadDim;
      if (layer == 0) {
        for (std::int64_t pair = 0; pair < kNumDistancePairs; ++pair) {
          matrix.set(first + pair, kConstant, kDistanceAmplitude / kConstantValue);
        }
      } else {
        write_match(first, kPreviousCode + head * kRecallSliceSize, matrix);
      }
    }
  }

  // The head at rows `first_row` gets the slice of a code at columns `first_col`.
  static void write_match(std::int64_t first_row, std::int64_t first_col, Matrix& matrix) {
    for (std::int64_t i = 0; i < kRecallSliceSize; ++i) {
      matrix.set(first_row + dimension_of_sign(i), first_col + i, kMatchAmplitude);
    }
  }

  // The first 32 dimensions carry the slice of the token's code, the others what is random.
  static void write_values(Matrix& matrix) {
    for (std::int64_t head = 0; head < kNumKvHeads; ++head) {
      for (std::int64_t i = 0; i < kRecallSliceSize; ++i) {
        const std::int64_t row = head * kHeadDim + i;
        for (std::int64_t col = 0; col < matrix.cols; ++col) matrix.set(row, col, 0);
        matrix.set(row, kTokenCode + head * kRecallSliceSize + i, 1);
      }
    }
  }

  // Each query head of a group puts its share of the slice in place.
  static void write_output(std::int64_t first_row, Matrix& matrix) {
    constexpr std::int64_t kShare = kRecallSliceSize / kHeadsPerGroup;
    for (std::int64_t i = 0; i < kCodeSize; ++i) {
      const std::int64_t head = i / kShare;
      matrix.set(first_row + i, head * kHeadDim + i % kRecallSliceSize, 1);
    }
  }

  static void keep_only_scratch_rows(Matrix& matrix) {
    std::fill_n(matrix.values.begin(), kScratch * matrix.cols, 0.0F);
  }

  std::uint64_t seed_;
  std::vector<TokenCode> codes_;
  std::vector<double> inverse_frequency_;
};

}  // namespace

ModelSpec recall_model(DType dtype) {
  return {.name = "recall",
          .architecture = Architecture::llama,
          .num_layers = 2,
          .hidden_size = kHiddenSize,
          .intermediate_size = kIntermediateSize,
          .vocab_size = kVocabSize,
          .num_q_heads = kNumQHeads,
          .num_kv_heads = kNumKvHeads,
          .head_dim = kHeadDim,
          .max_position = kMaxPosition,
          .eos_token_ids = {kRecallEnd},
          .rope = {.theta = kRopeTheta, .rotary_dim = kHeadDim},
          .weight_dtype = dtype};
}

Status write_recall_model(const std::string& folder, DType dtype,
                          const WriteModelOptions& options) {
  const ModelSpec model = recall_model(dtype);
  const RecallWeights weights(model, options.seed);
  std::vector<WordToken> words;
  for (std::int64_t i = 0; i < kNumRecallKeys; ++i) words.push_back({.text = recall_key(i)});
  for (std::int64_t i = 0; i < kNumRecallValues; ++i) words.push_back({.text = recall_value(i)});
  words.push_back({.text = std::string(kRecallEndText), .special = true});
  const ModelContent content{
      .values = [&](const ModelTensor& tensor) { return weights.fill(tensor); }, .words = words};
  return write_model_folder(folder, model, content, options);
}

}  // namespace weir
