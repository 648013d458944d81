#include "strategy/tensor_parallel.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "plan/locality.h"

namespace weir {
namespace {

Range range_of(Interval interval) { return Range::of(interval.begin, interval.end); }

// One piece per rank.
template <class BoxOfRank>
Layout split(std::span<const DeviceId> group, BoxOfRank box_of_rank) {
  Layout layout;
  for (std::size_t rank = 0; rank < group.size(); ++rank) {
    layout.pieces.push_back(
        {.device = group[rank], .box = box_of_rank(static_cast<std::int64_t>(rank)), .over = {}});
  }
  return layout;
}

}  // namespace

Range request_range(Interval requests) { return range_of(requests); }

Interval q_heads_of_rank(const ModelSpec& model, std::int64_t rank, std::int64_t tp) {
  return even_part(model.num_q_heads, rank, tp);
}

LayerLayouts tensor_parallel_layer(const ModelSpec& model, std::span<const DeviceId> group,
                                   Interval requests) {
  const auto tp = static_cast<std::int64_t>(group.size());
  const Box rows = {.request = request_range(requests)};
  const auto q_heads = [&](std::int64_t rank) {
    Box box = rows;
    box.head = range_of(q_heads_of_rank(model, rank, tp));
    return box;
  };
  const auto kv_heads = [&](std::int64_t rank) {
    Box box = rows;
    box.head = range_of(kv_heads_of(model, q_heads_of_rank(model, rank, tp)));
    return box;
  };
  const Layout cache = split(group, kv_heads);
  return {.residual = replicated(group, rows),
          .q = split(group, q_heads),
          .kv = split(group, kv_heads),
          .k_cache_before = cache,
          .v_cache_before = cache,
          .k_cache = cache,
          .v_cache = cache,
          .rounds = {plain_round(cache, cache, split(group, q_heads))},
          .attention = split(group, q_heads),
          .attention_via = {},
          .attention_out = split(group, q_heads),
          .ffn_hidden = ffn_columns(model, group, requests)};
}

Layout token_blocks(std::span<const DeviceId> group, Interval requests, bool balanced) {
  const auto ranks = static_cast<std::int64_t>(group.size());
  const std::int64_t blocks = balanced ? 2 * ranks : ranks;
  Layout layout;
  const auto add = [&](std::int64_t rank, std::int64_t block) {
    layout.pieces.push_back(
        {.device = group[static_cast<std::size_t>(rank)],
         .box = {.request = request_range(requests), .token = Range::block(block, blocks)},
         .over = {}});
  };
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    add(rank, rank);
    if (balanced) add(rank, blocks - 1 - rank);
  }
  return layout;
}

Layout ffn_columns(const ModelSpec& model, std::span<const DeviceId> group, Interval requests) {
  const auto tp = static_cast<std::int64_t>(group.size());
  return split(group, [&](std::int64_t rank) {
    return Box{.request = request_range(requests),
               .dim = range_of(even_part(model.intermediate_size, rank, tp))};
  });
}

Layout vocabulary_parallel_embedding(const ModelSpec& model, std::span<const DeviceId> group,
                                     Interval requests) {
  const auto tp = static_cast<std::int64_t>(group.size());
  Layout layout = replicated(group, {.request = request_range(requests)});
  layout.kind = LayoutKind::sum;
  for (std::int64_t rank = 0; rank < tp; ++rank) {
    layout.pieces[static_cast<std::size_t>(rank)].over.dim =
        range_of(even_part(model.vocab_size, rank, tp));
  }
  return layout;
}

Layout vocabulary_parallel_logits(const ModelSpec& model, std::span<const DeviceId> group,
                                  Interval requests) {
  const auto tp = static_cast<std::int64_t>(group.size());
  return split(group, [&](std::int64_t rank) {
    return Box{.request = request_range(requests),
               .dim = range_of(even_part(model.vocab_size, rank, tp))};
  });
}

AttentionRound plain_round(Layout k_cache, Layout v_cache, Layout attention) {
  return {.k_cache = std::move(k_cache),
          .v_cache = std::move(v_cache),
          .attention = std::move(attention),
          .scores = {},
          .scores_complete = {}};
}

void set_cache(LayerLayouts& layer, const Layout& cache) {
  layer.k_cache_before = cache;
  layer.v_cache_before = cache;
  layer.k_cache = cache;
  layer.v_cache = cache;
}

Stages Stages::even(std::int64_t num_layers, std::int64_t count, std::int64_t size) {
  Stages stages;
  for (std::int64_t stage = 0; stage < count; ++stage) {
    auto& group = stages.groups.emplace_back();
    for (std::int64_t i = 0; i < size; ++i)
      group.push_back(static_cast<DeviceId>(stage * size + i));
    stages.of_layer.insert(stages.of_layer.end(),
                           static_cast<std::size_t>(even_part(num_layers, stage, count).size()),
                           static_cast<std::uint32_t>(stage));
  }
  return stages;
}

std::int64_t Stages::num_devices() const {
  std::int64_t devices = 0;
  for (const auto& group : groups) {
    for (const DeviceId device : group) {
      devices = std::max(devices, static_cast<std::int64_t>(index_of(device)) + 1);
    }
  }
  return devices;
}

MicrobatchLayouts layouts_in_stages(
    const ModelSpec& model, const Stages& stages, Interval requests,
    const std::function<LayerLayouts(std::span<const DeviceId> group)>& layer) {
  const auto& first = stages.groups[stages.of_layer.front()];
  const auto& last = stages.groups[stages.of_layer.back()];
  MicrobatchLayouts layouts = {
      .requests = requests,
      .distinct = {},
      .of_layer = stages.of_layer,
      .embedding = vocabulary_parallel_embedding(model, first, requests),
      .logits = vocabulary_parallel_logits(model, last, requests),
      .logits_out = replicated(std::span(last).first(1), {.request = request_range(requests)})};
  for (const auto& group : stages.groups) layouts.distinct.push_back(layer(group));
  return layouts;
}

std::vector<Interval> even_microbatches(std::int64_t batch_size, std::int64_t count) {
  const std::int64_t parts = std::min(count, std::max<std::int64_t>(batch_size, 1));
  std::vector<Interval> microbatches;
  for (std::int64_t i = 0; i < parts; ++i) microbatches.push_back(even_part(batch_size, i, parts));
  return microbatches;
}

}  // namespace weir
