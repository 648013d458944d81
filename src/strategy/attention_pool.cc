#include "strategy/attention_pool.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "plan/locality.h"
#include "strategy/pool_policy.h"
#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

enum class Split { query_blocks, balanced_query_blocks, kv_blocks, heads };
constexpr std::string_view kSplits[] = {"query_blocks", "balanced_query_blocks", "kv_blocks",
                                        "heads"};
enum class Reduction { flat, hierarchical };
constexpr std::string_view kReductions[] = {"flat", "hierarchical"};

// Base devices first, stage by stage as in tp_pp; then p_max pool devices, which all stages share.
class AttentionPool final : public Strategy {
 public:
  struct Shape {
    std::int64_t tp = 1;
    std::int64_t pp = 1;
    PoolSizing sizing;
    Split split = Split::kv_blocks;
    Reduction reduction = Reduction::flat;
    std::int64_t kv_block = 1024;
    std::int64_t microbatches = 1;
  };

  AttentionPool(ModelSpec model, const Shape& shape)
      : model_(std::move(model)),
        shape_(shape),
        stages_(Stages::even(model_.num_layers, shape.pp, shape.tp)) {}

  [[nodiscard]] std::int64_t num_devices() const override {
    return stages_.num_devices() + shape_.sizing.p_max;
  }

  [[nodiscard]] StepLayouts layouts(const StepShape& step) const override {
    StepLayouts layouts;
    std::vector<std::int32_t> short_ones;
    std::vector<std::int32_t> long_ones;
    for (const Run& run : runs_of(step)) {
      const auto parts = run.is_long
                             ? even_microbatches(run.requests.size(), shape_.microbatches)
                             : std::vector<Interval>{{.begin = 0, .end = run.requests.size()}};
      for (const Interval part : parts) {
        const Interval requests = {.begin = run.requests.begin + part.begin,
                                   .end = run.requests.begin + part.end};
        (run.is_long ? long_ones : short_ones)
            .push_back(static_cast<std::int32_t>(layouts.microbatches.size()));
        layouts.microbatches.push_back(
            layouts_in_stages(model_, stages_, requests, [&](std::span<const DeviceId> group) {
              LayerLayouts layer = tensor_parallel_layer(model_, group, requests);
              if (run.is_long) spill(layer, requests, step);
              return layer;
            }));
      }
    }
    layouts.order = order_of(short_ones, long_ones);
    return layouts;
  }

 private:
  struct Run {
    Interval requests;
    bool is_long = false;
  };

  // Neighbours on the same side of the crest. A short request shares no microbatch with a long one.
  [[nodiscard]] std::vector<Run> runs_of(const StepShape& step) const {
    std::vector<Run> runs;
    for (std::int64_t r = 0; r < static_cast<std::int64_t>(step.size()); ++r) {
      const bool is_long = pool_of(step[static_cast<std::size_t>(r)]) > 0;
      if (runs.empty() || runs.back().is_long != is_long) {
        runs.push_back({.requests = {.begin = r, .end = r}, .is_long = is_long});
      }
      runs.back().requests.end = r + 1;
    }
    if (runs.empty()) runs.push_back({});
    return runs;
  }

  [[nodiscard]] std::int64_t pool_of(const RequestShape& request) const {
    return pool_size(shape_.sizing, request.past_len + request.q_len);
  }

  [[nodiscard]] DeviceId pool_device(std::int64_t i) const {
    return static_cast<DeviceId>(stages_.num_devices() + i);
  }

  // Long requests send their first attention to the pool; behind that the base devices do all of
  // the short ones, which so never wait for the pool; then, layer by layer, the FFN of one long
  // microbatch runs while the pool attends for the next.
  [[nodiscard]] std::vector<Phase> order_of(const std::vector<std::int32_t>& short_ones,
                                            const std::vector<std::int32_t>& long_ones) const {
    std::vector<Phase> order;
    const auto add = [&order](std::int32_t microbatch, std::int32_t layer,
                              std::initializer_list<Part> parts) {
      for (const Part part : parts) {
        order.push_back({.microbatch = microbatch, .layer = layer, .part = part});
      }
    };
    const auto num_layers = static_cast<std::int32_t>(model_.num_layers);
    for (const std::int32_t microbatch : long_ones) {
      add(microbatch, -1, {Part::embed});
      add(microbatch, 0, {Part::project, Part::attend});
    }
    for (const std::int32_t microbatch : short_ones) {
      add(microbatch, -1, {Part::embed});
      for (std::int32_t layer = 0; layer < num_layers; ++layer) {
        add(microbatch, layer, {Part::project, Part::attend, Part::output, Part::ffn});
      }
    }
    for (std::int32_t layer = 0; layer < num_layers; ++layer) {
      for (const std::int32_t microbatch : long_ones) {
        add(microbatch, layer, {Part::output, Part::ffn});
        if (layer + 1 < num_layers) add(microbatch, layer + 1, {Part::project, Part::attend});
      }
    }
    return order;
  }

  // Turns a tensor-parallel layer into one whose attention is done by the pool.
  void spill(LayerLayouts& layer, Interval requests, const StepShape& step) const {
    if (shape_.split == Split::kv_blocks) {
      spill_kv_blocks(layer, requests, step);
      return;
    }
    Layout attention;
    for (std::int64_t r = requests.begin; r < requests.end; ++r) {
      const RequestShape& request = step[static_cast<std::size_t>(r)];
      const std::int64_t before = pool_size(shape_.sizing, request.past_len);
      add_replicas(layer.k_cache_before, r, before);
      add_replicas(layer.k_cache, r, pool_of(request));
      add_tiles(attention, r, pool_of(request));
    }
    layer.v_cache_before = layer.k_cache_before;
    layer.v_cache = layer.k_cache;
    layer.attention = attention;
    layer.rounds = {plain_round(layer.k_cache, layer.v_cache, std::move(attention))};
  }

  // Heads of the request's i-th of `pool` devices: all, unless the split is by heads.
  [[nodiscard]] Interval heads_of(std::int64_t i, std::int64_t pool) const {
    if (shape_.split != Split::heads) return {.begin = 0, .end = model_.num_q_heads};
    return even_part(model_.num_q_heads, i, std::min(pool, model_.num_q_heads));
  }

  [[nodiscard]] std::int64_t useful(std::int64_t pool) const {
    return shape_.split == Split::heads ? std::min(pool, model_.num_q_heads) : pool;
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
    const bool balanced = shape_.split == Split::balanced_query_blocks;
    const std::int64_t parts = balanced ? 2 * pool : pool;
    for (std::int64_t i = 0; i < useful(pool); ++i) {
      const Interval heads = heads_of(i, pool);
      Piece tile = {.device = pool_device(i),
                    .box = {.request = request_range({.begin = request, .end = request + 1}),
                            .head = Range::of(heads.begin, heads.end)},
                    .over = {}};
      if (shape_.split != Split::heads) tile.box.token = Range::block(i, parts);
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
    const Range base_positions = Range::of(0, crest(shape_.sizing));
    for (Piece& piece : layer.k_cache.pieces) piece.box.token = base_positions;
    layer.attention.kind = LayoutKind::softmax;
    for (Piece& tile : layer.attention.pieces) tile.over.token = base_positions;
    std::vector<std::vector<DeviceId>> users;  // Of each request: the pool devices with blocks.
    for (std::int64_t r = requests.begin; r < requests.end; ++r) {
      users.push_back(add_blocks(layer, r, step[static_cast<std::size_t>(r)]));
    }
    set_cache(layer, Layout(layer.k_cache));
    layer.rounds = {plain_round(layer.k_cache, layer.v_cache, layer.attention)};
    if (shape_.reduction == Reduction::hierarchical) {
      add_stations(layer, requests.begin, std::move(users));
    }
  }

  std::vector<DeviceId> add_blocks(LayerLayouts& layer, std::int64_t request,
                                   const RequestShape& shape) const {
    const std::int64_t first = crest(shape_.sizing);
    const std::int64_t blocks =
        (shape.past_len + shape.q_len - first + shape_.kv_block - 1) / shape_.kv_block;
    std::vector<DeviceId> users;
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t begin = first + block * shape_.kv_block;
      Range positions = Range::of(begin, begin + shape_.kv_block);
      if (block + 1 == blocks) positions.end = Bound::end();
      // The pool that a sequence has when it begins the block: so the owner never changes.
      const DeviceId owner = pool_device(block % pool_size(shape_.sizing, begin + 1));
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
        const std::size_t half = (left.size() + 1) / 2;
        const std::int64_t r = first + static_cast<std::int64_t>(i);
        const Range request = request_range({.begin = r, .end = r + 1});
        for (std::size_t from = half; from < left.size(); ++from) {
          for (Piece& piece : station.pieces) {
            if (piece.device == left[from] && piece.box.request == request) {
              piece.device = left[from - half];
            }
          }
        }
        left.resize(half);
      }
      layer.attention_via.push_back(station);
    }
  }

  ModelSpec model_;
  Shape shape_;
  Stages stages_;
};

Result<std::unique_ptr<Strategy>> make_attention_pool(const ModelSpec& model,
                                                      const Options& options,
                                                      const DeviceFacts& /*devices*/) {
  const AttentionPool::Shape shape = {
      .tp = options.number("tp"),
      .pp = options.number("pp"),
      .sizing = {.policy = static_cast<PoolPolicy>(options.choice("pool_policy")),
                 .threshold = options.number("threshold"),
                 .p_max = options.number("pool")},
      .split = static_cast<Split>(options.choice("split")),
      .reduction = static_cast<Reduction>(options.choice("reduction")),
      .kv_block = options.number("kv_block"),
      .microbatches = options.number("microbatches")};
  std::vector<std::string> problems;
  if (shape.tp > model.num_q_heads) {
    problems.push_back(fmt::format("--tp: found {}, allowed 1..{} (the model's attention heads)",
                                   shape.tp, model.num_q_heads));
  }
  if (shape.pp > model.num_layers) {
    problems.push_back(fmt::format("--pp: found {}, allowed 1..{} (the model's layers)", shape.pp,
                                   model.num_layers));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return std::make_unique<AttentionPool>(model, shape);
}

constexpr std::int64_t kMostRanks = 65536;

constexpr OptionSpec kOptions[] = {
    {.name = "tp", .help = "base devices per stage", .default_value = "1", .max = kMostRanks},
    {.name = "pool",
     .help = "most pool devices (p_max)",
     .default_value = "4",
     .min = 0,
     .max = kMostRanks},
    {.name = "pool_policy",
     .help = "pool size by sequence length",
     .default_value = "linear",
     .choices = kPoolPolicies},
    {.name = "threshold",
     .help = "linear and fixed: longer sequences use the pool",
     .default_value = "4096",
     .min = 0,
     .max = std::int64_t{1} << 30},
    {.name = "split",
     .help = "what pool devices share among them",
     .default_value = "kv_blocks",
     .choices = kSplits},
    {.name = "kv_block",
     .help = "kv_blocks: positions per block of K and V",
     .default_value = "1024",
     .max = std::int64_t{1} << 30},
    {.name = "reduction",
     .help = "kv_blocks: how partial outputs meet",
     .default_value = "flat",
     .choices = kReductions},
    {.name = "pp",
     .help = "pipeline stages of base devices",
     .default_value = "1",
     .max = kMostRanks},
    {.name = "microbatches",
     .help = "parts of the long requests, FFN of one behind attention of the next",
     .default_value = "1",
     .max = kMostRanks},
};

}  // namespace

StrategyEntry attention_pool_strategy() {
  return {.name = "attention_pool",
          .help =
              "Splits attention of sequences above a threshold over 0..pool weightless devices; "
              "all else is tp_pp.\n"
              "Sends new K and V to the pool once, per step q out and attention back (partial "
              "outputs for kv_blocks).\n"
              "Pays for long sequences, where attention outgrows everything else.",
          .options = kOptions,
          .make = make_attention_pool};
}

}  // namespace weir
