#include "kernel/attention_plan.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "kernel/amx.h"
#include "kernel/panel.h"

namespace weir::kernel {
namespace {

// Jobs per worker, so that taking them in turn evens out their differing lengths.
constexpr std::int64_t kJobsPerWorker = 4;
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
  bundles_.clear();
  jobs_.clear();
  cost_ = 0;
  group_heads(tiles);
  for (const AttentionTile& tile : tiles) cut_rows(tile);
  bundle_heads(workers);
  reserve_partials();
  for (const Bundle& bundle : bundles_) cut_bundle(bundle);
  // A total order, so that the same call makes the same jobs in the same order.
  const auto order = [](const AttentionJob& job) { return std::tuple(-job.cost, job.first); };
  std::ranges::sort(jobs_, {}, order);
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
    const std::int64_t blocks = ceil_div(rows, amx_enabled() ? kRowsPerTaskInTiles : kRowsPerTask);
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

void AttentionPlan::bundle_heads(int workers) {
  std::int64_t total = 0;
  for (const AttentionTask& block : row_blocks_) total += block.cost;
  const std::int64_t target = std::max<std::int64_t>(1, total / (kJobsPerWorker * workers));
  for (std::size_t first = 0; first < row_blocks_.size();) {
    const AttentionTask& block = row_blocks_[first];
    Bundle bundle{.first = first};
    std::int64_t rows = 0;
    std::int64_t cost = 0;
    // A block of few rows has all queries of its tile, so all such blocks see the same keys.
    do {
      rows += row_blocks_[first].rows();
      cost += row_blocks_[first].cost;
      ++first;
    } while (block.rows() <= kMostStreamedRows && first < row_blocks_.size() &&
             row_blocks_[first].tile == block.tile &&
             row_blocks_[first].rows() <= kMostStreamedRows &&
             rows + row_blocks_[first].rows() <= kRowsPerTask);
    bundle.count = first - bundle.first;
    if (workers > 1) {
      const std::int64_t pieces = std::max<std::int64_t>(1, cost / target);
      bundle.key_pieces = std::clamp<std::int64_t>(length(block.keys) / kLeastKeys, 1, pieces);
      bundle.head_parts =
          std::min(ceil_div(pieces, bundle.key_pieces), static_cast<std::int64_t>(bundle.count));
    }
    bundles_.push_back(bundle);
  }
}

void AttentionPlan::reserve_partials() {
  std::size_t bytes = 0;
  for (const Bundle& bundle : bundles_) {
    if (bundle.key_pieces == 1) continue;
    for (std::size_t index = bundle.first; index < bundle.first + bundle.count; ++index) {
      const AttentionTask& block = row_blocks_[index];
      bytes += Scratch::bytes_of_floats(bundle.key_pieces * block.rows() * block.tile->value_dim) +
               Scratch::bytes_of_floats(bundle.key_pieces * block.rows());
    }
  }
  partials_.reserve(bytes);
}

void AttentionPlan::cut_bundle(const Bundle& bundle) {
  const std::size_t first_merge = merges_.size();
  const std::span<const AttentionTask> blocks =
      std::span(row_blocks_).subspan(bundle.first, bundle.count);
  const std::int64_t pieces = bundle.key_pieces;
  for (const AttentionTask& block : blocks) {
    if (pieces == 1) break;
    merges_.push_back(
        {.whole = block,
         .partial_out = partials_.floats(pieces * block.rows() * block.tile->value_dim),
         .partial_lse = partials_.floats(pieces * block.rows()),
         .count = pieces});
  }
  const auto count = static_cast<std::int64_t>(bundle.count);
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    for (std::int64_t part = 0; part < bundle.head_parts; ++part) {
      AttentionJob job{.first = tasks_.size()};
      for (std::int64_t index = count * part / bundle.head_parts;
           index < count * (part + 1) / bundle.head_parts; ++index) {
        AttentionTask task = blocks[static_cast<std::size_t>(index)];
        if (pieces > 1) {
          const AttentionMerge& merge = merges_[first_merge + static_cast<std::size_t>(index)];
          task.partial_out = merge.partial_out + piece * task.rows() * task.tile->value_dim;
          task.partial_lse = merge.partial_lse + piece * task.rows();
          const KeyRange all = task.keys;
          task.keys = {.begin = all.begin + length(all) * piece / pieces,
                       .end = all.begin + length(all) * (piece + 1) / pieces};
          task.cost = cost_of(task);
        }
        job.cost += task.cost;
        tasks_.push_back(task);
      }
      job.count = tasks_.size() - job.first;
      jobs_.push_back(job);
    }
  }
}

}  // namespace weir::kernel
