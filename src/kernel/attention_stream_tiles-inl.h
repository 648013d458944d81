// Attention of tasks with few rows (attention_stream-inl.h) on AMX tiles, for keys and values of
// bf16 that several heads share, where multiply-adds would take longer than reading:
//   scores [keys, rows] = K [keys, key_dim] q^T [key_dim, rows]
//   out [rows, value_dim] += p [rows, keys] V [keys, value_dim]
// Keys are tiles as they lie in memory, values are interleaved by pairs of keys, queries and
// softmax weights are cut into pieces (amx-inl.h). Vector units make the values of a run ready
// while tiles hold its scores, and weigh these while tiles add up the values of the run before.
//
// Keys and values are multiplied whole, however large: what is not finite among them makes scores
// or outputs so that are not finite either, and the job is left to multiply-adds.

#if defined(WEIR_KERNEL_ATTENTION_STREAM_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_ATTENTION_STREAM_TILES_INL_H_
#undef WEIR_KERNEL_ATTENTION_STREAM_TILES_INL_H_
#else
#define WEIR_KERNEL_ATTENTION_STREAM_TILES_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <span>

#include "kernel/amx-inl.h"
#include "kernel/attention_stream-inl.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

inline constexpr std::int64_t kRunTiles = kRunKeys / kTileSize;
inline constexpr std::int64_t kRunSteps = kRunKeys / kStepDepth;
static_assert(kMostStreamedRows <= kTileSize && kRunTiles == 4);

// Rows from which on tiles are faster than vectors, which up to there are bound by reading.
inline constexpr std::int64_t kFewestTileRows = 5;

HWY_INLINE bool fits_tiles(const AttentionTask& task) {
  const AttentionTile& tile = *task.tile;
  return task.rows() >= kFewestTileRows && tile.keys.dtype == DType::bf16 &&
         tile.values.dtype == DType::bf16 && tile.key_dim % kStepDepth == 0 &&
         tile.value_dim % kStepDepth == 0;
}

// The rows of one task.
struct TileRows {
  std::uint32_t* queries = nullptr;  // B of the scores: [step, piece] tiles.
  float* out = nullptr;              // [kTileSize, value_dim], columns as `column_of` says.
  float* largest = nullptr;          // [kTileSize], base 2.
  float* sums = nullptr;             // [kTileSize, kLanes], parts of the sum of weights.
  std::int64_t count = 0;
};

// A run of keys of one task, and the operands of its output.
struct TileRun {
  TileRows rows;
  std::int64_t count = 0;            // Keys.
  std::uint32_t* weights = nullptr;  // A: [step, piece] tiles.
  std::uint32_t* values = nullptr;   // B: [step, dimensions by 16] tiles.
};

// The memory of a job, cut from the worker's scratch.
class TileStreamMemory {
 public:
  explicit TileStreamMemory(std::span<const AttentionTask> tasks)
      : key_dim(tasks.front().tile->key_dim), value_dim(tasks.front().tile->value_dim) {
    const auto count = static_cast<std::int64_t>(tasks.size());
    const std::int64_t query_words = key_dim / kStepDepth * kPieces<float> * kTileWords;
    const std::int64_t key_words = kRunTiles * (key_dim / kStepDepth) * kTileWords;
    const std::int64_t value_words = kRunSteps * value_dim / kTileSize * kTileWords;
    constexpr std::int64_t kWeightWords = kRunSteps * kPieces<float> * kTileWords;
    task_floats_ = query_words + kTileSize * (value_dim + kLanes + 1);
    Scratch& scratch = worker_scratch();
    scratch.reserve(
        Scratch::bytes_of_floats(count * task_floats_) + Scratch::bytes_of_floats(key_words) +
        2 * Scratch::bytes_of_floats(value_words) + 2 * Scratch::bytes_of_floats(kWeightWords) +
        Scratch::bytes_of_floats(2 * kPieces<float> * kTileWords) +
        Scratch::bytes_of_floats(kTileSize * kRunKeys));
    tasks_ = scratch.floats(count * task_floats_);
    keys = reinterpret_cast<std::uint32_t*>(scratch.floats(key_words));
    products = scratch.floats(2 * kPieces<float> * kTileWords);
    scores = scratch.floats(kTileSize * kRunKeys);
    for (std::size_t turn = 0; turn < 2; ++turn) {
      values_[turn] = reinterpret_cast<std::uint32_t*>(scratch.floats(value_words));
      weights_[turn] = reinterpret_cast<std::uint32_t*>(scratch.floats(kWeightWords));
    }
  }

  [[nodiscard]] TileRows rows_of(const AttentionTask& task, std::size_t index) const {
    auto* const queries =
        reinterpret_cast<std::uint32_t*>(tasks_ + static_cast<std::int64_t>(index) * task_floats_);
    float* const out =
        reinterpret_cast<float*>(queries) + key_dim / kStepDepth * kPieces<float> * kTileWords;
    float* const sums = out + kTileSize * value_dim;
    return {.queries = queries,
            .out = out,
            .largest = sums + kTileSize * kLanes,
            .sums = sums,
            .count = task.rows()};
  }
  // Two runs in turn.
  [[nodiscard]] TileRun run_of_turn(std::size_t turn, const TileRows& rows,
                                    std::int64_t count) const {
    return {
        .rows = rows, .count = count, .weights = weights_[turn % 2], .values = values_[turn % 2]};
  }

  std::int64_t key_dim;
  std::int64_t value_dim;
  // Of the present run:
  std::uint32_t* keys = nullptr;  // Those of a run that is not full.
  float* products = nullptr;      // Of two tiles in turn: [piece, kTileSize, kTileSize].
  float* scores = nullptr;        // [kTileSize, kRunKeys]

 private:
  std::int64_t task_floats_ = 0;
  float* tasks_ = nullptr;
  std::array<std::uint32_t*, 2> values_ = {};
  std::array<std::uint32_t*, 2> weights_ = {};
};

// A word is a pair of neighbouring dimensions, as keys have them.
HWY_INLINE void cut_queries(const AttentionTask& task, const TileRows& rows, Magnitude& magnitude) {
  const float scale = static_cast<float>(task.tile->scale * std::numbers::log2e);
  const DF d;
  HWY_ALIGN float low[kTileSize] = {};
  HWY_ALIGN float high[kTileSize] = {};
  std::uint32_t* to = rows.queries;
  for (std::int64_t step = 0; step < task.tile->key_dim; step += kStepDepth) {
    for (std::int64_t pair = 0; pair < kTileSize; ++pair) {
      for (std::int64_t row = 0; row < rows.count; ++row) {
        const float* const q = task.q(task.row_begin + row) + step + 2 * pair;
        low[row] = q[0] * scale;
        high[row] = q[1] * scale;
      }
      magnitude.note(hn::Load(d, low));
      magnitude.note(hn::Load(d, high));
      put_pieces<kPieces<float>>(hn::Load(d, low), hn::Load(d, high), to + pair * kTileSize,
                                 kTileWords);
    }
    to += kPieces<float> * kTileWords;
  }
}

// The column of the tiles of values that dimension `dim` is: within 32 of them, interleaving goes
// by blocks of 128 bits.
HWY_INLINE constexpr std::int64_t column_of(std::int64_t dim) {
  const std::int64_t within = dim % kStepDepth;
  return dim - within + within % 8 / 4 * kTileSize + within / 8 * 4 + within % 4;
}

// The rows of a run of keys or values, or of none.
struct RunRows {
  const std::byte* at = nullptr;
  std::int64_t stride = 0;  // Bytes.

  [[nodiscard]] HWY_INLINE const std::uint16_t* row(std::int64_t key) const {
    return reinterpret_cast<const std::uint16_t*>(at + key * stride);
  }
  // To L2, some dimensions of a row. One line at a time between other work: a burst of them keeps
  // what is loaded from L2 waiting. A hint, which may lie outside what is there.
  HWY_INLINE void ask_for(std::int64_t key, std::int64_t dim) const {
    const std::int64_t byte = key * stride + dim * static_cast<std::int64_t>(sizeof(Bf16));
    const auto address = reinterpret_cast<std::uintptr_t>(at) + static_cast<std::uintptr_t>(byte);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): outside an array pointers must not be added to.
    __builtin_prefetch(reinterpret_cast<const void*>(address), 0, 2);
  }
};

// A run and the one after it.
struct RunPair {
  RunRows keys;
  RunRows values;
  RunRows next_keys;
  RunRows next_values;
};

// What vector units do while tiles hold the scores of a run: interleave its values, and ask for the
// keys of the next run and for the first half of each step of its values.
class ReadiesValues {
 public:
  HWY_INLINE ReadiesValues(const RunPair& runs, std::int64_t count, const TileStreamMemory& memory,
                           std::uint32_t* to, std::int64_t turns)
      : runs_(runs),
        count_(count),
        key_dim_(memory.key_dim),
        value_dim_(memory.value_dim),
        to_(to),
        pairs_(ceil_div(count, kStepDepth) * kTileSize),
        pairs_pace_(pairs_, turns) {}

  HWY_INLINE void step() {
    for (pairs_pace_.step(); pairs_pace_.due();) put_pair();
  }
  // What is left, for while the last sums are on their way.
  HWY_INLINE void finish() {
    while (pair_ < pairs_) put_pair();
  }

 private:
  HWY_INLINE void put_pair() {
    HWY_ALIGN static constexpr std::uint16_t kZeros[kStepDepth] = {};
    const std::int64_t step = pair_ / kTileSize;
    const std::int64_t row = pair_ % kTileSize;
    const std::int64_t key = step * kStepDepth + row;
    ++pair_;
    // Keys past the last have weight zero; their values are zeros.
    const bool has_low = key < count_;
    const bool has_high = key + kTileSize < count_;
    const std::uint16_t* const low = has_low ? runs_.values.row(key) : kZeros;
    const std::uint16_t* const high = has_high ? runs_.values.row(key + kTileSize) : kZeros;
    std::uint32_t* to = to_ + (step * value_dim_ + row) * kTileSize;
    for (std::int64_t dim = 0; dim < value_dim_; dim += kStepDepth, to += 2 * kTileWords) {
      runs_.next_values.ask_for(key, dim);
      put_vectors(has_low ? low + dim : low, has_high ? high + dim : high, to);
    }
    for (std::int64_t dim = 0; dim < key_dim_; dim += kStepDepth) {
      runs_.next_keys.ask_for(key, dim);
      runs_.next_keys.ask_for(key + kTileSize, dim);
    }
  }

  HWY_INLINE void put_vectors(const std::uint16_t* low_at, const std::uint16_t* high_at,
                              std::uint32_t* to) {
    const hn::ScalableTag<std::uint16_t> d;
    const hn::RepartitionToWide<decltype(d)> words;
    const auto low = hn::LoadU(d, low_at);
    const auto high = hn::LoadU(d, high_at);
    hn::Store(hn::BitCast(words, hn::InterleaveLower(d, low, high)), words, to);
    hn::Store(hn::BitCast(words, hn::InterleaveUpper(d, low, high)), words, to + kTileWords);
  }

  RunPair runs_;
  std::int64_t count_;
  std::int64_t key_dim_;
  std::int64_t value_dim_;
  std::uint32_t* to_;
  std::int64_t pair_ = 0;
  std::int64_t pairs_;
  EvenPace pairs_pace_;
};

// to[r, j] = key j . query r for a tile of keys, kRunKeys apart, from the products with each piece.
HWY_INLINE void put_scores(const float* products, float* to, std::int64_t rows,
                           Magnitude& magnitude) {
  const DF d;
  HWY_ALIGN float sums[kTileWords];
  for (std::int64_t at = 0; at < kTileWords; at += kLanes) {
    const VecF small = hn::Add(hn::Load(d, products + kTileWords + at),
                               hn::Load(d, products + 2 * kTileWords + at));
    const VecF sum = hn::Add(hn::Load(d, products + at), small);
    magnitude.note(sum);
    hn::Store(sum, d, sums + at);
  }
  transpose_tile(reinterpret_cast<const std::uint32_t*>(sums), reinterpret_cast<std::uint32_t*>(to),
                 kRunKeys, rows);
}

// scores[r, j] = key j . query r, for `tiles` tiles of keys.
HWY_INLINE void score_tiles(const RunRows& keys, std::int64_t tiles, const TileRows& rows,
                            const TileStreamMemory& memory, ReadiesValues& beside,
                            Magnitude& magnitude) {
  constexpr std::int64_t kProducts = kPieces<float> * kTileWords;
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    float* const products = memory.products + tile % 2 * kProducts;
    const std::uint32_t* q = rows.queries;
    const std::byte* at = keys.at + tile * kTileSize * keys.stride;
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    for (std::int64_t step = 0; step < memory.key_dim; step += kStepDepth) {
      load_tile<4>(at, keys.stride);
      load_tile<5>(q, kTileStride);
      multiply_tiles<0, 4, 5>();
      load_tile<6>(q + kTileWords, kTileStride);
      multiply_tiles<1, 4, 6>();
      load_tile<7>(q + 2 * kTileWords, kTileStride);
      multiply_tiles<2, 4, 7>();
      beside.step();
      q += kPieces<float> * kTileWords;
      at += kTileStride;
    }
    store_tile<0>(products, kTileStride);
    store_tile<1>(products + kTileWords, kTileStride);
    store_tile<2>(products + 2 * kTileWords, kTileStride);
    if (tile > 0) {
      put_scores(memory.products + (tile - 1) % 2 * kProducts,
                 memory.scores + (tile - 1) * kTileSize, rows.count, magnitude);
    }
  }
  beside.finish();
  put_scores(memory.products + (tiles - 1) % 2 * kProducts, memory.scores + (tiles - 1) * kTileSize,
             rows.count, magnitude);
}

// Asks for the second half of each step of a run's values.
class AsksForValues {
 public:
  HWY_INLINE AsksForValues(const RunRows& values, std::int64_t value_dim)
      : values_(values), value_dim_(value_dim) {}

  HWY_INLINE void step() {
    // Six steps for 32 dimensions, of which 32 rows are 32 lines.
    constexpr int kLines = 6;
    HWY_UNROLL(6)
    for (int line = 0; line < kLines; ++line) {
      values_.ask_for(key_, dim_);
      dim_ += kStepDepth;
      if (dim_ < value_dim_) continue;
      dim_ = 0;
      key_ += key_ % kTileSize == kTileSize - 1 ? kTileSize + 1 : 1;
    }
  }

 private:
  RunRows values_;
  std::int64_t value_dim_;
  std::int64_t key_ = kTileSize;
  std::int64_t dim_ = 0;
};

// out += the run's weights times its values, for 32 dimensions from `dim` on.
HWY_INLINE void add_dimensions_in_tiles(const TileRun& run, std::int64_t value_dim,
                                        std::int64_t dim, AsksForValues& beside) {
  const std::int64_t stride = value_dim * static_cast<std::int64_t>(sizeof(float));
  load_tile<0>(run.rows.out + dim, stride);
  load_tile<1>(run.rows.out + dim + kTileSize, stride);
  for (std::int64_t step = 0; step * kStepDepth < run.count; ++step) {
    const std::uint32_t* const weights = run.weights + step * kPieces<float> * kTileWords;
    const std::uint32_t* const values = run.values + (step * value_dim + dim) * kTileSize;
    load_tile<5>(values, kTileStride);
    load_tile<6>(values + kTileWords, kTileStride);
    load_tile<2>(weights, kTileStride);
    multiply_tiles<0, 2, 5>();
    multiply_tiles<1, 2, 6>();
    beside.step();
    load_tile<3>(weights + kTileWords, kTileStride);
    multiply_tiles<0, 3, 5>();
    multiply_tiles<1, 3, 6>();
    beside.step();
    load_tile<4>(weights + 2 * kTileWords, kTileStride);
    multiply_tiles<0, 4, 5>();
    multiply_tiles<1, 4, 6>();
    beside.step();
  }
  store_tile<0>(run.rows.out + dim, stride);
  store_tile<1>(run.rows.out + dim + kTileSize, stride);
}

HWY_INLINE void cut_weights(const TileRun& run, const TileStreamMemory& memory) {
  const DF d;
  for (std::int64_t row = 0; row < run.rows.count; ++row) {
    float* const weights = memory.scores + row * kRunKeys;
    // The softmax has weights up to a whole vector only.
    std::fill(weights + round_up(run.count, kLanes), weights + round_up(run.count, kStepDepth),
              0.0F);
    std::uint32_t* to = run.weights + row * kTileSize;
    for (std::int64_t key = 0; key < run.count; key += kStepDepth) {
      put_pieces<kPieces<float>>(hn::Load(d, weights + key), hn::Load(d, weights + key + kTileSize),
                                 to, kTileWords);
      to += kPieces<float> * kTileWords;
    }
  }
}

HWY_INLINE void scale_row(std::int64_t value_dim, float factor, float* out) {
  if (factor == 1) return;
  const DF d;
  for (std::int64_t dim = 0; dim < value_dim; dim += kLanes)
    hn::Store(hn::Mul(hn::Load(d, out + dim), hn::Set(d, factor)), d, out + dim);
}

HWY_INLINE void finish_tile_rows(const AttentionTask& task, const TileRows& rows,
                                 Magnitude& magnitude) {
  const DF d;
  const std::int64_t value_dim = task.tile->value_dim;
  for (std::int64_t row = 0; row < rows.count; ++row) {
    const float* const from = rows.out + row * value_dim;
    for (std::int64_t dim = 0; dim < value_dim; dim += kLanes)
      magnitude.note(hn::Load(d, from + dim));
    const float inverse = finish_sum(task, row, rows.sums + row * kLanes, rows.largest[row]);
    float* const out = task.out(task.row_begin + row);
    for (std::int64_t dim = 0; dim < value_dim; ++dim) out[dim] = from[column_of(dim)] * inverse;
  }
}

// The tasks of a job, as attend_in_runs takes them.
class TileStream {
 public:
  explicit TileStream(std::span<const AttentionTask> tasks)
      : tasks_(tasks), tile_(*tasks.front().tile), memory_(tasks) {}

  // False where something is not finite, or too large to be cut: then the output is not complete.
  HWY_INLINE bool attend() {
    const TileRegisters registers;
    if (!start()) return false;
    StreamPlace at{.block = block_from(tasks_.front(), tasks_.front().keys.begin)};
    at.run = run_from(tasks_.front(), at.block, at.block.begin);
    TileRun before;
    for (std::size_t turn = 0; at.run.begin < at.run.end; ++turn) {
      const StreamPlace next = place_after(tasks_, at);
      const TileRows rows = memory_.rows_of(tasks_[at.task], at.task);
      const TileRun run = memory_.run_of_turn(turn, rows, at.run.end - at.run.begin);
      score(at, next, run);
      weigh(at, next, run, before);
      before = run;
      at = next;
    }
    AsksForValues beside({}, memory_.value_dim);
    add_dimensions(before, 0, memory_.value_dim, beside);
    for (std::size_t index = 0; index < tasks_.size(); ++index)
      finish_tile_rows(tasks_[index], memory_.rows_of(tasks_[index], index), magnitude_);
    return magnitude_.moderate();
  }

 private:
  HWY_INLINE bool start() {
    for (std::size_t index = 0; index < tasks_.size(); ++index) {
      const TileRows rows = memory_.rows_of(tasks_[index], index);
      cut_queries(tasks_[index], rows, magnitude_);
      std::fill_n(rows.out, kTileSize * memory_.value_dim, 0.0F);
      std::fill_n(rows.sums, kTileSize * kLanes, 0.0F);
      std::fill_n(rows.largest, kTileSize, kNoScore);
    }
    return magnitude_.moderate();
  }

  // Leaves scores[row, key], and the values of the run ready.
  HWY_NOINLINE void score(const StreamPlace& at, const StreamPlace& next, const TileRun& run) {
    const std::int64_t tiles = ceil_div(run.count, kTileSize);
    const RunPair runs = {.keys = rows_of(tile_.keys, at),
                          .values = rows_of(tile_.values, at),
                          .next_keys = rows_of(tile_.keys, next),
                          .next_values = rows_of(tile_.values, next)};
    RunRows keys = runs.keys;
    if (run.count % kTileSize != 0) {
      // Tiles must not reach past the last key. Keys after it are zeros, which no row sees.
      const std::int64_t row_bytes = memory_.key_dim * static_cast<std::int64_t>(sizeof(Bf16));
      auto* const copy = reinterpret_cast<std::byte*>(memory_.keys);
      for (std::int64_t key = 0; key < run.count; ++key) {
        std::memcpy(copy + key * row_bytes, keys.row(key), static_cast<std::size_t>(row_bytes));
      }
      std::memset(copy + run.count * row_bytes, 0,
                  static_cast<std::size_t>((tiles * kTileSize - run.count) * row_bytes));
      keys = {.at = copy, .stride = row_bytes};
    }
    // Some of it is left for after the last tile.
    const std::int64_t turns = tiles * (memory_.key_dim / kStepDepth + 1);
    ReadiesValues beside(runs, run.count, memory_, run.values, turns);
    Magnitude magnitude = magnitude_;
    score_tiles(keys, tiles, run.rows, memory_, beside, magnitude);
    magnitude_ = magnitude;
  }

  // Turns scores into weights, row by row, while tiles add the values of the run before.
  HWY_NOINLINE void weigh(const StreamPlace& at, const StreamPlace& next, const TileRun& run,
                          const TileRun& before) {
    const AttentionTask& task = tasks_[at.task];
    AsksForValues beside(rows_of(tile_.values, next), memory_.value_dim);
    const std::int64_t groups = memory_.value_dim / kStepDepth;
    float corrections[kTileSize];
    for (std::int64_t row = 0; row < run.rows.count; ++row) {
      add_dimensions(before, groups * row / run.rows.count * kStepDepth,
                     groups * (row + 1) / run.rows.count * kStepDepth, beside);
      const KeyRange seen = task.seen(task.row_begin + row);
      softmax_run({.begin = seen.begin - at.run.begin, .end = seen.end - at.run.begin}, run.count,
                  memory_.scores + row * kRunKeys, run.rows.largest[row],
                  run.rows.sums + row * kLanes, corrections[row]);
    }
    for (std::int64_t row = 0; row < run.rows.count; ++row)
      scale_row(memory_.value_dim, corrections[row], run.rows.out + row * memory_.value_dim);
    cut_weights(run, memory_);
  }

  [[nodiscard]] HWY_INLINE RunRows rows_of(const KvBlocks& kv, const StreamPlace& place) const {
    if (place.run.begin >= place.run.end) return {};
    return {.at = reinterpret_cast<const std::byte*>(
                kv_at<Bf16>(kv, place.run.begin, tasks_[place.task].kv_head)),
            .stride = kv.position_stride * static_cast<std::int64_t>(sizeof(Bf16))};
  }

  HWY_INLINE void add_dimensions(const TileRun& run, std::int64_t begin, std::int64_t end,
                                 AsksForValues& beside) const {
    if (run.count == 0) return;
    for (std::int64_t dim = begin; dim < end; dim += kStepDepth)
      add_dimensions_in_tiles(run, memory_.value_dim, dim, beside);
  }

  std::span<const AttentionTask> tasks_;
  const AttentionTile& tile_;
  TileStreamMemory memory_;
  Magnitude magnitude_;  // Of queries, scores and outputs.
};

HWY_INLINE bool attend_in_runs_of_tiles(std::span<const AttentionTask> tasks) {
  return TileStream(tasks).attend();
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET == HWY_AVX3
#endif  // WEIR_KERNEL_ATTENTION_STREAM_TILES_INL_H_
