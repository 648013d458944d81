#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "kernel/kernel.h"
#include "kernel/linear_block.h"
#include "kernel/panel.h"
#include "kernel/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/linear.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/linear_tiles-inl.h"
#include "kernel/tile-inl.h"

#ifndef WEIR_KERNEL_LINEAR_ONCE
#define WEIR_KERNEL_LINEAR_ONCE
namespace weir::kernel {
namespace {

// What a worker's block costs for every step of depth, in cycles.
struct GridCosts {
  std::int64_t few_rows = 1;  // Bound by reading weights.
  double product = 0;         // A row times a panel.
  double row = 0;             // Making a row of x ready.
  double panel = 0;           // Making a panel ready.
};

// Rows of copied x: 33 lines apart, which spreads them evenly over the sets of L1 and L2.
constexpr std::int64_t kRowStride = kDepth + 16;
// Rows that share one widening of B. 280 rows of 512 values take 560 KiB of L2, two wide parts 128.
constexpr std::int64_t kChunkRows = 280;

}  // namespace
}  // namespace weir::kernel
#endif

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

using LinearLayout = RowsApart<kRowStride>;

// Copies x[begin..end, k..k+depth) to rows kRowStride apart.
HWY_INLINE void copy_rows(const LinearBlock& block, std::int64_t begin, std::int64_t end,
                          std::int64_t k, float* to) {
  const std::int64_t depth = std::min(kDepth, block.x.cols - k);
  for (std::int64_t row = begin; row < end; ++row) {
    std::memcpy(to + (row - begin) * kRowStride, block.x.data + row * block.x.row_stride + k,
                static_cast<std::size_t>(depth) * sizeof(float));
  }
}

// Where the products of a panel go: straight to `out`, or, for the last panel of out features that
// are no multiple of kPanel, to a padded copy of which the valid columns are copied to `out`.
struct PanelOutput {
  float* c = nullptr;
  std::int64_t stride = 0;
  std::int64_t columns = 0;
  const float* bias = nullptr;  // [kPanel], or null.
  HWY_ALIGN float padded_bias[kPanel];

  PanelOutput(const LinearBlock& block, std::int64_t panel, std::int64_t row, float* padded) {
    const std::int64_t first = panel * kPanel;
    columns = std::min(kPanel, block.weights->out_features - first);
    const bool whole = columns == kPanel;
    c = whole ? block.out.data + row * block.out.row_stride + first : padded;
    stride = whole ? block.out.row_stride : kPanel;
    if (block.bias.empty()) return;
    bias = block.bias.data() + first;
    if (whole) return;
    std::fill_n(padded_bias, kPanel, 0.0F);
    std::copy_n(bias, columns, padded_bias);
    bias = padded_bias;
  }

  void finish(const LinearBlock& block, std::int64_t panel, std::int64_t begin,
              std::int64_t end) const {
    if (columns == kPanel) return;
    for (std::int64_t row = begin; row < end; ++row) {
      std::copy_n(c + (row - begin) * kPanel, columns,
                  block.out.data + row * block.out.row_stride + panel * kPanel);
    }
  }
};

HWY_INLINE TileStart start_of(const float* bias, std::int64_t k) {
  if (k > 0) return TileStart::own;
  return bias == nullptr ? TileStart::zero : TileStart::vector;
}

// Rows up to which weights are widened in registers, by every tile of rows. Where a
// tile is 3 rows high, widening into memory pays for 4 or more tiles only.
inline constexpr std::int64_t kFewRows = kHoldsRowOfB ? kTileRows : 3 * kTileRows;

// With more rows than this asking for what comes next costs nothing beside multiply-adds, even
// where it is near.
constexpr int kBoundByLoads = 2;

template <class T>
HWY_INLINE TileProduct product_of_few_rows(std::int64_t rows, bool near) {
  if (near && rows <= kBoundByLoads) {
    constexpr int kMost = std::min(kBoundByLoads, kTileRows);
    return tile_product_for<LinearLayout, T, Nothing, kMost>(rows);
  }
  return tile_product_for<LinearLayout, T, Streams>(rows);
}

// Few rows of x by blocks of depth: copies kRowStride apart, or the one row as it is.
class FewRows {
 public:
  static std::int64_t floats(const LinearBlock& block, std::int64_t rows) {
    return rows > 1 ? ceil_div(block.x.cols, kDepth) * rows * kRowStride : 0;
  }
  FewRows(const LinearBlock& block, std::int64_t begin, std::int64_t end, float* memory)
      : first_(block.x.data + begin * block.x.row_stride), apart_(kDepth) {
    if (end - begin == 1) return;
    apart_ = (end - begin) * kRowStride;
    first_ = memory;
    for (std::int64_t k = 0; k < block.x.cols; k += kDepth, memory += apart_)
      copy_rows(block, begin, end, k, memory);
  }
  [[nodiscard]] const float* from(std::int64_t k) const { return first_ + k / kDepth * apart_; }

 private:
  const float* first_;
  std::int64_t apart_;
};

// Several tiles of rows times panels, each of which comes from memory once: every tile asks for its
// share of the next, which lies behind it.
template <class T>
HWY_INLINE void multiply_by_tiles(TileOperands panel, const TileSplit& split, bool near) {
  const std::int64_t bytes =
      elements_of_part<T>(panel.depth) * static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t index = 0; index < panel.panels; ++index) {
    const std::byte* const next = static_cast<const std::byte*>(panel.b) + bytes;
    for (std::int64_t tile = 0; tile < split.tiles; ++tile) {
      const std::int64_t row = split.begin(tile);
      const std::int64_t height = split.begin(tile + 1) - row;
      TileOperands operands = panel;
      operands.panels = 1;
      operands.a += row * kRowStride;
      operands.c += row * panel.c_stride;
      if (near) {
        tile_product_for<LinearLayout, T, Nothing>(height)(operands);
        continue;
      }
      operands.prefetch[0] = share_of(next, bytes, tile, split.tiles);
      tile_product_for<LinearLayout, T, WorksAhead<float>>(height)(operands);
    }
    panel.b = next;
    panel.c += kPanel;
    if (panel.start != nullptr) panel.start += kPanel;
  }
}

// Few rows, as when decoding: every weight is used once or by a few tiles, so it is widened in
// registers on its way from memory. Groups of panels (panel.h) are read as one stream.
template <class T>
HWY_INLINE void multiply_few_rows(const LinearBlock& block, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kPartBytes =
      elements_of_part<T>(kDepth) * static_cast<std::int64_t>(sizeof(T));
  constexpr std::int64_t kColumns = kGroupBytes / kPartBytes * kPanel;
  const std::int64_t rows = end - begin;
  Scratch& scratch = worker_scratch();
  scratch.reserve(Scratch::bytes_of_floats(FewRows::floats(block, rows)) +
                  Scratch::bytes_of_floats(rows * kColumns) + Scratch::bytes_of_floats(kColumns));
  const FewRows x(block, begin, end, scratch.floats(FewRows::floats(block, rows)));
  float* const group_sums = scratch.floats(rows * kColumns);
  float* const padded_bias = scratch.floats(kColumns);
  const TileSplit split(rows);
  for (std::int64_t panel = block.panel_begin; panel < block.panel_end;) {
    const std::int64_t panels = std::min(block.weights->group_end(panel), block.panel_end) - panel;
    const std::int64_t first = panel * kPanel;
    const std::int64_t columns = std::min(panels * kPanel, block.weights->out_features - first);
    const bool whole = columns == panels * kPanel;
    float* const out = block.out.data + begin * block.out.row_stride + first;
    // One row's sums lie together, and those of one block of depth pass by once.
    const bool straight = whole && (rows == 1 || block.x.cols <= kDepth);
    float* const sums = straight ? out : group_sums;
    const float* bias = block.bias.empty() ? nullptr : block.bias.data() + first;
    if (bias != nullptr && !whole) {
      std::fill_n(std::copy_n(bias, columns, padded_bias), panels * kPanel - columns, 0.0F);
      bias = padded_bias;
    }
    for (std::int64_t k = 0; k == 0 || k < block.x.cols; k += kDepth) {
      const TileOperands operands = {.a = x.from(k),
                                     .b = block.weights->part(panel, k),
                                     .depth = block.weights->depth(k),
                                     .c = sums,
                                     .c_stride = straight ? block.out.row_stride : kColumns,
                                     .start_with = start_of(bias, k),
                                     .start = bias,
                                     .panels = panels};
      if (split.tiles == 1) {
        product_of_few_rows<T>(rows, block.near)(operands);
      } else if constexpr (kFewRows > kTileRows) {
        multiply_by_tiles<T>(operands, split, block.near);
      }
    }
    for (std::int64_t row = 0; row < rows && !straight; ++row)
      std::copy_n(sums + row * kColumns, columns, out + row * block.out.row_stride);
    panel += panels;
  }
}

template <class T>
inline constexpr bool kUsedInPlace = std::is_same_v<T, float>;

// Parts in f32: the one that is multiplied, and the next, which is widened meanwhile.
template <class T>
class WideParts {
 public:
  explicit WideParts(float* memory) : now_(memory), next_(memory + kDepth * kPanel) {}

  // The first, which nobody has widened yet.
  void start(const std::byte* part, std::int64_t depth) {
    if constexpr (!kUsedInPlace<T>) {
      for (std::int64_t row = 0; row < rows_of_part<T>(depth); ++row)
        widen_row(reinterpret_cast<const T*>(part), row, now_);
    }
  }
  [[nodiscard]] const float* now(const std::byte* part) const {
    return kUsedInPlace<T> ? reinterpret_cast<const float*>(part) : now_;
  }
  // Share `index` of `tiles` of widening the next.
  [[nodiscard]] TileWidening share(const std::byte* part, std::int64_t depth, std::int64_t index,
                                   std::int64_t tiles) const {
    if (kUsedInPlace<T>) return {};
    const std::int64_t rows = rows_of_part<T>(depth);
    return {.from = part,
            .to = next_,
            .begin = rows * index / tiles,
            .end = rows * (index + 1) / tiles};
  }
  void advance() { std::swap(now_, next_); }

 private:
  float* now_;
  float* next_;
};

// All tiles of rows times one widened part of a panel, while the next part is widened and the one
// after that (in f32: the next) comes from memory.
template <class T>
HWY_INLINE void multiply_part(const LinearBlock& block, const TileSplit& split,
                              const TileOperands& whole, Part next, const WideParts<T>& parts) {
  const Part fetched = kUsedInPlace<T> || next.depth(block) == 0 ? next : next.next(block);
  for (std::int64_t index = 0; index < split.tiles; ++index) {
    const std::int64_t row = split.begin(index);
    const std::int64_t end = split.begin(index + 1);
    TileOperands tile = whole;
    tile.prefetch[0] = share_of(fetched.at(block), fetched.bytes(block), index, split.tiles);
    if (index + 1 < split.tiles) {
      tile.prefetch[1] =
          output_rows(whole.c + end * whole.c_stride, whole.c_stride, split.begin(index + 2) - end);
    }
    tile.widening = parts.share(next.at(block), next.depth(block), index, split.tiles);
    tile.a += row * kRowStride;
    tile.c += row * whole.c_stride;
    tile_product_for<LinearLayout, float, WorksAhead<T>>(end - row)(tile);
  }
}

template <class T>
HWY_INLINE void multiply_chunk(const LinearBlock& block, std::int64_t begin, std::int64_t end) {
  const TileSplit split(end - begin);
  Scratch& scratch = worker_scratch();
  scratch.reserve(Scratch::bytes_of_floats(split.rows * kRowStride) +
                  Scratch::bytes_of_floats(2 * kDepth * kPanel) +
                  Scratch::bytes_of_floats(split.rows * kPanel));
  float* const copy = scratch.floats(split.rows * kRowStride);
  WideParts<T> parts(scratch.floats(2 * kDepth * kPanel));
  float* const padded = scratch.floats(split.rows * kPanel);
  Part part{.panel = block.panel_begin, .k = 0};
  parts.start(part.at(block), part.depth(block));
  for (; part.depth(block) > 0; part = part.next(block), parts.advance()) {
    if (part.panel == block.panel_begin) copy_rows(block, begin, end, part.k, copy);
    const PanelOutput output(block, part.panel, begin, padded);
    TileOperands whole{.a = copy,
                       .b = parts.now(part.at(block)),
                       .depth = part.depth(block),
                       .c = output.c,
                       .c_stride = output.stride,
                       .start_with = start_of(output.bias, part.k),
                       .start = output.bias};
    multiply_part(block, split, whole, part.next(block), parts);
    if (part.k + kDepth >= block.x.cols) output.finish(block, part.panel, begin, end);
  }
}

// Whether AMX tiles have multiplied these rows. They are faster where parts are cut for many rows
// at once, or are near and need no cutting.
template <class T>
HWY_INLINE bool multiply_in_tiles([[maybe_unused]] const LinearBlock& block,
                                  [[maybe_unused]] std::int64_t begin,
                                  [[maybe_unused]] std::int64_t end) {
#if HWY_TARGET == HWY_AVX3
  if (!amx_enabled() || !block.weights->moderate || block.x.cols == 0) return false;
  if (end - begin <= (kCut<T> ? kTileRows : kFewRowsOfPairs)) {
    if (kCut<T> || !block.near) return false;
    if (end - begin <= kStackedRows) return StackedRows(block, begin, end).multiply();
  }
  return TileChunk<T>(block, begin, end).multiply();
#else
  return false;
#endif
}

template <class T>
HWY_INLINE void multiply(const LinearBlock& block) {
  const std::int64_t rows = block.row_end - block.row_begin;
  const std::int64_t chunks = ceil_div(rows, kChunkRows);
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t begin = block.row_begin + rows * chunk / chunks;
    const std::int64_t end = block.row_begin + rows * (chunk + 1) / chunks;
    if (multiply_in_tiles<T>(block, begin, end)) continue;
    if (end - begin > kFewRows && block.x.cols > 0) {
      multiply_chunk<T>(block, begin, end);
      continue;
    }
    for (std::int64_t row = begin; row < end; row += kFewRows)
      multiply_few_rows<T>(block, row, std::min(row + kFewRows, end));
  }
}

void multiply_block(const LinearBlock& block) {
  switch (block.weights->dtype) {
    case DType::f32:
      return multiply<float>(block);
    case DType::bf16:
      return multiply<Bf16Pair>(block);
    case DType::f16:
      return multiply<F16>(block);
  }
}

GridCosts grid_costs() {
  // A tile of h rows costs h cycles (two vectors in one row, two multiply-adds a cycle); besides,
  // each value of x is copied (about a quarter of a cycle), and each value of a panel is widened
  // (32 values in some 4 cycles).
  GridCosts costs{.few_rows = kFewRows, .product = 1, .row = 0.25, .panel = 4};
#if HWY_TARGET == HWY_AVX3
  // Cutting x is dearer and products are cheaper; panels are cut in the shade of products.
  if (amx_enabled()) costs = {.few_rows = kFewRows, .product = 0.3, .row = 0.4, .panel = 2};
#endif
  return costs;
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {
namespace {

HWY_EXPORT(multiply_block);
HWY_EXPORT(grid_costs);

// How the team is spread over rows and panels.
struct Grid {
  std::int64_t over_rows = 1;
  std::int64_t over_panels = 1;
};

// The grid whose largest block is cheapest. What a value of x costs is paid by every worker of its
// row, and what one of a panel costs by every worker of its column. Few rows are bound by reading
// weights.
Grid choose_grid(int workers, std::int64_t rows, std::int64_t panels, const GridCosts& costs) {
  if (rows <= costs.few_rows)
    return {.over_rows = 1, .over_panels = std::min<std::int64_t>(workers, panels)};
  Grid best;
  double best_cost = std::numeric_limits<double>::infinity();
  for (std::int64_t over_rows = 1; over_rows <= workers; ++over_rows) {
    const Grid grid{.over_rows = std::min(over_rows, ceil_div(rows, costs.few_rows)),
                    .over_panels = std::min(workers / over_rows, panels)};
    const auto block_rows = static_cast<double>(ceil_div(rows, grid.over_rows));
    const auto block_panels = static_cast<double>(ceil_div(panels, grid.over_panels));
    const double cost = costs.product * block_rows * block_panels + costs.row * block_rows +
                        costs.panel * block_panels;
    if (cost < best_cost) {
      best_cost = cost;
      best = grid;
    }
  }
  return best;
}

}  // namespace

void linear(Team& team, ConstMatrix x, const PackedWeights& weights, std::span<const float> bias,
            Matrix out) {
  const PackedWeights::Impl& packed = weights.impl();
  CHECK(x.cols == packed.in_features && out.cols == packed.out_features && x.rows == out.rows,
        "shapes of a linear layer agree");
  if (out.rows == 0 || out.cols == 0) return;
  const Grid grid =
      choose_grid(team.size(), x.rows, packed.panels(), HWY_DYNAMIC_DISPATCH(grid_costs)());
  // Below about 10 us of arithmetic on one core the team is not worth waking.
  constexpr std::int64_t kAloneBelow = std::int64_t{1} << 19U;  // Multiply-adds.
  const std::int64_t workers = grid.over_rows * grid.over_panels;
  const bool alone = workers == 1 || x.rows * x.cols * out.cols < kAloneBelow;
  const bool near = packed.near(alone ? 1 : grid.over_panels);
  const auto part = [&](std::int64_t worker) {
    const std::int64_t row_part = worker / grid.over_panels;
    const std::int64_t panel_part = worker % grid.over_panels;
    if (row_part >= grid.over_rows) return;
    HWY_DYNAMIC_DISPATCH(multiply_block)
    (LinearBlock{.x = x,
                 .weights = &packed,
                 .near = near,
                 .bias = bias,
                 .out = out,
                 .row_begin = x.rows * row_part / grid.over_rows,
                 .row_end = x.rows * (row_part + 1) / grid.over_rows,
                 .panel_begin = packed.panels() * panel_part / grid.over_panels,
                 .panel_end = packed.panels() * (panel_part + 1) / grid.over_panels});
  };
  if (alone) {
    for (std::int64_t worker = 0; worker < workers; ++worker) part(worker);
    return;
  }
  team.run(std::ref(part));
}

}  // namespace weir::kernel
#endif
