#include "strategy/tensor_parallel.h"

#include <functional>

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
  const auto columns = [&](std::int64_t rank) {
    Box box = rows;
    box.dim = range_of(even_part(model.intermediate_size, rank, tp));
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
          .rounds = {{.k_cache = cache,
                      .v_cache = cache,
                      .attention = split(group, q_heads),
                      .scores = {},
                      .scores_complete = {}}},
          .attention = split(group, q_heads),
          .attention_via = {},
          .attention_out = split(group, q_heads),
          .ffn_hidden = split(group, columns)};
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

}  // namespace weir
