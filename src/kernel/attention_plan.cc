#include "kernel/attention_plan.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "kernel/panel.h"

namespace weir::kernel {
namespace {

// Tasks per worker, so that taking them in turn evens out their differing lengths.
constexpr std::int64_t kTasksPerWorker = 4;
// Keys below which cutting a range costs more (merging, starting up) than it gains.
constexpr std::int64_t kLeastKeys = 256;

std::int64_t length(KeyRange range) { return std::max<std::int64_t>(0, range.end - range.begin); }

// Both ends of `keys_seen` grow with the query, so the first and the last row bound the rest; the
// sum over rows is their mean length times rows, which is exact but for clipping at the ends.
std::int64_t cost_of(const AttentionTask& task) {
  return task.rows() *
         (length(task.seen(task.row_begin)) + length(task.seen(task.row_end - 1)) + 1) / 2;
}

}  // namespace

KeyRange keys_seen(const AttentionTile& tile, std::int64_t query) {
  const std::int64_t position = tile.first_query + query;
  return {.begin = std::max(tile.key_begin, position - tile.window + 1),
          .end = tile.causal ? std::min(tile.key_end, position + 1) : tile.key_end};
}

KeyRange AttentionTask::seen(std::int64_t row) const {
  const KeyRange all = keys_seen(*tile, query(row));
  return {.begin = std::max(all.begin, keys.begin), .end = std::min(all.end, keys.end)};
}

void AttentionPlan::make(std::span<const AttentionTile> tiles, int workers) {
  tasks_.clear();
  merges_.clear();
  row_blocks_.clear();
  cost_ = 0;
  group_heads(tiles);
  for (const AttentionTile& tile : tiles) cut_rows(tile);
  cut_keys(workers);
  // A total order, so that the same call makes the same tasks in the same order.
  const auto order = [](const AttentionTask& task) {
    return std::tuple(-task.cost, task.tile, task.kv_head, task.row_begin, task.keys.begin);
  };
  std::ranges::sort(tasks_, {}, order);
}

void AttentionPlan::group_heads(std::span<const AttentionTile> tiles) {
  heads_.clear();
  heads_used_ = 0;
  for (const AttentionTile& tile : tiles) {
    CHECK(tile.kv_head_of.size() == static_cast<std::size_t>(tile.num_heads),
          "every query head has a KV head");
    const auto first = static_cast<std::ptrdiff_t>(heads_.size());
    for (std::int64_t head = 0; head < tile.num_heads; ++head) heads_.push_back(head);
    const auto kv_head_then_head = [&tile](std::int64_t head) {
      return std::tuple(tile.kv_head_of[static_cast<std::size_t>(head)], head);
    };
    std::ranges::sort(heads_.begin() + first, heads_.end(), {}, kv_head_then_head);
  }
}

void AttentionPlan::cut_rows(const AttentionTile& tile) {
  const std::span<const std::int64_t> heads(heads_.data() + heads_used_,
                                            static_cast<std::size_t>(tile.num_heads));
  heads_used_ += heads.size();
  for (std::size_t first = 0; first < heads.size();) {
    const std::int64_t kv_head = tile.kv_head_of[static_cast<std::size_t>(heads[first])];
    std::size_t last = first;
    while (last < heads.size() &&
           tile.kv_head_of[static_cast<std::size_t>(heads[last])] == kv_head) {
      ++last;
    }
    const std::int64_t rows = tile.num_queries * static_cast<std::int64_t>(last - first);
    const std::int64_t blocks = ceil_div(rows, kRowsPerTask);
    for (std::int64_t block = 0; block < blocks; ++block) {
      // Whole panels of rows but for the last block.
      const std::int64_t panels = ceil_div(rows, kPanel);
      AttentionTask task{.tile = &tile,
                         .heads = heads.subspan(first, last - first),
                         .kv_head = kv_head,
                         .row_begin = panels * block / blocks * kPanel,
                         .row_end = std::min(rows, panels * (block + 1) / blocks * kPanel),
                         .keys = {.begin = tile.key_begin, .end = tile.key_end}};
      task.keys = {.begin = task.seen(task.row_begin).begin,
                   .end = task.seen(task.row_end - 1).end};
      task.cost = cost_of(task);
      cost_ += task.cost * (tile.key_dim + tile.value_dim);
      row_blocks_.push_back(task);
    }
    first = last;
  }
}

void AttentionPlan::cut_keys(int workers) {
  std::int64_t total = 0;
  for (const AttentionTask& block : row_blocks_) total += block.cost;
  const std::int64_t target = std::max<std::int64_t>(1, total / (kTasksPerWorker * workers));
  const auto pieces_of = [&](const AttentionTask& block) {
    if (workers == 1) return std::int64_t{1};
    return std::clamp<std::int64_t>(block.cost / target, 1,
                                    std::max<std::int64_t>(1, length(block.keys) / kLeastKeys));
  };
  std::size_t bytes = 0;
  for (const AttentionTask& block : row_blocks_) {
    const std::int64_t pieces = pieces_of(block);
    if (pieces == 1) continue;
    bytes += Scratch::bytes_of_floats(pieces * block.rows() * block.tile->value_dim) +
             Scratch::bytes_of_floats(pieces * block.rows());
  }
  partials_.reserve(bytes);
  for (const AttentionTask& block : row_blocks_) {
    const std::int64_t pieces = pieces_of(block);
    if (pieces == 1) {
      tasks_.push_back(block);
      continue;
    }
    const std::int64_t rows = block.rows();
    float* const out = partials_.floats(pieces * rows * block.tile->value_dim);
    float* const lse = partials_.floats(pieces * rows);
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      AttentionTask task = block;
      task.keys = {.begin = block.keys.begin + length(block.keys) * piece / pieces,
                   .end = block.keys.begin + length(block.keys) * (piece + 1) / pieces};
      task.partial_out = out + piece * rows * block.tile->value_dim;
      task.partial_lse = lse + piece * rows;
      task.cost = cost_of(task);
      tasks_.push_back(task);
    }
    merges_.push_back({.whole = block, .partial_out = out, .partial_lse = lse, .count = pieces});
  }
}

}  // namespace weir::kernel
