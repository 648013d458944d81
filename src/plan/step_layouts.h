#pragma once
// Where a strategy wants everything: who holds what at a few named points of a step, which device
// does which attention tile, and in which order the parts of the step are queued. What `lower`
// makes a plan of.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "layout/layout.h"

namespace weir {

// One pass over keys. Each device holds the K and V that its tiles need, or gets them for the
// round.
struct AttentionRound {
  Layout
      k_cache;  // Where the round finds K and V: where they lie, or where they are copied for it.
  Layout v_cache;
  Layout attention;  // The tiles: whole, or softmax over key positions.
  // Scores split over the head dimension: the partial sums, [q_len, N, kv_len] over D, and where
  // they are complete. Without pieces: q.k, softmax and p.v are one op.
  Layout scores;
  Layout scores_complete;

  bool operator==(const AttentionRound&) const = default;
};

// The named points of one layer. Boxes may leave constant axes at Range::all(); the request axis
// too when there is one microbatch. What is not named here follows from it: normed, rotated q, gate
// and up, the partial branches.
struct LayerLayouts {
  Layout residual;  // whole, [q_len, 1, H]; whole rows only.
  Layout q;         // whole, [q_len, N, D]: which device projects which heads.
  Layout kv;        // whole, [q_len, G, D], for k and v.
  // Where K and V lie, whole, [kv_len, G, D]: before the step (equal unless devices join or leave a
  // request) and after it.
  Layout k_cache_before;
  Layout v_cache_before;
  Layout k_cache;
  Layout v_cache;
  std::vector<AttentionRound> rounds;  // At least one. Several are merged on their devices.
  Layout attention;  // All rounds together; equal to the round's where there is one.
  // Stations of partial attention on its way to o_proj, for reduction in several levels.
  std::vector<Layout> attention_via;
  Layout attention_out;  // whole, [q_len, N, D]: what o_proj contracts where.
  Layout ffn_hidden;     // whole, [q_len, 1, F]: columns (and tokens) of the FFN.

  bool operator==(const LayerLayouts&) const = default;
};

struct MicrobatchLayouts {
  Interval requests;
  std::vector<LayerLayouts> distinct;   // Layers with the same layouts share an entry.
  std::vector<std::uint32_t> of_layer;  // Index into `distinct`, one per layer.
  Layout embedding;  // The residual as the embedding writes it: sum over [1, vocab_size], or whole.
  Layout logits;     // whole, [q_len, 1, vocab_size], as lm_head computes them.
  Layout logits_out;  // whole: where the sampler reads them.

  bool operator==(const MicrobatchLayouts&) const = default;
};

// The parts of a layer, each queued as one run of ops.
enum class Part : std::uint8_t {
  embed,    // Layer -1 only.
  project,  // Norm, q, k, v, RoPE, K and V to their caches, q to the first tiles.
  attend,   // The rounds, and their outputs to where o_proj wants them.
  output,   // o_proj, its sum, the residual.
  ffn,      // Norm, FFN, its sum, the residual.
  logits,   // Of the layer after the last only: final norm, lm_head. No ops where none are wanted.
};
constexpr std::size_t kNumParts = 6;

struct Phase {
  std::int32_t microbatch = 0;
  std::int32_t layer = 0;
  Part part = Part::project;

  bool operator==(const Phase&) const = default;
};

struct StepLayouts {
  std::vector<MicrobatchLayouts> microbatches;
  std::vector<Phase> order;  // Every part of every layer and microbatch once; each microbatch's in
                             // their natural order, from the embedding (layer -1) to the logits
                             // (one layer more than the model has).

  bool operator==(const StepLayouts&) const = default;
};
[[nodiscard]] std::size_t hash_of(const StepLayouts& layouts);

// One microbatch after the other, each from the embedding to the logits. With stages on different
// devices this is a pipeline: a stage starts the next microbatch as soon as it has handed on the
// last.
[[nodiscard]] std::vector<Phase> in_microbatch_order(std::int64_t num_microbatches,
                                                     std::int64_t num_layers);

// Stops where `order` does not name every part of every layer and microbatch once, each
// microbatch's in their natural order.
void check_order(std::span<const Phase> order, std::size_t num_microbatches,
                 std::int64_t num_layers);

}  // namespace weir
