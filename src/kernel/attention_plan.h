#pragma once
// Cuts attention tiles into jobs for a team: blocks of rows, and ranges of keys where there are too
// few blocks to keep every worker busy. A row is one (query, head); the query heads that share a KV
// head lie in the same rows, so that keys and values are read once for all of them.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernel/kernel.h"
#include "kernel/scratch.h"

namespace weir::kernel {

struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // <= begin where empty.
};

// Row r is query r / heads.size() and head heads[r % heads.size()].
struct AttentionTask {
  const AttentionTile* tile = nullptr;
  std::span<const std::int64_t> heads;
  std::int64_t kv_head = 0;
  std::int64_t row_begin = 0;
  std::int64_t row_end = 0;
  KeyRange keys;
  // Where a part of the keys leaves its result, to be merged: [rows, value_dim] and [rows]. Null
  // where the task sees all keys of its rows and writes to the tile itself.
  float* partial_out = nullptr;
  float* partial_lse = nullptr;
  std::int64_t cost = 0;  // Keys seen, summed over rows.

  [[nodiscard]] std::int64_t rows() const { return row_end - row_begin; }
  [[nodiscard]] std::int64_t query(std::int64_t row) const {
    return row / static_cast<std::int64_t>(heads.size());
  }
  [[nodiscard]] std::int64_t head(std::int64_t row) const {
    return heads[static_cast<std::size_t>(row % static_cast<std::int64_t>(heads.size()))];
  }
  [[nodiscard]] const float* q(std::int64_t row) const {
    return tile->q + query(row) * tile->q_row_stride + head(row) * tile->q_head_stride;
  }
  // Where the row's output goes: value_dim values.
  [[nodiscard]] float* out(std::int64_t row) const {
    if (partial_out != nullptr) return partial_out + (row - row_begin) * tile->value_dim;
    return tile->out + query(row) * tile->out_row_stride + head(row) * tile->out_head_stride;
  }
  // Null where nobody asks for it.
  [[nodiscard]] float* lse(std::int64_t row) const {
    if (partial_lse != nullptr) return partial_lse + (row - row_begin);
    if (tile->lse == nullptr) return nullptr;
    return tile->lse + query(row) * tile->lse_row_stride + head(row);
  }
  // The part of `keys` that the row sees.
  [[nodiscard]] KeyRange seen(std::int64_t row) const;
};

// The keys of [key_begin, key_end) that a query of the tile sees.
[[nodiscard]] KeyRange keys_seen(const AttentionTile& tile, std::int64_t query);

// Tasks that one worker does together: one with many rows, or those of several KV heads of a tile
// with few rows each and the same keys, which then are read in the order in which they lie.
struct AttentionJob {
  std::size_t first = 0;  // Of the tasks.
  std::size_t count = 0;
  std::int64_t cost = 0;
};

// Partial results of the rows of `whole`, over `count` ranges of its keys in their order.
struct AttentionMerge {
  AttentionTask whole;
  float* partial_out = nullptr;  // [count, rows, value_dim]
  float* partial_lse = nullptr;  // [count, rows]
  std::int64_t count = 0;
};

// Rows of one task at most, so that queries and outputs of all of them stay in L2 (1 MiB or more
// beside a block of keys and values) while many rows share one widening of keys and values.
inline constexpr std::int64_t kRowsPerTask = 256;
// On AMX tiles, where keys and values are cut into pieces for all of them; processors that have
// tiles have 2 MiB.
inline constexpr std::int64_t kRowsPerTaskInTiles = 512;
// A panel costs the same however few of its 32 rows are used; streaming costs by the row.
inline constexpr std::int64_t kMostStreamedRows = 16;

class AttentionPlan {
 public:
  // Views into `tiles` and into this plan's own memory; valid until the next call.
  void make(std::span<const AttentionTile> tiles, int workers);

  // Longest first, so that the team ends at nearly the same time.
  [[nodiscard]] std::span<const AttentionJob> jobs() const { return jobs_; }
  [[nodiscard]] std::span<const AttentionTask> tasks_of(const AttentionJob& job) const {
    return std::span(tasks_).subspan(job.first, job.count);
  }
  [[nodiscard]] std::span<const AttentionMerge> merges() const { return merges_; }
  [[nodiscard]] std::int64_t cost() const { return cost_; }  // Multiply-adds.

 private:
  void group_heads(std::span<const AttentionTile> tiles);
  void cut_rows(const AttentionTile& tile);
  // Row blocks `first` .. `first + count - 1`, which share their keys, cut into `key_pieces` times
  // `head_parts` jobs.
  struct Bundle {
    std::size_t first = 0;
    std::size_t count = 0;
    std::int64_t key_pieces = 1;
    std::int64_t head_parts = 1;
  };
  void bundle_heads(int workers);
  void reserve_partials();
  void cut_bundle(const Bundle& bundle);

  std::vector<std::int64_t> heads_;  // Of all tiles, in order of their KV head.
  std::size_t heads_used_ = 0;       // By the tiles cut so far.
  std::vector<AttentionTask> row_blocks_;
  std::vector<Bundle> bundles_;
  std::vector<AttentionTask> tasks_;
  std::vector<AttentionJob> jobs_;
  std::vector<AttentionMerge> merges_;
  std::int64_t cost_ = 0;
  Scratch partials_;
};

}  // namespace weir::kernel
