#include "strategy/two_level.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "plan/locality.h"
#include "strategy/tensor_parallel.h"

namespace weir {
namespace {

enum class Scores { gather_qk, reduce_scores };
constexpr std::string_view kScores[] = {"gather_qk", "reduce_scores"};

// Heads in `head_groups` groups, each head's dimension in `dim_slices` slices. Within a stage,
// slice s of group g is device g * dim_slices + s.
class TwoLevel final : public Strategy {
 public:
  struct Shape {
    std::int64_t head_groups = 1;
    std::int64_t dim_slices = 1;
    std::int64_t key_blocks = 1;
    std::int64_t pp = 1;
    std::int64_t microbatches = 1;
    Scores scores = Scores::gather_qk;
  };

  TwoLevel(ModelSpec model, Shape shape)
      : model_(std::move(model)),
        shape_(shape),
        stages_(Stages::even(model_.num_layers, shape.pp, shape.head_groups * shape.dim_slices)) {}

  [[nodiscard]] std::int64_t num_devices() const override { return stages_.num_devices(); }

  [[nodiscard]] StepLayouts layouts(const StepShape& step) const override {
    StepLayouts layouts;
    for (const Interval requests :
         even_microbatches(static_cast<std::int64_t>(step.size()), shape_.microbatches)) {
      layouts.microbatches.push_back(layouts_in_stages(
          model_, stages_, requests,
          [&](std::span<const DeviceId> group) { return layer(group, requests); }));
    }
    layouts.order = in_microbatch_order(static_cast<std::int64_t>(layouts.microbatches.size()),
                                        model_.num_layers);
    return layouts;
  }

  [[nodiscard]] bool same_layouts(const StepShape& a, const StepShape& b) const override {
    return a.size() == b.size();
  }

 private:
  enum class Dims { whole, slice };

  // One piece per device: its heads of q, or of k and v, and all or its slice of the dimension.
  [[nodiscard]] Layout grid(std::span<const DeviceId> group, Interval requests, bool kv,
                            Dims dims) const {
    Layout layout;
    for (std::int64_t g = 0; g < shape_.head_groups; ++g) {
      const Interval q_heads = q_heads_of_rank(model_, g, shape_.head_groups);
      const Interval heads = kv ? kv_heads_of(model_, q_heads) : q_heads;
      for (std::int64_t s = 0; s < shape_.dim_slices; ++s) {
        Box box = {.request = request_range(requests), .head = Range::of(heads.begin, heads.end)};
        if (dims == Dims::slice) box.dim = slice(s);
        layout.pieces.push_back(
            {.device = group[static_cast<std::size_t>(g * shape_.dim_slices + s)],
             .box = box,
             .over = {}});
      }
    }
    return layout;
  }

  [[nodiscard]] Range slice(std::int64_t s) const {
    const std::int64_t width = model_.head_dim / shape_.dim_slices;
    return Range::of(s * width, (s + 1) * width);
  }

  [[nodiscard]] LayerLayouts layer(std::span<const DeviceId> group, Interval requests) const {
    // Everything but attention is tensor parallel over all devices of the stage.
    LayerLayouts layer = {.residual = replicated(group, {.request = request_range(requests)}),
                          .q = grid(group, requests, false, Dims::slice),
                          .kv = grid(group, requests, true, Dims::slice),
                          .k_cache_before = {},
                          .v_cache_before = {},
                          .k_cache = {},
                          .v_cache = {},
                          .rounds = {},
                          .attention = grid(group, requests, false, Dims::slice),
                          .attention_via = {},
                          .attention_out = grid(group, requests, false, Dims::slice),
                          .ffn_hidden = ffn_columns(model_, group, requests)};
    set_cache(layer, layer.kv);
    if (shape_.scores == Scores::gather_qk) {
      layer.k_cache = grid(group, requests, true, Dims::whole);
      layer.k_cache_before = layer.k_cache;
      layer.rounds = {plain_round(layer.k_cache, layer.v_cache, layer.attention)};
      return layer;
    }
    for (std::int64_t block = 0; block < shape_.key_blocks; ++block) {
      layer.rounds.push_back(scored_round(layer, Range::block(block, shape_.key_blocks)));
    }
    return layer;
  }

  // Partial scores of one block of keys over the slices, their sum, and what follows from it.
  [[nodiscard]] AttentionRound scored_round(const LayerLayouts& layer, const Range& keys) const {
    AttentionRound round = plain_round(layer.k_cache, layer.v_cache, layer.attention);
    round.scores.kind = LayoutKind::sum;
    for (const Piece& piece : layer.q.pieces) {
      Piece partial = piece;
      partial.box.dim = keys;
      partial.over.dim = piece.box.dim;
      round.scores.pieces.push_back(partial);
      partial.over = {};
      round.scores_complete.pieces.push_back(partial);
    }
    if (shape_.key_blocks > 1) {
      round.attention.kind = LayoutKind::softmax;
      for (Piece& tile : round.attention.pieces) tile.over.token = keys;
    }
    return round;
  }

  ModelSpec model_;
  Shape shape_;
  Stages stages_;
};

Result<std::unique_ptr<Strategy>> make_two_level(const ModelSpec& model, const Options& options,
                                                 const DeviceFacts& /*devices*/) {
  const TwoLevel::Shape shape = {.head_groups = options.number("head_groups"),
                                 .dim_slices = options.number("dim_slices"),
                                 .key_blocks = options.number("key_blocks"),
                                 .pp = options.number("pp"),
                                 .microbatches = options.number("microbatches"),
                                 .scores = static_cast<Scores>(options.choice("scores"))};
  std::vector<std::string> problems;
  if (shape.head_groups > model.num_q_heads) {
    problems.push_back(fmt::format("--head_groups: found {}, allowed 1..{} (the model's heads)",
                                   shape.head_groups, model.num_q_heads));
  }
  if (model.head_dim % (2 * shape.dim_slices) != 0) {
    problems.push_back(
        fmt::format("--dim_slices: found {}, allowed divisors of {} (head_dim {} in rotary pairs)",
                    shape.dim_slices, model.head_dim / 2, model.head_dim));
  }
  if (model.qk_norm && shape.dim_slices > 1) {
    problems.push_back(fmt::format(
        "--dim_slices: found {}, allowed 1: the model normalises whole heads of q and k",
        shape.dim_slices));
  }
  if (shape.pp > model.num_layers) {
    problems.push_back(fmt::format("--pp: found {}, allowed 1..{} (the model's layers)", shape.pp,
                                   model.num_layers));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return std::make_unique<TwoLevel>(model, shape);
}

constexpr OptionSpec kTwoLevelOptions[] = {
    {.name = "head_groups", .help = "groups of heads (n)", .default_value = "2", .max = kMostRanks},
    {.name = "dim_slices",
     .help = "slices of each head's dimension (m)",
     .default_value = "2",
     .max = kMostRanks},
    {.name = "scores",
     .help = "how scores of sliced heads become complete",
     .default_value = "gather_qk",
     .choices = kScores},
    {.name = "key_blocks",
     .help = "reduce_scores: blocks of keys whose scores are held at once, 1 of so many",
     .default_value = "1",
     .max = 4096},
    kPipelineStages,
    kMicrobatches,
};

}  // namespace

StrategyEntry two_level_strategy() {
  return {.name = "two_level",
          .help =
              "Splits heads into head_groups groups and each head's dimension into dim_slices "
              "slices; FFN over all devices.\n"
              "Sends q and k within a group (gather_qk) or partial scores (reduce_scores), and "
              "two all-reduces per layer.\n"
              "Pays where there are more devices than heads; reduce_scores only for very short "
              "contexts.",
          .options = kTwoLevelOptions,
          .make = make_two_level};
}

}  // namespace weir
