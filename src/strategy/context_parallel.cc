#include "strategy/context_parallel.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "plan/locality.h"
#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

enum class Exchange { ring, all_gather, all_to_all };
constexpr std::string_view kExchanges[] = {"ring", "all_gather", "all_to_all"};
constexpr std::string_view kBlocks[] = {"contiguous", "balanced"};

// New tokens in blocks over the devices of a stage; every device has all weights of its layers.
class ContextParallel final : public Strategy {
 public:
  struct Shape {
    std::int64_t cp = 1;
    std::int64_t kv_block = 256;
    std::int64_t pp = 1;
    std::int64_t microbatches = 1;
    Exchange exchange = Exchange::ring;
    bool balanced = false;
  };

  ContextParallel(ModelSpec model, Shape shape)
      : model_(std::move(model)),
        shape_(shape),
        stages_(Stages::even(model_.num_layers, shape.pp, shape.cp)) {}

  [[nodiscard]] std::int64_t num_devices() const override { return stages_.num_devices(); }

  [[nodiscard]] StepLayouts layouts(const StepShape& step) const override {
    StepLayouts layouts;
    for (const Interval requests :
         even_microbatches(static_cast<std::int64_t>(step.size()), shape_.microbatches)) {
      const Work work = work_of(step, requests);
      MicrobatchLayouts microbatch = layouts_in_stages(
          model_, stages_, requests,
          [&](std::span<const DeviceId> group) { return layer(group, requests, work); });
      microbatch.embedding = tokens_of(stages_.groups.front(), requests, work);
      layouts.microbatches.push_back(std::move(microbatch));
    }
    layouts.order = in_microbatch_order(static_cast<std::int64_t>(layouts.microbatches.size()),
                                        model_.num_layers);
    return layouts;
  }

  [[nodiscard]] bool same_layouts(const StepShape& a, const StepShape& b) const override {
    if (a.size() != b.size()) return false;
    if (shape_.exchange != Exchange::ring) return true;
    const auto parts = even_microbatches(static_cast<std::int64_t>(a.size()), shape_.microbatches);
    return std::ranges::all_of(
        parts, [&](Interval requests) { return work_of(a, requests) == work_of(b, requests); });
  }

 private:
  // What layouts depend on.
  struct Work {
    std::int64_t blocks = 1;  // Of K and V positions, for the longest of the requests.
    // There is nothing to share: with a ring, the first device has all new tokens, and their
    // queries go to the keys instead of these to them.
    bool one_token_each = false;

    bool operator==(const Work&) const = default;
  };

  [[nodiscard]] Work work_of(const StepShape& step, Interval requests) const {
    std::int64_t longest = 1;
    std::int64_t most_new = 0;
    for (std::int64_t r = requests.begin; r < requests.end; ++r) {
      const RequestShape& request = step[static_cast<std::size_t>(r)];
      longest = std::max(longest, request.past_len + request.q_len);
      most_new = std::max(most_new, request.q_len);
    }
    return {.blocks = (longest + shape_.kv_block - 1) / shape_.kv_block,
            .one_token_each = shape_.exchange == Exchange::ring && most_new <= 1};
  }

  [[nodiscard]] Layout tokens_of(std::span<const DeviceId> group, Interval requests,
                                 const Work& work) const {
    if (work.one_token_each)
      return replicated(group.first(1), {.request = request_range(requests)});
    return token_blocks(group, requests, shape_.balanced);
  }

  [[nodiscard]] LayerLayouts layer(std::span<const DeviceId> group, Interval requests,
                                   const Work& work) const {
    const Layout tokens = tokens_of(group, requests, work);
    LayerLayouts layer = {.residual = tokens,
                          .q = tokens,
                          .kv = tokens,
                          .k_cache_before = {},
                          .v_cache_before = {},
                          .k_cache = {},
                          .v_cache = {},
                          .rounds = {},
                          .attention = tokens,
                          .attention_via = {},
                          .attention_out = tokens,
                          .ffn_hidden = tokens};
    switch (shape_.exchange) {
      case Exchange::all_gather:
        set_cache(layer, replicated(group, {.request = request_range(requests)}));
        layer.rounds = {plain_round(layer.k_cache, layer.v_cache, tokens)};
        break;
      case Exchange::all_to_all: {
        // Attention as in tensor parallelism: every token of some heads.
        const LayerLayouts by_heads = tensor_parallel_layer(model_, group, requests);
        set_cache(layer, by_heads.k_cache);
        layer.rounds = by_heads.rounds;
        layer.attention = by_heads.attention;
        break;
      }
      case Exchange::ring:
        set_cache(layer, shards(group, requests, work.blocks, 0));
        if (work.one_token_each) {
          layer.rounds = {standing_round(layer.k_cache)};
          break;
        }
        for (std::int64_t shift = 0; shift < shape_.cp; ++shift) {
          layer.rounds.push_back(ring_round(group, requests, work.blocks, shift));
        }
        break;
    }
    return layer;
  }

  // Positions in blocks of kv_block, dealt out in turn: shard j on device j - shift.
  [[nodiscard]] Layout shards(std::span<const DeviceId> group, Interval requests,
                              std::int64_t blocks, std::int64_t shift) const {
    Layout layout;
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t rank = (block + shape_.cp - shift) % shape_.cp;
      layout.pieces.push_back(
          {.device = group[static_cast<std::size_t>(rank)],
           .box = {.request = request_range(requests), .token = block_of_positions(block, blocks)},
           .over = {}});
    }
    return layout;
  }

  [[nodiscard]] Range block_of_positions(std::int64_t block, std::int64_t blocks) const {
    Range range = Range::of(block * shape_.kv_block, (block + 1) * shape_.kv_block);
    if (block + 1 == blocks) range.end = Bound::end();
    return range;
  }

  // Each device attends with all queries to its own shard.
  static AttentionRound standing_round(const Layout& cache) {
    Layout attention = {.kind = LayoutKind::softmax, .pieces = cache.pieces};
    for (Piece& piece : attention.pieces) {
      piece.over.token = piece.box.token;
      piece.box.token = Range::all();
    }
    return plain_round(cache, cache, std::move(attention));
  }

  // Each device attends with its own queries to the shard that has come round to it.
  [[nodiscard]] AttentionRound ring_round(std::span<const DeviceId> group, Interval requests,
                                          std::int64_t blocks, std::int64_t shift) const {
    const Layout cache = shards(group, requests, blocks, shift);
    Layout attention = {.kind = LayoutKind::softmax, .pieces = {}};
    for (const Piece& query : token_blocks(group, requests, shape_.balanced).pieces) {
      bool has_shard = false;
      for (const Piece& shard : cache.pieces) {
        if (shard.device != query.device) continue;
        attention.pieces.push_back(query);
        attention.pieces.back().over.token = shard.box.token;
        has_shard = true;
      }
      if (has_shard) continue;
      // Fewer blocks than devices: this one attends to nothing in this round, and to another
      // nothing in each, so that rounds together repeat no piece.
      attention.pieces.push_back(query);
      attention.pieces.back().over.token = Range::of(shift, shift);
    }
    return plain_round(cache, cache, std::move(attention));
  }

  ModelSpec model_;
  Shape shape_;
  Stages stages_;
};

Result<std::unique_ptr<Strategy>> make_context_parallel(const ModelSpec& model,
                                                        const Options& options,
                                                        const DeviceFacts& /*devices*/) {
  ContextParallel::Shape shape = {.cp = options.number("cp"),
                                  .kv_block = options.number("kv_block"),
                                  .pp = options.number("pp"),
                                  .microbatches = options.number("microbatches"),
                                  .exchange = static_cast<Exchange>(options.choice("exchange")),
                                  .balanced = options.choice("blocks") == 1};
  std::vector<std::string> problems;
  if (shape.exchange == Exchange::all_to_all && shape.cp > model.num_q_heads) {
    problems.push_back(
        fmt::format("--cp: found {}, allowed 1..{} for all_to_all (the model's attention heads)",
                    shape.cp, model.num_q_heads));
  }
  if (shape.pp > model.num_layers) {
    problems.push_back(fmt::format("--pp: found {}, allowed 1..{} (the model's layers)", shape.pp,
                                   model.num_layers));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  if (shape.cp == 1) shape.exchange = Exchange::all_gather;  // A ring of one.
  return std::make_unique<ContextParallel>(model, shape);
}

constexpr OptionSpec kContextParallelOptions[] = {
    {.name = "cp",
     .help = "devices that share the tokens of a step",
     .default_value = "2",
     .max = kMostRanks},
    {.name = "exchange",
     .help = "how tokens see each other's K and V",
     .default_value = "ring",
     .choices = kExchanges},
    {.name = "blocks",
     .help = "contiguous, or an early and a late block per device",
     .default_value = "balanced",
     .choices = kBlocks},
    {.name = "kv_block",
     .help = "ring: positions per block of K and V, dealt out in turn",
     .default_value = "256",
     .max = std::int64_t{1} << 30},
    kPipelineStages,
    kMicrobatches,
};

}  // namespace

StrategyEntry context_parallel_strategy() {
  return {.name = "context_parallel",
          .help =
              "Splits the new tokens of a step over cp devices, each with all weights.\n"
              "Sends K and V round a ring (queries to K and V in steps of one token), to everybody "
              "(all_gather), or swaps tokens for heads (all_to_all, Ulysses).\n"
              "Pays for long prompts of models that fit on one device; in decode with a ring "
              "attention alone is shared.",
          .options = kContextParallelOptions,
          .make = make_context_parallel};
}

}  // namespace weir
