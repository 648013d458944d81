#include "strategy/pool_work.h"

#include <algorithm>
#include <utility>

#include "plan/locality.h"
#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

// Blocks that a sequence of `length` positions has beyond the crest.
std::int64_t num_blocks(const PoolWork& work, std::int64_t length) {
  const std::int64_t beyond = std::max<std::int64_t>(length - crest(work.sizing), 0);
  return (beyond + work.kv_block - 1) / work.kv_block;
}

class Spill {
 public:
  Spill(const ModelSpec& model, const PoolWork& work) : model_(model), work_(work) {}

  // Turns a tensor-parallel layer into one whose attention is done by the pool.
  void spill(LayerLayouts& layer, Interval requests, const StepShape& step) const {
    if (work_.split == PoolSplit::kv_blocks) {
      spill_kv_blocks(layer, requests, step);
      return;
    }
    Layout attention;
    for (std::int64_t r = requests.begin; r < requests.end; ++r) {
      const RequestShape& request = step[static_cast<std::size_t>(r)];
      const std::int64_t before = pool_size(work_.sizing, request.past_len);
      add_replicas(layer.k_cache_before, r, before);
      add_replicas(layer.k_cache, r, pool_of(request));
      add_tiles(attention, r, pool_of(request));
    }
    layer.v_cache_before = layer.k_cache_before;
    layer.v_cache = layer.k_cache;
    layer.attention = attention;
    layer.rounds = {plain_round(layer.k_cache, layer.v_cache, std::move(attention))};
  }

 private:
  [[nodiscard]] std::int64_t pool_of(const RequestShape& request) const {
    return pool_size(work_.sizing, request.past_len + request.q_len);
  }

  [[nodiscard]] DeviceId pool_device(std::int64_t i) const {
    return static_cast<DeviceId>(work_.first_device + i);
  }

  // Heads of the request's i-th of `pool` devices: all, unless the split is by heads.
  [[nodiscard]] Interval heads_of(std::int64_t i, std::int64_t pool) const {
    if (work_.split != PoolSplit::heads) return {.begin = 0, .end = model_.num_q_heads};
    return even_part(model_.num_q_heads, i, std::min(pool, model_.num_q_heads));
  }

  [[nodiscard]] std::int64_t useful(std::int64_t pool) const {
    return work_.split == PoolSplit::heads ? std::min(pool, model_.num_q_heads) : pool;
  }

  // The base keeps K and V; the pool has them too, so that its devices can attend to everything.
  void add_replicas(Layout& cache, std::int64_t request, std::int64_t pool) const {
    for (std::int64_t i = 0; i < useful(pool); ++i) {
      const Interval heads = kv_heads_of(model_, heads_of(i, pool));
      cache.pieces.push_back(
          {.device = pool_device(i),
           .box = {.request = request_range({.begin = request, .end = request + 1}),
                   .head = Range::of(heads.begin, heads.end)},
           .over = {}});
    }
  }

  void add_tiles(Layout& attention, std::int64_t request, std::int64_t pool) const {
    const bool balanced = work_.split == PoolSplit::balanced_query_blocks;
    const std::int64_t parts = balanced ? 2 * pool : pool;
    for (std::int64_t i = 0; i < useful(pool); ++i) {
      const Interval heads = heads_of(i, pool);
      Piece tile = {.device = pool_device(i),
                    .box = {.request = request_range({.begin = request, .end = request + 1}),
                            .head = Range::of(heads.begin, heads.end)},
                    .over = {}};
      if (work_.split != PoolSplit::heads) tile.box.token = Range::block(i, parts);
      attention.pieces.push_back(tile);
      if (!balanced) continue;
      // Under a causal mask a late block costs what an early one saves.
      tile.box.token = Range::block(parts - 1 - i, parts);
      attention.pieces.push_back(tile);
    }
  }

  // Positions up to the crest stay on the base devices, the rest is dealt out to the pool in blocks
  // when they are first written, and is never moved again.
  void spill_kv_blocks(LayerLayouts& layer, Interval requests, const StepShape& step) const {
    const Range base_positions = Range::of(0, crest(work_.sizing));
    for (Piece& piece : layer.k_cache.pieces) piece.box.token = base_positions;
    layer.attention.kind = LayoutKind::softmax;
    for (Piece& tile : layer.attention.pieces) tile.over.token = base_positions;
    std::vector<std::vector<DeviceId>> users;  // Of each request: the pool devices with blocks.
    for (std::int64_t r = requests.begin; r < requests.end; ++r) {
      users.push_back(add_blocks(layer, r, step[static_cast<std::size_t>(r)]));
    }
    set_cache(layer, Layout(layer.k_cache));
    layer.rounds = {plain_round(layer.k_cache, layer.v_cache, layer.attention)};
    if (work_.reduction == PoolReduction::hierarchical) {
      add_stations(layer, requests.begin, std::move(users));
    }
  }

  std::vector<DeviceId> add_blocks(LayerLayouts& layer, std::int64_t request,
                                   const RequestShape& shape) const {
    const std::int64_t first = crest(work_.sizing);
    const std::int64_t blocks = num_blocks(work_, shape.past_len + shape.q_len);
    std::vector<DeviceId> users;
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t begin = first + block * work_.kv_block;
      Range positions = Range::of(begin, begin + work_.kv_block);
      if (block + 1 == blocks) positions.end = Bound::end();
      // The pool that a sequence has when it begins the block: so the owner never changes.
      const DeviceId owner = pool_device(block % pool_size(work_.sizing, begin + 1));
      const Box box = {.request = request_range({.begin = request, .end = request + 1})};
      Piece piece = {.device = owner, .box = box, .over = {}};
      piece.box.token = positions;
      layer.k_cache.pieces.push_back(piece);
      piece.box = box;
      piece.over.token = positions;
      layer.attention.pieces.push_back(piece);
      if (std::ranges::find(users, owner) == users.end()) users.push_back(owner);
    }
    return users;
  }

  // 8 -> 4 -> 2 -> 1: at every station the upper half of what is left hands its partial outputs to
  // the lower half, request by request.
  // `users`: the pool devices that attend for each request from `first` on.
  static void add_stations(LayerLayouts& layer, std::int64_t first,
                           std::vector<std::vector<DeviceId>> users) {
    Layout station = layer.attention;
    while (std::ranges::any_of(users, [](const auto& left) { return left.size() > 1; })) {
      for (std::size_t i = 0; i < users.size(); ++i) {
        auto& left = users[i];
        const std::ptrdiff_t half = (std::ssize(left) + 1) / 2;
        const std::int64_t r = first + static_cast<std::int64_t>(i);
        const Range request = request_range({.begin = r, .end = r + 1});
        for (Piece& piece : station.pieces) {
          if (piece.box.request != request) continue;
          const auto owner = std::find(left.begin() + half, left.end(), piece.device);
          if (owner != left.end()) piece.device = *(owner - half);
        }
        left.resize(static_cast<std::size_t>(half));
      }
      layer.attention_via.push_back(station);
    }
  }

  const ModelSpec& model_;
  const PoolWork& work_;
};

}  // namespace

void spill_to_pool(const ModelSpec& model, const PoolWork& work, Interval requests,
                   const StepShape& step, LayerLayouts& layer) {
  Spill(model, work).spill(layer, requests, step);
}

bool spills_alike(const PoolWork& work, const RequestShape& a, const RequestShape& b) {
  const std::int64_t a_len = a.past_len + a.q_len;
  const std::int64_t b_len = b.past_len + b.q_len;
  const std::int64_t pool = pool_size(work.sizing, a_len);
  const std::int64_t other = pool_size(work.sizing, b_len);
  if (pool == 0 || other == 0) return pool == other;
  // The owner of a block is that of the moment at which it is begun, whatever the pool is now.
  if (work.split == PoolSplit::kv_blocks) return num_blocks(work, a_len) == num_blocks(work, b_len);
  return pool == other && pool_size(work.sizing, a.past_len) == pool_size(work.sizing, b.past_len);
}

}  // namespace weir
