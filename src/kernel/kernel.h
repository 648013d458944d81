#pragma once
// Arithmetic on plain memory: what one device computes inside one op. Nothing here knows of plans,
// devices or requests.
//
// Activations are f32, row-major, rows are tokens. Weights are f32, bf16 or f16 and are widened on
// the way. Every kernel exists twice with the same contract: `kernel::reference` (scalar, obviously
// right, slow) and `kernel` (blocked, vector, run-time dispatched, spread over a Team);
// differential tests hold one against the other. Results do not depend on the team's size beyond
// rounding, and are the same on every call with the same arguments.

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>

#include "base/dtype.h"
#include "kernel/team.h"

namespace weir::kernel {

class Arena;

// A matrix somebody else owns. Element (r, c) lies at index r * row_stride + c.
struct ConstMatrix {
  const float* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_stride = 0;
};
struct Matrix {
  float* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_stride = 0;
};

// Weights of one linear layer: [out_features, in_features] as stored in checkpoints, y = x W^T.
struct WeightView {
  const void* data = nullptr;  // Element (o, i) at index o * row_stride + i, of type dtype.
                               // Alignment of dtype only.
  DType dtype = DType::f32;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  std::int64_t row_stride = 0;
};

// Weights in the form that `linear` likes best: made once per device, kept for the run. The view's
// memory is copied, so it may go away afterwards.
class PackedWeights {
 public:
  // In memory of `arena`, which must outlive them, or of their own.
  PackedWeights(Team& team, WeightView weights, Arena* arena = nullptr);
  ~PackedWeights();
  PackedWeights(PackedWeights&&) noexcept;
  PackedWeights& operator=(PackedWeights&&) noexcept;
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  [[nodiscard]] std::int64_t out_features() const;
  [[nodiscard]] std::int64_t in_features() const;
  [[nodiscard]] std::int64_t bytes() const;  // Memory that they take.

  struct Impl;
  [[nodiscard]] const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// out[T, O] = x[T, I] W^T (+ bias[O] where not empty). `out` must not overlap `x`.
void linear(Team& team, ConstMatrix x, const PackedWeights& weights, std::span<const float> bias,
            Matrix out);

// out[t, :] = x[t, :] / sqrt(mean(x[t, :]^2) + eps) * weight.  weight: [cols]. May be done in
// place.
struct RmsNorm {
  std::span<const float> weight;
  float eps = 1e-6F;
};
void rms_norm(Team& team, ConstMatrix x, RmsNorm norm, Matrix out);

// Rotates heads in place. x: row t holds num_heads * head_dim values. The two members of a rotary
// pair stand side by side: of every head the first 2 * pairs values are pairs, the rest is left
// alone:  a' = a cos - b sin,  b' = b cos + a sin,  angle = position[t] * inverse_frequency[pair].
// cos and sin are multiplied by `scale`. Angles are formed in double, so that positions of millions
// keep their phase.
struct Rope {
  std::span<const double> inverse_frequency;  // [pairs]
  double scale = 1;
  std::int64_t num_heads = 0;
  std::int64_t head_dim = 0;
};
void rope(Team& team, Matrix x, std::span<const std::int64_t> positions, const Rope& rope);

// Element-wise activations; gelu_erf is exact, gelu_tanh the approximation published with GPT-2.
enum class Activation { silu, gelu_erf, gelu_tanh };
// Gated: out[t, i] = act(gate[t, i]) * up[t, i]. `out` may be `gate` or `up`.
void gated_activation(Team& team, Activation activation, ConstMatrix gate, ConstMatrix up,
                      Matrix out);
// Plain: out = act(x), may be in place.
void activation(Team& team, Activation activation, ConstMatrix x, Matrix out);

// out += x.
void add(Team& team, ConstMatrix x, Matrix out);

// out[t, :] = table[ids[t] - first_row, :] widened, or zeros where ids[t] lies outside the table's
// rows.
struct EmbeddingTable {
  const void* data = nullptr;  // [rows, cols], row_stride elements apart.
  DType dtype = DType::f32;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t row_stride = 0;
};
void embed(Team& team, std::span<const std::int64_t> ids, const EmbeddingTable& table, Matrix out);

// Keys or values of one request on one device, in blocks of `block_size` consecutive positions.
// Position p of head g, dimension d lies in blocks[(p - first_position) / block_size] at index
//   g * head_stride + ((p - first_position) % block_size) * position_stride + d   (in elements of
//   dtype).
struct KvBlocks {
  std::span<const void* const> blocks;
  DType dtype = DType::f32;
  std::int64_t block_size = 0;
  std::int64_t first_position = 0;
  std::int64_t head_stride = 0;
  std::int64_t position_stride = 0;
};

// One tile of attention of one request: a range of queries against a range of keys, for some heads.
//   q: [Q, N, Dk], out: [Q, N, Dv], lse: [Q, N] (may be null). Head n of q uses key/value head
//   kv_head_of[n] of `k`, `v`.
// Query i stands at absolute position first_query + i and sees the keys p of [key_begin, key_end)
// with p <= its own position (when causal) and p > position - window (when a window is set). out =
// softmax over the seen keys of (scale q.k) times v; lse = natural log of the sum of exp(scale
// q.k). A query that sees no key gets out = 0 and lse = -infinity. Scores are never held for more
// than a block of keys.
struct AttentionTile {
  const float* q = nullptr;
  std::int64_t q_row_stride = 0;             // Elements between consecutive tokens of q.
  std::int64_t q_head_stride = 0;            // Elements between consecutive heads of q.
  std::int64_t num_queries = 0;              // [Q]
  std::int64_t num_heads = 0;                // [N]
  std::int64_t key_dim = 0;                  // [Dk]
  std::int64_t value_dim = 0;                // [Dv]
  std::span<const std::int64_t> kv_head_of;  // [N]
  KvBlocks keys;
  KvBlocks values;
  std::int64_t first_query = 0;
  std::int64_t key_begin = 0;
  std::int64_t key_end = 0;
  bool causal = true;
  std::int64_t window = std::numeric_limits<std::int64_t>::max();
  float scale = 1;
  float* out = nullptr;
  std::int64_t out_row_stride = 0;
  std::int64_t out_head_stride = 0;
  float* lse = nullptr;
  std::int64_t lse_row_stride = 0;  // lse of query i, head n at lse[i * lse_row_stride + n].
};
// Several tiles at once (the requests of a batch), so that the team shares the work of all of them.
void attention(Team& team, std::span<const AttentionTile> tiles);

// Key positions [begin, end) that a query sees.
struct SeenKeys {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
// Of `keys`, those that the causal query at `position` sees through its window. Never end < begin.
[[nodiscard]] SeenKeys seen_keys(std::int64_t position, std::int64_t window, SeenKeys keys);

// Attention in two halves, for scores that are summed over slices of the head dimension in between.
// First half: scores[i, n, p - key_begin] = scale q.k over the slice, for the keys p of
// [key_begin, key_end) that query i sees (causal, window); 0 for the others.
struct ScoreTile {
  const float* q = nullptr;  // [Q, N, key_dim], strides as in AttentionTile.
  std::int64_t q_row_stride = 0;
  std::int64_t q_head_stride = 0;
  std::int64_t num_queries = 0;
  std::int64_t num_heads = 0;
  std::int64_t key_dim = 0;    // Of the slice,
  std::int64_t first_dim = 0;  // which begins there in the blocks.
  std::span<const std::int64_t> kv_head_of;
  KvBlocks keys;
  std::int64_t first_query = 0;
  std::int64_t key_begin = 0;
  std::int64_t key_end = 0;
  std::int64_t window = std::numeric_limits<std::int64_t>::max();
  float scale = 1;
  float* scores = nullptr;  // [Q, N, key_end - key_begin], dense.
};
void score_slice(Team& team, const ScoreTile& tile);

// Second half: out = softmax over the seen keys of the complete scores, times V; lse as
// attention().
struct ScoredTile {
  const float* scores = nullptr;  // [Q, N, key_end - key_begin], dense.
  std::int64_t num_queries = 0;
  std::int64_t num_heads = 0;
  std::int64_t value_dim = 0;
  std::int64_t first_dim = 0;  // Of value_dim in the blocks.
  std::span<const std::int64_t> kv_head_of;
  KvBlocks values;
  std::int64_t first_query = 0;
  std::int64_t key_begin = 0;
  std::int64_t key_end = 0;
  std::int64_t window = std::numeric_limits<std::int64_t>::max();
  float* out = nullptr;  // [Q, N, value_dim]
  std::int64_t out_row_stride = 0;
  std::int64_t out_head_stride = 0;
  float* lse = nullptr;  // May be null.
  std::int64_t lse_row_stride = 0;
};
void attend_scores(Team& team, const ScoredTile& tile);

// Folds partial attention over another, disjoint key range into `out`, rescaling by log-sum-exp.
// Order affects rounding only.
//   out, other_out: [rows, N, D] with the given strides; lse, other_lse: [rows, N]. `out` and `lse`
//   are updated in place.
// An empty range has lse = -inf and changes nothing.  Source: online softmax, arXiv:1805.02867.
struct PartialAttention {
  float* out = nullptr;
  std::int64_t row_stride = 0;
  float* lse = nullptr;
  std::int64_t lse_row_stride = 0;
};
struct ConstPartialAttention {
  const float* out = nullptr;
  std::int64_t row_stride = 0;
  const float* lse = nullptr;
  std::int64_t lse_row_stride = 0;
};
struct PartialShape {
  std::int64_t rows = 0;
  std::int64_t num_heads = 0;
  std::int64_t head_dim = 0;
};
void merge_partial(Team& team, PartialShape shape, PartialAttention into,
                   ConstPartialAttention other);

// Copies rows of f32 into KV blocks of any dtype (rounding to nearest even): row i, head g goes to
// position first_position_of_rows + i. source: [rows, heads, dim], head stride = dim.
struct KvWrite {
  const float* source = nullptr;
  std::int64_t source_row_stride = 0;
  std::int64_t rows = 0;
  std::int64_t num_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t first_position_of_rows = 0;
  std::int64_t first_head = 0;  // Of the blocks: head g of the source is head first_head + g there.
  std::int64_t first_dim = 0;   // Likewise.
};
struct MutableKvBlocks {
  std::span<void* const> blocks;
  DType dtype = DType::f32;
  std::int64_t block_size = 0;
  std::int64_t first_position = 0;
  std::int64_t head_stride = 0;
  std::int64_t position_stride = 0;
};
void write_kv(Team& team, const KvWrite& write, const MutableKvBlocks& blocks);

// The way back: out[i, g, d] = position first_position + i, head first_head + g, dimension
// first_dim + d of the blocks, widened. Rows of `out` are row_stride apart, heads head_dim.
struct KvRead {
  std::int64_t first_position = 0;
  std::int64_t rows = 0;
  std::int64_t first_head = 0;
  std::int64_t num_heads = 0;
  std::int64_t first_dim = 0;
  std::int64_t head_dim = 0;
};
void read_kv(const KvBlocks& blocks, const KvRead& read, float* out, std::int64_t row_stride);

// out = terms[0] + terms[1] + ..., added in that order. At least one term, all of the shape of
// `out`, which may be one of them.
void sum(Team& team, std::span<const ConstMatrix> terms, Matrix out);
// out = x, which does not overlap it.
void copy(Team& team, ConstMatrix x, Matrix out);

// The same contracts in plain scalar code, f64 accumulation, one thread.
namespace reference {
void linear(ConstMatrix x, WeightView weights, std::span<const float> bias, Matrix out);
void rms_norm(ConstMatrix x, RmsNorm norm, Matrix out);
void rope(Matrix x, std::span<const std::int64_t> positions, const Rope& rope);
void gated_activation(Activation activation, ConstMatrix gate, ConstMatrix up, Matrix out);
void activation(Activation activation, ConstMatrix x, Matrix out);
void add(ConstMatrix x, Matrix out);
void embed(std::span<const std::int64_t> ids, const EmbeddingTable& table, Matrix out);
void attention(std::span<const AttentionTile> tiles);
void score_slice(const ScoreTile& tile);
void attend_scores(const ScoredTile& tile);
void merge_partial(PartialShape shape, PartialAttention into, ConstPartialAttention other);
void write_kv(const KvWrite& write, const MutableKvBlocks& blocks);
void read_kv(const KvBlocks& blocks, const KvRead& read, float* out, std::int64_t row_stride);
void sum(std::span<const ConstMatrix> terms, Matrix out);
}  // namespace reference

}  // namespace weir::kernel
