#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <vector>

#include "base/check.h"
#include "kernel/kernel.h"

namespace weir::kernel::reference {
namespace {

double element(const void* data, DType dtype, std::int64_t index) {
  const auto bits = [&] {
    std::uint16_t value = 0;
    std::memcpy(&value, static_cast<const std::byte*>(data) + index * 2, sizeof(value));
    return value;
  };
  switch (dtype) {
    case DType::f32: {
      float value = 0;
      std::memcpy(&value, static_cast<const std::byte*>(data) + index * 4, sizeof(value));
      return value;
    }
    case DType::bf16:
      return bf16_to_f32(bits());
    case DType::f16:
      return f16_to_f32(bits());
  }
  CHECK(false, "unknown dtype");
}

void store_element(void* data, DType dtype, std::int64_t index, float value) {
  const auto store_bits = [&](std::uint16_t bits) {
    std::memcpy(static_cast<std::byte*>(data) + index * 2, &bits, sizeof(bits));
  };
  switch (dtype) {
    case DType::f32:
      std::memcpy(static_cast<std::byte*>(data) + index * 4, &value, sizeof(value));
      return;
    case DType::bf16:
      return store_bits(f32_to_bf16(value));
    case DType::f16:
      return store_bits(f32_to_f16(value));
  }
  CHECK(false, "unknown dtype");
}

double kv_element(const KvBlocks& kv, std::int64_t position, std::int64_t head, std::int64_t d) {
  const std::int64_t offset = position - kv.first_position;
  const void* block = kv.blocks[static_cast<std::size_t>(offset / kv.block_size)];
  return element(block, kv.dtype,
                 head * kv.head_stride + (offset % kv.block_size) * kv.position_stride + d);
}

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu_erf:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::gelu_tanh: {
      // 1/2 (1 + tanh(u)) = 1 / (1 + e^(-2u)), which keeps its digits where tanh(u) nears -1.
      const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      return x / (1 + std::exp(-2 * u));
    }
  }
  CHECK(false, "unknown activation");
}

bool sees(const AttentionTile& tile, std::int64_t query, std::int64_t key) {
  const std::int64_t position = tile.first_query + query;
  return (!tile.causal || key <= position) && key > position - tile.window;
}

double score(const AttentionTile& tile, std::int64_t query, std::int64_t head, std::int64_t key) {
  const float* q = tile.q + query * tile.q_row_stride + head * tile.q_head_stride;
  double dot = 0;
  for (std::int64_t d = 0; d < tile.key_dim; ++d) {
    dot += q[d] * kv_element(tile.keys, key, tile.kv_head_of[static_cast<std::size_t>(head)], d);
  }
  return dot * tile.scale;
}

void attend(const AttentionTile& tile, std::int64_t query, std::int64_t head) {
  std::vector<std::int64_t> seen;
  std::vector<double> scores;
  double largest = -std::numeric_limits<double>::infinity();
  for (std::int64_t key = tile.key_begin; key < tile.key_end; ++key) {
    if (!sees(tile, query, key)) continue;
    seen.push_back(key);
    scores.push_back(score(tile, query, head, key));
    largest = std::max(largest, scores.back());
  }
  double sum = 0;
  std::vector<double> values(static_cast<std::size_t>(tile.value_dim), 0.0);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const double weight = std::exp(scores[i] - largest);
    sum += weight;
    for (std::int64_t d = 0; d < tile.value_dim; ++d) {
      values[static_cast<std::size_t>(d)] +=
          weight *
          kv_element(tile.values, seen[i], tile.kv_head_of[static_cast<std::size_t>(head)], d);
    }
  }
  float* out = tile.out + query * tile.out_row_stride + head * tile.out_head_stride;
  for (std::int64_t d = 0; d < tile.value_dim; ++d) {
    out[d] = seen.empty() ? 0.0F : static_cast<float>(values[static_cast<std::size_t>(d)] / sum);
  }
  if (tile.lse == nullptr) return;
  tile.lse[query * tile.lse_row_stride + head] = seen.empty()
                                                     ? -std::numeric_limits<float>::infinity()
                                                     : static_cast<float>(largest + std::log(sum));
}

}  // namespace

void linear(ConstMatrix x, WeightView weights, std::span<const float> bias, Matrix out) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t o = 0; o < weights.out_features; ++o) {
      double sum = bias.empty() ? 0.0 : bias[static_cast<std::size_t>(o)];
      for (std::int64_t i = 0; i < weights.in_features; ++i) {
        sum += x.data[t * x.row_stride + i] *
               element(weights.data, weights.dtype, o * weights.row_stride + i);
      }
      out.data[t * out.row_stride + o] = static_cast<float>(sum);
    }
  }
}

void rms_norm(ConstMatrix x, RmsNorm norm, Matrix out) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const float* row = x.data + t * x.row_stride;
    double squares = 0;
    for (std::int64_t c = 0; c < x.cols; ++c) squares += static_cast<double>(row[c]) * row[c];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.cols) + norm.eps);
    for (std::int64_t c = 0; c < x.cols; ++c) {
      out.data[t * out.row_stride + c] =
          static_cast<float>(row[c] * scale * norm.weight[static_cast<std::size_t>(c)]);
    }
  }
}

void rope(Matrix x, std::span<const std::int64_t> positions, const Rope& rope) {
  const auto pairs = static_cast<std::int64_t>(rope.inverse_frequency.size());
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t head = 0; head < rope.num_heads; ++head) {
      float* first = x.data + t * x.row_stride + head * rope.head_dim;
      for (std::int64_t pair = 0; pair < pairs; ++pair) {
        const double angle = static_cast<double>(positions[static_cast<std::size_t>(t)]) *
                             rope.inverse_frequency[static_cast<std::size_t>(pair)];
        const double cosine = std::cos(angle) * rope.scale;
        const double sine = std::sin(angle) * rope.scale;
        const double a = first[2 * pair];
        const double b = first[2 * pair + 1];
        first[2 * pair] = static_cast<float>(a * cosine - b * sine);
        first[2 * pair + 1] = static_cast<float>(b * cosine + a * sine);
      }
    }
  }
}

void gated_activation(Activation activation, ConstMatrix gate, ConstMatrix up, Matrix out) {
  for (std::int64_t t = 0; t < gate.rows; ++t) {
    for (std::int64_t c = 0; c < gate.cols; ++c) {
      out.data[t * out.row_stride + c] =
          static_cast<float>(activate(activation, gate.data[t * gate.row_stride + c]) *
                             up.data[t * up.row_stride + c]);
    }
  }
}

void activation(Activation activation, ConstMatrix x, Matrix out) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t c = 0; c < x.cols; ++c) {
      out.data[t * out.row_stride + c] =
          static_cast<float>(activate(activation, x.data[t * x.row_stride + c]));
    }
  }
}

void add(ConstMatrix x, Matrix out) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t c = 0; c < x.cols; ++c) {
      out.data[t * out.row_stride + c] += x.data[t * x.row_stride + c];
    }
  }
}

void embed(std::span<const std::int64_t> ids, const EmbeddingTable& table, Matrix out) {
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const std::int64_t row = ids[t] - table.first_row;
    const bool inside = row >= 0 && row < table.rows;
    for (std::int64_t c = 0; c < out.cols; ++c) {
      out.data[static_cast<std::int64_t>(t) * out.row_stride + c] =
          inside ? static_cast<float>(element(table.data, table.dtype, row * table.row_stride + c))
                 : 0.0F;
    }
  }
}

void attention(std::span<const AttentionTile> tiles) {
  for (const AttentionTile& tile : tiles) {
    for (std::int64_t query = 0; query < tile.num_queries; ++query) {
      for (std::int64_t head = 0; head < tile.num_heads; ++head) attend(tile, query, head);
    }
  }
}

void score_slice(const ScoreTile& tile) {
  const std::int64_t keys = tile.key_end - tile.key_begin;
  for (std::int64_t query = 0; query < tile.num_queries; ++query) {
    const SeenKeys seen = seen_keys(tile.first_query + query, tile.window,
                                    {.begin = tile.key_begin, .end = tile.key_end});
    for (std::int64_t head = 0; head < tile.num_heads; ++head) {
      float* scores = tile.scores + (query * tile.num_heads + head) * keys;
      std::fill_n(scores, keys, 0.0F);
      const float* q = tile.q + query * tile.q_row_stride + head * tile.q_head_stride;
      const std::int64_t kv_head = tile.kv_head_of[static_cast<std::size_t>(head)];
      for (std::int64_t key = seen.begin; key < seen.end; ++key) {
        double dot = 0;
        for (std::int64_t d = 0; d < tile.key_dim; ++d)
          dot += q[d] * kv_element(tile.keys, key, kv_head, tile.first_dim + d);
        scores[key - tile.key_begin] = static_cast<float>(tile.scale * dot);
      }
    }
  }
}

void attend_scores(const ScoredTile& tile) {
  const std::int64_t keys = tile.key_end - tile.key_begin;
  for (std::int64_t query = 0; query < tile.num_queries; ++query) {
    const SeenKeys seen = seen_keys(tile.first_query + query, tile.window,
                                    {.begin = tile.key_begin, .end = tile.key_end});
    for (std::int64_t head = 0; head < tile.num_heads; ++head) {
      const float* scores = tile.scores + (query * tile.num_heads + head) * keys;
      const std::int64_t kv_head = tile.kv_head_of[static_cast<std::size_t>(head)];
      double largest = -std::numeric_limits<double>::infinity();
      for (std::int64_t key = seen.begin; key < seen.end; ++key) {
        largest = std::max<double>(largest, scores[key - tile.key_begin]);
      }
      double sum = 0;
      std::vector<double> total(static_cast<std::size_t>(tile.value_dim), 0.0);
      for (std::int64_t key = seen.begin; key < seen.end; ++key) {
        const double weight = std::exp(scores[key - tile.key_begin] - largest);
        sum += weight;
        for (std::int64_t d = 0; d < tile.value_dim; ++d) {
          total[static_cast<std::size_t>(d)] +=
              weight * kv_element(tile.values, key, kv_head, tile.first_dim + d);
        }
      }
      float* out = tile.out + query * tile.out_row_stride + head * tile.out_head_stride;
      for (std::int64_t d = 0; d < tile.value_dim; ++d) {
        out[d] = sum > 0 ? static_cast<float>(total[static_cast<std::size_t>(d)] / sum) : 0.0F;
      }
      if (tile.lse != nullptr) {
        tile.lse[query * tile.lse_row_stride + head] = static_cast<float>(largest + std::log(sum));
      }
    }
  }
}

void merge_partial(PartialShape shape, PartialAttention into, ConstPartialAttention other) {
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t head = 0; head < shape.num_heads; ++head) {
      float& lse = into.lse[row * into.lse_row_stride + head];
      const double mine = lse;
      const double theirs = other.lse[row * other.lse_row_stride + head];
      // Subtracting two infinities would give NaN: an empty range changes nothing.
      if (std::isinf(theirs) && theirs < 0) continue;
      const double largest = std::max(mine, theirs);
      const double sum = std::exp(mine - largest) + std::exp(theirs - largest);
      float* out = into.out + row * into.row_stride + head * shape.head_dim;
      const float* other_out = other.out + row * other.row_stride + head * shape.head_dim;
      for (std::int64_t d = 0; d < shape.head_dim; ++d) {
        out[d] = static_cast<float>(
            (std::exp(mine - largest) * out[d] + std::exp(theirs - largest) * other_out[d]) / sum);
      }
      lse = static_cast<float>(largest + std::log(sum));
    }
  }
}

void write_kv(const KvWrite& write, const MutableKvBlocks& blocks) {
  for (std::int64_t row = 0; row < write.rows; ++row) {
    const std::int64_t offset = write.first_position_of_rows + row - blocks.first_position;
    void* block = blocks.blocks[static_cast<std::size_t>(offset / blocks.block_size)];
    for (std::int64_t head = 0; head < write.num_heads; ++head) {
      for (std::int64_t d = 0; d < write.head_dim; ++d) {
        store_element(block, blocks.dtype,
                      (write.first_head + head) * blocks.head_stride +
                          (offset % blocks.block_size) * blocks.position_stride + write.first_dim +
                          d,
                      write.source[row * write.source_row_stride + head * write.head_dim + d]);
      }
    }
  }
}

void read_kv(const KvBlocks& blocks, const KvRead& read, float* out, std::int64_t row_stride) {
  for (std::int64_t row = 0; row < read.rows; ++row) {
    const std::int64_t offset = read.first_position + row - blocks.first_position;
    const void* block = blocks.blocks[static_cast<std::size_t>(offset / blocks.block_size)];
    for (std::int64_t head = 0; head < read.num_heads; ++head) {
      for (std::int64_t d = 0; d < read.head_dim; ++d) {
        out[row * row_stride + head * read.head_dim + d] = static_cast<float>(element(
            block, blocks.dtype,
            (read.first_head + head) * blocks.head_stride +
                (offset % blocks.block_size) * blocks.position_stride + read.first_dim + d));
      }
    }
  }
}

void sum(std::span<const ConstMatrix> terms, Matrix out) {
  for (std::int64_t row = 0; row < out.rows; ++row) {
    for (std::int64_t col = 0; col < out.cols; ++col) {
      float total = terms[0].data[row * terms[0].row_stride + col];
      for (const ConstMatrix& term : terms.subspan(1))
        total += term.data[row * term.row_stride + col];
      out.data[row * out.row_stride + col] = total;
    }
  }
}

}  // namespace weir::kernel::reference
