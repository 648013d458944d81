// Runs of keys and values times the few rows of a task: what attention when decoding is made of
// (attention_stream-inl.h). Dimensions lie across vector lanes.

#if defined(WEIR_KERNEL_ATTENTION_RUNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEIR_KERNEL_ATTENTION_RUNS_INL_H_
#undef WEIR_KERNEL_ATTENTION_RUNS_INL_H_
#else
#define WEIR_KERNEL_ATTENTION_RUNS_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernel/panel.h"
#include "kernel/tile-inl.h"
#include "kernel/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

// Keys of a run at most: 64 rows of 128 two-byte values are 16 KiB each for keys and values.
inline constexpr std::int64_t kRunKeys = 64;

// Rows whose products are formed while a vector of K or V is in a register.
inline constexpr int kStreamRows = 4;
// Keys that are scored at once, and vectors of values added at once, for so many rows: 4 to 16 sums
// in registers. With 16 of them, 16 sums for four rows took 1.1 to 1.5 times as long as 8 twice.
inline constexpr bool kManyRegisters = kRegisters == 32;
constexpr int score_keys(int rows) { return kManyRegisters || rows <= 3 ? 4 : 2; }
template <class T>
constexpr int value_vectors(int rows) {
  if (rows == 1) return 8;
  // Two vectors of bf16 are widened at a time, and need one register more.
  return kManyRegisters || rows <= (std::is_same_v<T, Bf16> ? 2 : 3) ? 4 : 2;
}

// Vectors of bf16 are widened two at a time, with one operation each: the even dimensions of both,
// and the odd ones. So they stand in what such vectors are multiplied by and added to, for as many
// of `dims` dimensions as fill two vectors.
inline constexpr bool kWidensPairs = kLanes > 1;
HWY_INLINE constexpr std::int64_t dims_in_pairs(DType dtype, std::int64_t dims) {
  return kWidensPairs && dtype == DType::bf16 ? dims / (2 * kLanes) * (2 * kLanes) : 0;
}

// How many of `vectors` vectors are widened at a time.
template <class T, int vectors>
constexpr int vectors_together() {
  return std::is_same_v<T, Bf16> && kWidensPairs && vectors % 2 == 0 ? 2 : 1;
}
template <class T>
HWY_INLINE void load_together(const T* from, VecF (&to)[1]) {
  to[0] = load_wide(DF(), from);
}
HWY_INLINE void load_together(const Bf16* from, VecF (&to)[2]) {
  const auto pairs = hn::LoadU(Words(), reinterpret_cast<const std::uint32_t*>(from));
  to[0] = lower_bf16(pairs);
  to[1] = upper_bf16(pairs);
}

// What is read next, to be asked for while the present rows are worked on: hardware prefetchers
// lose the thread where the stream jumps from keys to values and back. Lines are asked for at an
// even pace, so that memory never idles, and into L2, to which a core can have more of them under
// way than to L1.
struct NextRun {
  const std::byte* at = nullptr;  // The first row not yet asked for.
  std::int64_t stride = 0;        // Bytes.
  std::int64_t bytes = 0;         // Of one row.
  std::int64_t rows = 0;          // Not yet asked for.
  std::int64_t asked = 0;         // Bytes of the first of them.
  std::int64_t pace = 0;          // Lines asked for in one step.

  static constexpr std::int64_t kCacheLine = 64;

  // The next `steps` steps ask for all of it.
  HWY_INLINE void spread_over(std::int64_t steps) {
    pace = ceil_div(rows * ceil_div(bytes, kCacheLine), steps);
  }

  HWY_INLINE void step() {
    for (std::int64_t line = 0; line < pace && rows > 0; ++line) {
      __builtin_prefetch(at + asked, 0, 2);
      asked += kCacheLine;
      if (asked < bytes) continue;
      asked = 0;
      at += stride;
      --rows;
    }
  }
};

// `count` rows of keys or values at equal distances in memory.
template <class T>
struct Run {
  const T* at;
  std::int64_t stride;
  std::int64_t count;
  NextRun next;
};

// The rows of one task while it passes over a run. Dimensions stand as dims_in_pairs says, by the
// type of keys in q and of values in out.
struct StreamRows {
  float* q = nullptr;           // [count, key_dim], times scale and log2(e).
  float* out = nullptr;         // [count, value_dim], not yet divided by `sum`.
  float* largest = nullptr;     // [count], base 2.
  float* sums = nullptr;        // [count, kLanes], parts of the sum of weights.
  float* scores = nullptr;      // [count, kRunKeys], of the present run.
  float* correction = nullptr;  // [count], likewise.
  std::int64_t count = 0;
  std::int64_t key_dim = 0;
  std::int64_t value_dim = 0;
};

#if HWY_TARGET == HWY_SCALAR
// to[0..4) = sums over the lanes of four vectors.
HWY_INLINE void store_sums(const VecF (&v)[4], float* to) {
  for (int i = 0; i < 4; ++i) to[i] = hn::GetLane(v[i]);
}
#else
// Sum of all blocks of 128 bits.
template <class D>
HWY_INLINE auto sum_of_blocks(D, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return sum_of_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// to[0..4) = sums over the lanes of four vectors, with a third of the shuffles that four separate
// sums would take.
HWY_INLINE void store_sums(const VecF (&v)[4], float* to) {
  const DF d;
  const hn::Repartition<double, DF> pairs;
  const auto sum01 = hn::BitCast(
      pairs, hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1])));
  const auto sum23 = hn::BitCast(
      pairs, hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3])));
  const VecF sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, sum01, sum23)),
                            hn::BitCast(d, hn::InterleaveUpper(pairs, sum01, sum23)));
  hn::StoreU(sum_of_blocks(d, sums), hn::CappedTag<float, 4>(), to);
}
#endif

template <int rows>
using ScoreSums = VecF[rows][score_keys(rows)];

// acc[r][k] += `vectors` vectors of row r of q times those of key k. Each key's lie together and
// are read in one go, for hardware prefetchers to see a stream.
template <int vectors, int rows, class T>
HWY_INLINE void add_key_by_key(const T* keys, std::int64_t stride, const float* q,
                               std::int64_t key_dim, ScoreSums<rows>& acc) {
  const DF d;
  constexpr int kKeys = score_keys(rows);
  constexpr int kTogether = vectors_together<T, vectors>();
  VecF query[rows][vectors];
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) query[r][v] = hn::LoadU(d, q + r * key_dim + v * kLanes);
  }
  HWY_UNROLL(8)
  for (int k = 0; k < kKeys; ++k) {
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; v += kTogether) {
      VecF key[kTogether];
      load_together(keys + k * stride + v * kLanes, key);
      HWY_UNROLL(2)
      for (int i = 0; i < kTogether; ++i) {
        HWY_UNROLL(8)
        for (int r = 0; r < rows; ++r) acc[r][k] = hn::MulAdd(query[r][v + i], key[i], acc[r][k]);
      }
    }
  }
}

// As many dimensions from `dim` on as there are `vectors` of.
template <int vectors, int rows, class T>
HWY_INLINE void add_products(const T* keys, std::int64_t stride, const float* q,
                             std::int64_t key_dim, std::int64_t& dim, ScoreSums<rows>& acc) {
  for (; dim + vectors * kLanes <= key_dim; dim += vectors * kLanes)
    add_key_by_key<vectors, rows>(keys + dim, stride, q + dim, key_dim, acc);
}

template <int rows>
HWY_INLINE void store_scores(const ScoreSums<rows>& acc, float* scores) {
  if constexpr (score_keys(rows) == 4) {
    HWY_UNROLL(8)
    for (int r = 0; r < rows; ++r) store_sums(acc[r], scores + r * kRunKeys);
  } else {
    HWY_UNROLL(4)
    for (int r = 0; r < rows; r += 2) {
      const int other = r + 1 < rows ? r + 1 : r;
      const VecF two_rows[4] = {acc[r][0], acc[r][1], acc[other][0], acc[other][1]};
      HWY_ALIGN float sums[4];
      store_sums(two_rows, sums);
      std::copy_n(sums, 2, scores + r * kRunKeys);
      std::copy_n(sums + 2, 2, scores + other * kRunKeys);
    }
  }
}

// scores[r, 0..score_keys(rows)) for `rows` rows of q and the keys from `keys` on, `stride` apart.
template <int rows, class T>
HWY_INLINE void score_keys_of_rows(const T* keys, std::int64_t stride, const float* q,
                                   std::int64_t key_dim, float* scores) {
  const DF d;
  constexpr int kKeys = score_keys(rows);
  ScoreSums<rows> acc;
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int k = 0; k < kKeys; ++k) acc[r][k] = hn::Zero(d);
  }
  std::int64_t dim = 0;
  if constexpr (rows == 1) add_products<8, rows>(keys, stride, q, key_dim, dim, acc);
  add_products<4, rows>(keys, stride, q, key_dim, dim, acc);
  add_products<2, rows>(keys, stride, q, key_dim, dim, acc);
  add_products<1, rows>(keys, stride, q, key_dim, dim, acc);
  store_scores<rows>(acc, scores);
  for (; dim < key_dim; ++dim) {
    for (int r = 0; r < rows; ++r) {
      for (int k = 0; k < kKeys; ++k) {
        scores[r * kRunKeys + k] += q[r * key_dim + dim] * widen_one(keys + k * stride + dim);
      }
    }
  }
}

template <int rows, class T>
HWY_NOINLINE void score_run(Run<T>& run, const float* q, std::int64_t key_dim, float* scores) {
  constexpr std::int64_t kKeys = score_keys(rows);
  // Fewer than kKeys keys are scored one by one, each kKeys times.
  const bool few = run.count < kKeys;
  const std::int64_t last = run.count - (few ? 1 : kKeys);
  const std::int64_t step = few ? 1 : kKeys;
  const std::int64_t stride = few ? 0 : run.stride;
  NextRun next = run.next;
  for (std::int64_t key = 0; key < run.count; key += step) {
    next.step();
    const std::int64_t j = std::min(key, last);  // The last keys may overlap those before.
    score_keys_of_rows<rows>(run.at + j * run.stride, stride, q, key_dim, scores + j);
  }
  run.next = next;
}

// acc += the weighted values of one key: its weights from `weight` on, kRunKeys apart.
template <int vectors, int rows, class T>
HWY_INLINE void add_key(const T* value, const float* weight, VecF (&acc)[rows][vectors]) {
  const DF d;
  VecF weights[rows];
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) weights[r] = hn::Set(d, weight[r * kRunKeys]);
  constexpr int kTogether = vectors_together<T, vectors>();
  HWY_UNROLL(8)
  for (int v = 0; v < vectors; v += kTogether) {
    VecF values[kTogether];
    load_together(value + v * kLanes, values);
    HWY_UNROLL(8)
    for (int r = 0; r < rows; ++r) {
      HWY_UNROLL(2)
      for (int i = 0; i < kTogether; ++i)
        acc[r][v + i] = hn::MulAdd(weights[r], values[i], acc[r][v + i]);
    }
  }
}

// Adds dimensions [dim, dim + vectors * kLanes) of the weighted values.
template <int vectors, int rows, class T>
HWY_INLINE void add_dimensions(Run<T>& run, std::int64_t dim, const StreamRows& state,
                               std::int64_t row) {
  const DF d;
  // As many keys at once, each with sums of its own, as it takes to keep eight multiply-adds in
  // flight (see tile_product).
  constexpr int kSets = std::clamp(8 / (rows * vectors), 1, 4);
  VecF acc[kSets][rows][vectors];
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    const VecF correction = hn::Set(d, state.correction[row + r]);
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) {
      const float* const out = state.out + (row + r) * state.value_dim + dim + v * kLanes;
      acc[0][r][v] = hn::Mul(hn::LoadU(d, out), correction);
      HWY_UNROLL(8)
      for (int set = 1; set < kSets; ++set) acc[set][r][v] = hn::Zero(d);
    }
  }
  NextRun next = run.next;
  const float* weight = state.scores + row * kRunKeys;
  const T* value = run.at + dim;
  std::int64_t j = 0;
  for (; j + kSets <= run.count; j += kSets) {
    HWY_UNROLL(8)
    for (int set = 0; set < kSets; ++set, value += run.stride, ++weight) {
      next.step();
      add_key<vectors, rows>(value, weight, acc[set]);
    }
  }
  for (; j < run.count; ++j, value += run.stride, ++weight) {
    next.step();
    add_key<vectors, rows>(value, weight, acc[0]);
  }
  run.next = next;
  HWY_UNROLL(8)
  for (int r = 0; r < rows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < vectors; ++v) {
      VecF sum = acc[0][r][v];
      HWY_UNROLL(8)
      for (int set = 1; set < kSets; ++set) sum = hn::Add(sum, acc[set][r][v]);
      float* const out = state.out + (row + r) * state.value_dim + dim + v * kLanes;
      hn::StoreU(sum, d, out);
    }
  }
}

// As many dimensions from `dim` on as there are `vectors` of, for no more rows than have so many at
// once.
template <int vectors, int rows, class T>
HWY_INLINE void add_all_dimensions(Run<T>& run, std::int64_t& dim, const StreamRows& state,
                                   std::int64_t row) {
  if constexpr (vectors <= value_vectors<T>(rows)) {
    for (; dim + vectors * kLanes <= state.value_dim; dim += vectors * kLanes)
      add_dimensions<vectors, rows>(run, dim, state, row);
  }
}

template <int rows, class T>
HWY_NOINLINE void add_run(Run<T>& run, const StreamRows& state, std::int64_t row) {
  std::int64_t dim = 0;
  add_all_dimensions<8, rows>(run, dim, state, row);
  add_all_dimensions<4, rows>(run, dim, state, row);
  add_all_dimensions<2, rows>(run, dim, state, row);
  add_all_dimensions<1, rows>(run, dim, state, row);
  for (; dim < state.value_dim; ++dim) {
    for (int r = 0; r < rows; ++r) {
      float& out = state.out[(row + r) * state.value_dim + dim];
      out *= state.correction[row + r];
      for (std::int64_t j = 0; j < run.count; ++j) {
        out += state.scores[(row + r) * kRunKeys + j] * widen_one(run.at + j * run.stride + dim);
      }
    }
  }
}

// What is done with a group of 1..kStreamRows rows.
template <class T>
struct RowGroupKernel {
  void (*score)(Run<T>&, const float* q, std::int64_t key_dim, float* scores);
  void (*add)(Run<T>&, const StreamRows&, std::int64_t row);
  std::int64_t score_keys;
  std::int64_t value_vectors;
};
template <class T, int... index>
constexpr std::array<RowGroupKernel<T>, sizeof...(index)> row_group_kernels(
    std::integer_sequence<int, index...>) {
  return {RowGroupKernel<T>{&score_run<index + 1, T>, &add_run<index + 1, T>, score_keys(index + 1),
                            value_vectors<T>(index + 1)}...};
}
template <class T>
HWY_INLINE const RowGroupKernel<T>& row_group_kernel(std::int64_t rows) {
  static constexpr auto kKernels =
      row_group_kernels<T>(std::make_integer_sequence<int, kStreamRows>());
  return kKernels[static_cast<std::size_t>(rows - 1)];
}

template <class T>
HWY_INLINE void score_rows(Run<T> run, const StreamRows& state) {
  const TileSplit groups(state.count, kStreamRows);
  run.next.spread_over(
      groups.tiles *
      ceil_div(run.count, row_group_kernel<T>(ceil_div(state.count, groups.tiles)).score_keys));
  for (std::int64_t group = 0; group < groups.tiles; ++group) {
    const std::int64_t row = groups.begin(group);
    row_group_kernel<T>(groups.begin(group + 1) - row)
        .score(run, state.q + row * state.key_dim, state.key_dim, state.scores + row * kRunKeys);
  }
}

template <class T>
HWY_INLINE void add_rows(Run<T> run, const StreamRows& state) {
  const TileSplit groups(state.count, kStreamRows);
  const std::int64_t vectors =
      row_group_kernel<T>(ceil_div(state.count, groups.tiles)).value_vectors;
  run.next.spread_over(groups.tiles * ceil_div(state.value_dim, vectors * kLanes) * run.count);
  for (std::int64_t group = 0; group < groups.tiles; ++group) {
    const std::int64_t row = groups.begin(group);
    row_group_kernel<T>(groups.begin(group + 1) - row).add(run, state, row);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#endif  // WEIR_KERNEL_ATTENTION_RUNS_INL_H_
