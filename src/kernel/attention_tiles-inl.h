// Attention of one task with many rows on AMX tiles: as in attention_block-inl.h, with
//   scores^T [keys, 32] = K [keys, key_dim] q^T [key_dim, 32]
//   out^T [value_dim, 32] = out^T * correction + V^T [value_dim, keys] p^T [keys, 32]
// where all four operands are cut into pieces: queries once, keys and (transposed) values once a
// block, softmax weights for every panel and block. Vector units weigh the scores of one panel
// while tiles hold those of the next and add up the values of the one before.

#if defined(WEIR_KERNEL_ATTENTION_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_ATTENTION_TILES_INL_H_
#undef WEIR_KERNEL_ATTENTION_TILES_INL_H_
#else
#define WEIR_KERNEL_ATTENTION_TILES_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "kernel/amx-inl.h"
#include "kernel/attention_block-inl.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

inline constexpr std::int64_t kBlockSteps = kKeyBlock / kStepDepth;

// The memory of a task, cut from the worker's scratch.
class TileMemory {
 public:
  explicit TileMemory(const AttentionTask& task)
      : key_dim(task.tile->key_dim),
        value_dim(task.tile->value_dim),
        query_words_(ceil_div(key_dim, kStepDepth) * kPanelStepWords<kPieces<float>>),
        panel_words_(query_words_ + (round_up(value_dim, kTileSize) + 4) * kPanel) {
    const std::int64_t panels = ceil_div(task.rows(), kPanel);
    const std::int64_t key_words = kKeyBlock / kTileSize * key_tile(kPieces<float>);
    const std::int64_t value_words = ceil_div(value_dim, kTileSize) * value_tile(kPieces<float>);
    constexpr std::int64_t kWeightWords = kBlockSteps * kPanelStepWords<kPieces<float>>;
    Scratch& scratch = worker_scratch();
    scratch.reserve(Scratch::bytes_of_floats(panels * panel_words_) +
                    Scratch::bytes_of_floats(key_dim * kPanel) +
                    Scratch::bytes_of_floats(key_words) + Scratch::bytes_of_floats(value_words) +
                    2 * Scratch::bytes_of_floats(kKeyBlock * kPanel) +
                    2 * Scratch::bytes_of_floats(kWeightWords));
    panels_ = scratch.floats(panels * panel_words_);
    wide_queries_ = scratch.floats(key_dim * kPanel);
    keys = reinterpret_cast<std::uint32_t*>(scratch.floats(key_words));
    values = reinterpret_cast<std::uint32_t*>(scratch.floats(value_words));
    for (std::size_t turn = 0; turn < 2; ++turn) {
      scores[turn] = scratch.floats(kKeyBlock * kPanel);
      weights[turn] = reinterpret_cast<std::uint32_t*>(scratch.floats(kWeightWords));
    }
  }

  // Its `q` is the same memory for all panels: it is cut into `queries` before the next one's.
  [[nodiscard]] RowPanel panel(std::int64_t index) const {
    float* const out = panels_ + index * panel_words_ + query_words_;
    float* const largest = out + round_up(value_dim, kTileSize) * kPanel;
    auto* const begin = reinterpret_cast<std::int32_t*>(largest + 2 * kPanel);
    return {.q = wide_queries_,
            .out = out,
            .largest = largest,
            .sum = largest + kPanel,
            .begin = begin,
            .end = begin + kPanel};
  }
  [[nodiscard]] std::uint32_t* queries(std::int64_t index) const {
    return reinterpret_cast<std::uint32_t*>(panels_ + index * panel_words_);
  }
  // Words of a row tile of keys, and of values.
  [[nodiscard]] std::int64_t key_tile(int pieces) const {
    return row_tile_words(pieces, ceil_div(key_dim, kStepDepth));
  }
  [[nodiscard]] static std::int64_t value_tile(int pieces) {
    return row_tile_words(pieces, kBlockSteps);
  }

  std::int64_t key_dim;
  std::int64_t value_dim;
  std::uint32_t* keys = nullptr;    // A of the scores: rows are keys of the block.
  std::uint32_t* values = nullptr;  // A of the output: rows are dimensions.
  // Of two panels in turn: [kKeyBlock, 32], and B of the output.
  std::array<float*, 2> scores = {};
  std::array<std::uint32_t*, 2> weights = {};

 private:
  std::int64_t query_words_;
  std::int64_t panel_words_;
  float* panels_ = nullptr;
  float* wide_queries_ = nullptr;  // [key_dim, 32]
};

template <class T>
HWY_NOINLINE void cut_keys(const AttentionTask& task, KeyRange range, const TileMemory& memory,
                           Magnitude& magnitude) {
  std::int64_t row = 0;
  for (std::int64_t position = range.begin; position < range.end; ++position, ++row) {
    cut_row(kv_at<T>(task.tile->keys, position, task.kv_head), memory.key_dim, row, memory.keys,
            magnitude);
  }
  clear_rows<kPieces<T>>(row, round_up(row, kStepDepth), ceil_div(memory.key_dim, kStepDepth),
                         memory.keys);
}

// Values of one step of keys, transposed. Keys beyond the last have weight zero and are zero.
template <class T>
HWY_INLINE void cut_value_step(const AttentionTask& task, KeyRange range, std::int64_t step,
                               const TileMemory& memory, Magnitude& magnitude) {
  constexpr int kCount = kPieces<T>;
  HWY_ALIGN std::uint32_t words[kCount * kTileWords];
  const std::int64_t first = range.begin + step * kStepDepth;
  const T* rows[kStepDepth] = {};
  for (std::int64_t key = 0; key < kStepDepth && first + key < range.end; ++key) {
    rows[key] = kv_at<T>(task.tile->values, first + key, task.kv_head);
  }
  const DF d;
  for (std::int64_t dim = 0; dim < memory.value_dim; dim += kTileSize) {
    for (std::int64_t key = 0; key < kTileSize; ++key) {
      const T* const low_row = rows[key];
      const T* const high_row = rows[key + kTileSize];
      const std::int64_t left = memory.value_dim - dim;
      const VecF low = low_row == nullptr ? hn::Zero(d) : load_up_to(low_row + dim, left);
      const VecF high = high_row == nullptr ? hn::Zero(d) : load_up_to(high_row + dim, left);
      magnitude.note(low);
      magnitude.note(high);
      put_pieces<kCount>(low, high, words + key * kTileSize, kTileWords);
    }
    std::uint32_t* const to = memory.values + dim / kTileSize * TileMemory::value_tile(kCount) +
                              step * kCount * kTileWords;
    for (int piece = 0; piece < kCount; ++piece) {
      transpose_tile(words + piece * kTileWords, to + piece * kTileWords);
    }
  }
}

template <class T>
HWY_NOINLINE void cut_values(const AttentionTask& task, KeyRange range, const TileMemory& memory,
                             Magnitude& magnitude) {
  const std::int64_t steps = ceil_div(range.end - range.begin, kStepDepth);
  for (std::int64_t step = 0; step < steps; ++step) {
    cut_value_step<T>(task, range, step, memory, magnitude);
  }
}

// One panel against one block, from scores to weights.
class PanelStage {
 public:
  HWY_INLINE PanelStage() = default;
  // The block is [block.begin, block.end), counted from the task's first key. Whole steps of keys;
  // those beyond what the panel sees, or the block holds, are masked.
  HWY_INLINE PanelStage(const TileMemory& memory, KeyRange block, std::int64_t index,
                        std::size_t turn)
      : panel(memory.panel(index)),
        queries(memory.queries(index)),
        scores(memory.scores[turn]),
        weights(memory.weights[turn]) {
    const std::int64_t seen_begin = std::max(block.begin, panel.any().begin) - block.begin;
    const std::int64_t seen_end = std::min(block.end, panel.any().end) - block.begin;
    if (seen_end <= seen_begin) return;
    first = seen_begin / kStepDepth * kStepDepth;
    count = round_up(seen_end, kStepDepth) - first;
    first_key_ = block.begin + first;
  }

  // Once the scores are there: what the weights are relative to.
  HWY_INLINE void start_weighing() {
    const bool all_seen =
        panel.every().begin <= first_key_ && first_key_ + count <= panel.every().end;
    if (!all_seen) mask_scores(panel, first_key_, count, scores);
    start_softmax(panel, count, scores, correction);
  }
  // Pairs of keys to weigh.
  [[nodiscard]] HWY_INLINE std::int64_t pairs() const { return count / 2; }
  HWY_INLINE void weigh_pair(std::int64_t pair) const {
    const DF d;
    const std::int64_t step = pair / kTileSize;
    const std::int64_t row = pair % kTileSize;
    const float* const low_scores = scores + (step * kStepDepth + row) * kPanel;
    std::uint32_t* const to = weights + step * kPanelStepWords<kPieces<float>> + row * kTileSize;
    HWY_UNROLL(2)
    for (std::int64_t half = 0; half < 2; ++half) {
      const float* const from = low_scores + half * kTileSize;
      const VecF largest = hn::Load(d, panel.largest + half * kTileSize);
      const VecF low = exp2_nonpositive(d, hn::Sub(hn::Load(d, from), largest));
      const VecF high =
          exp2_nonpositive(d, hn::Sub(hn::Load(d, from + kTileSize * kPanel), largest));
      float* const sum = panel.sum + half * kTileSize;
      hn::Store(hn::Add(hn::Load(d, sum), hn::Add(low, high)), d, sum);
      put_pieces<kPieces<float>>(low, high, to + half * kTileWords, 2 * kTileWords);
    }
  }

  RowPanel panel;
  const std::uint32_t* queries = nullptr;
  float* scores = nullptr;
  std::uint32_t* weights = nullptr;
  std::int64_t first = 0;  // Key of the block.
  std::int64_t count = 0;  // None where the panel sees nothing of the block.
  HWY_ALIGN float correction[kPanel] = {};

 private:
  std::int64_t first_key_ = 0;
};

// Weighs pairs [begin, end) of a stage while tiles are multiplied.
class WeighsBeside {
 public:
  HWY_INLINE WeighsBeside(const PanelStage& stage, std::int64_t begin, std::int64_t end,
                          std::int64_t turns)
      : stage_(stage), pair_(begin), end_(end), pace_(end - begin, turns) {}

  // Not inlined: it is called after every pair of pieces, in six kinds of products.
  HWY_NOINLINE void step() {
    for (pace_.step(); pace_.due();) stage_.weigh_pair(pair_++);
  }
  // What no step was there for.
  HWY_INLINE void finish() {
    while (pair_ < end_) stage_.weigh_pair(pair_++);
  }

 private:
  const PanelStage& stage_;
  std::int64_t pair_;
  std::int64_t end_;
  EvenPace pace_;
};

// scores[j, :] = keys[j] . q for the stage's keys, while pairs [begin, end) of another are weighed.
template <int pieces>
HWY_NOINLINE void score_in_tiles(const TileMemory& memory, const PanelStage& stage,
                                 const PanelStage& other, std::int64_t begin, std::int64_t end) {
  const std::int64_t row_tile = memory.key_tile(pieces);
  const std::int64_t steps = ceil_div(memory.key_dim, kStepDepth);
  WeighsBeside weighs(other, begin, end,
                      turns_beside<pieces, kPieces<float>>(steps * (stage.count / kStepDepth)));
  for (std::int64_t key = 0; key < stage.count; key += kStepDepth) {
    multiply_row_tiles<pieces, kPieces<float>, 2>(
        {.a = memory.keys + (stage.first + key) / kTileSize * row_tile,
         .b = stage.queries,
         .steps = steps,
         .c = stage.scores + key * kPanel,
         .c_stride = kPanel,
         .row_tile = row_tile},
        weighs);
  }
  weighs.finish();
}

// out^T += V^T p^T over the stage's keys, while pairs [begin, end) of another are weighed.
template <int pieces>
HWY_NOINLINE void add_values_in_tiles(const TileMemory& memory, const PanelStage& stage,
                                      const PanelStage& other, std::int64_t begin,
                                      std::int64_t end) {
  const std::int64_t row_tile = TileMemory::value_tile(pieces);
  const std::int64_t steps = stage.count / kStepDepth;
  WeighsBeside weighs(
      other, begin, end,
      turns_beside<pieces, kPieces<float>>(steps * ceil_div(memory.value_dim, 2 * kTileSize)));
  for (std::int64_t dim = 0; dim < memory.value_dim; dim += 2 * kTileSize) {
    multiply_tile_block<pieces, kPieces<float>>(
        {.a = memory.values + dim / kTileSize * row_tile +
              stage.first / kStepDepth * pieces * kTileWords,
         .b = stage.weights,
         .steps = steps,
         .c = stage.panel.out + dim * kPanel,
         .c_stride = kPanel,
         .add = true,
         .row_tile = row_tile},
        memory.value_dim - dim, weighs);
  }
  weighs.finish();
}

// out^T *= correction, where that is not one everywhere.
HWY_INLINE void correct_output(std::int64_t value_dim, const float* correction, float* out) {
  const DF d;
  const VecF one = hn::Set(d, 1.0F);
  for (int v = 0; v < kVectors; ++v) {
    const VecF factor = hn::Load(d, correction + v * kLanes);
    if (hn::AllTrue(d, hn::Eq(factor, one))) continue;
    for (std::int64_t dim = 0; dim < value_dim; ++dim) {
      float* const at = out + dim * kPanel + v * kLanes;
      hn::Store(hn::Mul(hn::Load(d, at), factor), d, at);
    }
  }
}

// The functions of one combination of element types.
struct TileFunctions {
  void (*cut_keys)(const AttentionTask&, KeyRange, const TileMemory&, Magnitude&) = nullptr;
  void (*cut_values)(const AttentionTask&, KeyRange, const TileMemory&, Magnitude&) = nullptr;
  void (*score)(const TileMemory&, const PanelStage&, const PanelStage&, std::int64_t,
                std::int64_t) = nullptr;
  void (*add_values)(const TileMemory&, const PanelStage&, const PanelStage&, std::int64_t,
                     std::int64_t) = nullptr;
};

template <class T>
HWY_INLINE void use_for_keys(TileFunctions& functions) {
  functions.cut_keys = &cut_keys<T>;
  functions.score = &score_in_tiles<kPieces<T>>;
}
template <class T>
HWY_INLINE void use_for_values(TileFunctions& functions) {
  functions.cut_values = &cut_values<T>;
  functions.add_values = &add_values_in_tiles<kPieces<T>>;
}

HWY_INLINE TileFunctions tile_functions(DType keys, DType values) {
  TileFunctions functions;
  switch (keys) {
    case DType::f32:
      use_for_keys<float>(functions);
      break;
    case DType::bf16:
      use_for_keys<Bf16>(functions);
      break;
    case DType::f16:
      use_for_keys<F16>(functions);
      break;
  }
  switch (values) {
    case DType::f32:
      use_for_values<float>(functions);
      break;
    case DType::bf16:
      use_for_values<Bf16>(functions);
      break;
    case DType::f16:
      use_for_values<F16>(functions);
      break;
  }
  return functions;
}

// Asks for keys or values to be brought to L2.
HWY_INLINE void prefetch_positions(const KvBlocks& kv, std::int64_t head, KeyRange range,
                                   std::int64_t dim) {
  constexpr std::int64_t kCacheLine = 64;
  const std::int64_t size = size_in_bytes(kv.dtype);
  for (std::int64_t position = range.begin; position < range.end;) {
    const std::int64_t end = std::min(range.end, position + left_in_block(kv, position));
    const void* const first = size == sizeof(float)
                                  ? static_cast<const void*>(kv_at<float>(kv, position, head))
                                  : kv_at<F16>(kv, position, head);
    const auto* at = static_cast<const std::byte*>(first);
    for (; position < end; ++position, at += kv.position_stride * size) {
      for (std::int64_t byte = 0; byte < dim * size; byte += kCacheLine) {
        __builtin_prefetch(at + byte, 0, 2);
      }
    }
  }
}

// Part `index` of `parts` of the block after `block`, keys and values.
HWY_INLINE void prefetch_next_block(const AttentionTask& task, KeyRange block, std::int64_t index,
                                    std::int64_t parts) {
  const std::int64_t begin = task.keys.begin + block.end;
  const std::int64_t count = std::min(kKeyBlock, task.keys.end - begin);
  const KeyRange range{.begin = begin + count * index / parts,
                       .end = begin + count * (index + 1) / parts};
  prefetch_positions(task.tile->keys, task.kv_head, range, task.tile->key_dim);
  prefetch_positions(task.tile->values, task.kv_head, range, task.tile->value_dim);
}

// All panels against the block of keys [block.begin, block.end), counted from the task's first key.
HWY_INLINE void attend_block_in_tiles(const AttentionTask& task, const TileFunctions& functions,
                                      const TileMemory& memory, KeyRange block,
                                      std::int64_t panels) {
  std::int64_t begin = 0;
  while (begin < panels && memory.panel(begin).any().end <= block.begin) ++begin;
  std::int64_t end = begin;
  while (end < panels && memory.panel(end).any().begin < block.end) ++end;
  // Panel p is scored while p - 1 is weighed; then p - 2 gets its values, while the rest of it is.
  PanelStage stages[3];  // Not a std::array, whose constructor lacks the attributes of the target.
  for (std::int64_t p = begin; p < end + 2; ++p) {
    const auto slot = static_cast<std::size_t>(p - begin);
    prefetch_next_block(task, block, p - begin, end + 2 - begin);
    PanelStage& scored = stages[slot % 3];
    const PanelStage& weighed = stages[(slot + 2) % 3];
    const PanelStage& added = stages[(slot + 1) % 3];
    scored = p < end ? PanelStage(memory, block, p, slot % 2) : PanelStage();
    const std::int64_t pairs = weighed.pairs();
    const std::int64_t half = added.count > 0 ? pairs / 2 : pairs;
    functions.score(memory, scored, weighed, 0, half);
    if (scored.count > 0) scored.start_weighing();
    if (added.count == 0) continue;
    correct_output(memory.value_dim, added.correction, added.panel.out);
    functions.add_values(memory, added, weighed, half, pairs);
  }
}

// Notes the magnitudes of a panel's queries before they are cut.
HWY_INLINE void note_queries(const RowPanel& panel, std::int64_t key_dim, Magnitude& magnitude) {
  const DF d;
  for (std::int64_t i = 0; i < key_dim * kPanel; i += kLanes)
    magnitude.note(hn::Load(d, panel.q + i));
}

// False, and nothing is written, where values are too large to be cut.
HWY_INLINE bool attend_in_tiles(const AttentionTask& task) {
  const TileMemory memory(task);
  const TileFunctions functions = tile_functions(task.tile->keys.dtype, task.tile->values.dtype);
  const TileRegisters registers;
  Magnitude magnitude;
  const std::int64_t panels = ceil_div(task.rows(), kPanel);
  for (std::int64_t p = 0; p < panels; ++p) {
    const RowPanel panel = memory.panel(p);
    start_panel(task, task.row_begin + p * kPanel, panel);
    note_queries(panel, memory.key_dim, magnitude);
    cut_panel(panel.q, memory.key_dim, memory.queries(p));
    std::fill(panel.out + memory.value_dim * kPanel, panel.largest, 0.0F);
  }
  for (std::int64_t begin = task.keys.begin; begin < task.keys.end; begin += kKeyBlock) {
    const KeyRange range{.begin = begin, .end = std::min(begin + kKeyBlock, task.keys.end)};
    functions.cut_keys(task, range, memory, magnitude);
    functions.cut_values(task, range, memory, magnitude);
    if (!magnitude.moderate()) return false;
    const KeyRange block{.begin = range.begin - task.keys.begin,
                         .end = range.end - task.keys.begin};
    attend_block_in_tiles(task, functions, memory, block, panels);
  }
  for (std::int64_t p = 0; p < panels; ++p) {
    finish_panel(task, task.row_begin + p * kPanel, memory.panel(p));
  }
  return true;
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET == HWY_AVX3
#endif  // WEIR_KERNEL_ATTENTION_TILES_INL_H_
