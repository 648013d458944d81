#include "exec/compute.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <list>

#include "base/check.h"
#include "exec/kv_view.h"
#include "exec/prepared_plan.h"
#include "exec/redistribute.h"
#include "plan/locality.h"

namespace weir {
namespace {

kernel::Activation kernel_activation(Activation activation) {
  switch (activation) {
    case Activation::silu:
      return kernel::Activation::silu;
    case Activation::gelu_erf:
      return kernel::Activation::gelu_erf;
    case Activation::gelu_tanh:
      return kernel::Activation::gelu_tanh;
  }
  CHECK(false, "unknown activation");
}

// One task: a node on a device.
class ComputeTask {
 public:
  ComputeTask(const StepView& step, DeviceState& device, NodeId node, const TaskWeights& weights)
      : step_(step),
        plan_(step.plan.plan()),
        device_(device),
        node_(plan_.at(node)),
        weights_(weights),
        memory_(device.compute_memory) {
    memory_.head_maps.give_back_all();
    memory_.shifted_blocks.give_back_all();
  }

  void run(NodeId id, TaskFacts& facts) {
    using enum OpKind;
    switch (node_.kind) {
      case embed:
        allocate_outputs();
        each_part(0, [&](std::size_t part) { run_embed(part); });
        break;
      case attn_norm:
      case ffn_norm:
      case final_norm:
        allocate_outputs();
        each_part(0, [&](std::size_t part) {
          kernel::rms_norm(team(), input(0, part), norm(weight(0, part).vector), output(0, part));
        });
        break;
      case qkv_proj:
      case ffn_up:
      case lm_head:
        allocate_outputs();
        for (std::size_t o = 0; o < node_.outputs.size(); ++o) {
          each_part(o, [&](std::size_t part) { run_linear(o, part, rows_source(o, part)); });
        }
        break;
      case o_proj:
      case ffn_down:
        allocate_outputs();
        each_part(0, [&](std::size_t part) { run_linear(0, part, contraction_source(part)); });
        break;
      case rope:
        for (std::size_t o = 0; o < node_.outputs.size(); ++o) {
          take_over(o, o);
          each_part(o, [&](std::size_t part) { run_rope(o, part); });
        }
        break;
      case kv_append:
        for (std::size_t o = 0; o < node_.outputs.size(); ++o) {
          each_buffer(o, [&](std::size_t, const BoundBuffer& cache) { append(o, cache); });
        }
        break;
      case attention:
        allocate_outputs();
        run_attention();
        break;
      case score_slice:
        allocate_outputs();
        each_buffer(0,
                    [&](std::size_t part, const BoundBuffer& shape) { run_scores(part, shape); });
        break;
      case attend_scores:
        allocate_outputs();
        each_buffer(0,
                    [&](std::size_t part, const BoundBuffer& shape) { run_scored(part, shape); });
        break;
      case merge:
        run_merge();
        break;
      case add:
        take_over(0, 0);
        each_part(0,
                  [&](std::size_t part) { kernel::add(team(), input(1, part), output(0, part)); });
        break;
      case activation:
        run_activation();
        break;
      case slice:
        allocate_outputs();
        copy_local(step_, device_, node_, task_transfers(step_, device_.id, id, facts));
        break;
      case all_reduce:
      case reduce_scatter:
      case all_gather:
      case all_to_all:
      case broadcast:
      case gather:
      case reduce:
      case copy:
      case kv_copy:
        CHECK(false, "communication is not a compute task");
    }
  }

 private:
  [[nodiscard]] Team& team() const { return *device_.team; }
  [[nodiscard]] const ModelSpec& model() const { return plan_.model; }
  [[nodiscard]] const BufferWeights& weight(std::size_t o, std::size_t part) const {
    return weights_[o][part];
  }
  [[nodiscard]] kernel::RmsNorm norm(std::span<const float> weights) const {
    return {.weight = weights, .eps = static_cast<float>(model().rms_norm_eps)};
  }

  [[nodiscard]] const BoundBuffer& buffer(ValueId value, std::size_t part) const {
    const BoundLayout& bound = step_.bound(value);
    return bound.buffers[bound.by_device[index_of(device_.id)][part]];
  }
  [[nodiscard]] std::size_t num_parts(ValueId value) const {
    return step_.bound(value).by_device[index_of(device_.id)].size();
  }
  [[nodiscard]] LocalValue& local(ValueId value) { return device_.values[index_of(value)]; }

  [[nodiscard]] kernel::ConstMatrix input(std::size_t i, std::size_t part) {
    const BoundBuffer& shape = buffer(node_.inputs[i], part);
    return {.data = local(node_.inputs[i]).parts[part].data(),
            .rows = shape.rows,
            .cols = shape.width(),
            .row_stride = shape.width()};
  }
  [[nodiscard]] kernel::Matrix output(std::size_t o, std::size_t part) {
    const BoundBuffer& shape = buffer(node_.outputs[o], part);
    return {.data = local(node_.outputs[o]).parts[part].data(),
            .rows = shape.rows,
            .cols = shape.width(),
            .row_stride = shape.width()};
  }

  void allocate_outputs() {
    for (const ValueId value : node_.outputs) device_.allocate(step_, value);
  }

  template <class Body>
  void each_part(std::size_t o, Body body) {
    for (std::size_t part = 0; part < num_parts(node_.outputs[o]); ++part) body(part);
  }
  template <class Body>
  void each_buffer(std::size_t o, Body body) {
    each_part(o, [&](std::size_t part) { body(part, buffer(node_.outputs[o], part)); });
  }

  // The output becomes the input's memory where nobody else reads it, else a copy: for ops that
  // work in place.
  void take_over(std::size_t o, std::size_t i) {
    LocalValue& source = local(node_.inputs[i]);
    LocalValue& target = local(node_.outputs[o]);
    if (source.readers_left == 1) {
      target.parts.swap(source.parts);
      return;
    }
    device_.allocate(step_, node_.outputs[o]);
    for (std::size_t part = 0; part < target.parts.size(); ++part) {
      const auto bytes =
          static_cast<std::size_t>(buffer(node_.outputs[o], part).elements) * sizeof(float);
      std::memcpy(target.parts[part].data(), source.parts[part].data(), bytes);
    }
  }

  // The part of input i with the same rows as the output's part.
  template <class Matches>
  std::size_t source_part(std::size_t i, const BoundBuffer& wanted, Matches matches) {
    for (std::size_t part = 0; part < num_parts(node_.inputs[i]); ++part) {
      const BoundBuffer& candidate = buffer(node_.inputs[i], part);
      const bool same_rows =
          candidate.box.request == wanted.box.request && candidate.box.token == wanted.box.token;
      if (same_rows && matches(candidate)) return part;
    }
    CHECK(false, "a validated plan has every input where it is needed");
  }

  kernel::ConstMatrix rows_source(std::size_t o, std::size_t part) {
    const std::size_t i = input_of_rows(node_, o);
    return input(
        i, source_part(i, buffer(node_.outputs[o], part), [](const BoundBuffer&) { return true; }));
  }

  // What the output part contracts: its weight's columns say which heads and dims.
  kernel::ConstMatrix contraction_source(std::size_t part) {
    const std::int64_t width = weight(0, part).matrix->in_features();
    const Piece& piece = piece_of(node_.outputs[0], part);
    const bool whole = step_.bound(node_.outputs[0]).kind == LayoutKind::whole;
    const auto contracted = [&](const BoundBuffer& candidate) {
      return candidate.width() == width && (whole || (candidate.box.head == piece.over.head &&
                                                      candidate.box.dim == piece.over.dim));
    };
    return input(0, source_part(0, buffer(node_.outputs[0], part), contracted));
  }

  // The first piece behind a buffer.
  [[nodiscard]] const Piece& piece_of(ValueId value, std::size_t part) const {
    const BoundBuffer& shape = buffer(value, part);
    const auto& pieces = plan_.layout_of(value).pieces;
    const auto place = std::ranges::find_if(pieces, [&](const Piece& piece) {
      return piece.device == shape.device && piece.box == shape.box;
    });
    CHECK(place != pieces.end(), "a buffer comes from a piece");
    return *place;
  }

  void run_embed(std::size_t part) {
    const BoundBuffer& shape = buffer(node_.outputs[0], part);
    std::vector<std::int64_t>& ids = memory_.numbers;
    ids.clear();
    for (const RowSpan& span : shape.spans) {
      const auto tokens = step_.input.tokens[static_cast<std::size_t>(span.request)];
      const auto wanted = tokens.subspan(static_cast<std::size_t>(span.token.begin),
                                         static_cast<std::size_t>(span.token.size()));
      ids.insert(ids.end(), wanted.begin(), wanted.end());
    }
    kernel::embed(team(), ids, weight(0, part).table, output(0, part));
  }

  void run_linear(std::size_t o, std::size_t part, const kernel::ConstMatrix& x) {
    const BufferWeights& weights = weight(o, part);
    kernel::linear(team(), x, *weights.matrix, weights.vector, output(o, part));
  }

  void run_rope(std::size_t o, std::size_t part) {
    const BoundBuffer& shape = buffer(node_.outputs[o], part);
    const kernel::Matrix all = output(o, part);
    if (model().qk_norm) {
      const kernel::Matrix heads = {.data = all.data,
                                    .rows = shape.rows * shape.head.size(),
                                    .cols = shape.dim.size(),
                                    .row_stride = shape.dim.size()};
      kernel::rms_norm(team(), {heads.data, heads.rows, heads.cols, heads.row_stride},
                       norm(weight(o, part).vector), heads);
    }
    // The pairs that this slice of the head dimension holds.
    const Interval rotated = intersect(shape.dim, {.begin = 0, .end = model().rope.rotary_dim});
    for (const RowSpan& span : shape.spans) {
      const RequestLengths lengths = step_.input.lengths[static_cast<std::size_t>(span.request)];
      const std::int64_t past = lengths.kv_len - lengths.q_len;
      std::vector<std::int64_t>& positions = memory_.numbers;
      positions.resize(static_cast<std::size_t>(span.token.size()));
      for (std::size_t i = 0; i < positions.size(); ++i)
        positions[i] = past + span.token.begin + static_cast<std::int64_t>(i);
      const RopeFrequencies& frequencies =
          step_.frequencies[static_cast<std::size_t>(span.request)];
      const kernel::Matrix rows = {.data = all.data + span.first_row * all.row_stride,
                                   .rows = span.token.size(),
                                   .cols = all.cols,
                                   .row_stride = all.row_stride};
      kernel::rope(team(), rows, positions,
                   {.inverse_frequency = std::span(frequencies.inverse_frequency)
                                             .subspan(static_cast<std::size_t>(rotated.begin / 2),
                                                      static_cast<std::size_t>(rotated.size() / 2)),
                    .scale = frequencies.scale,
                    .num_heads = shape.head.size(),
                    .head_dim = shape.dim.size()});
    }
  }

  void run_activation() {
    take_over(0, 0);
    const kernel::Activation function = kernel_activation(model().activation);
    each_part(0, [&](std::size_t part) {
      const kernel::Matrix out = output(0, part);
      const kernel::ConstMatrix x = {out.data, out.rows, out.cols, out.row_stride};
      if (model().gated_ffn) {
        kernel::gated_activation(team(), function, x, input(1, part), out);
      } else {
        kernel::activation(team(), function, x, out);
      }
    });
  }

  // K or V of the new tokens that this device has projected.
  void append(std::size_t o, const BoundBuffer& cache) {
    const ValueId value = node_.inputs[o];
    for (std::size_t part = 0; part < num_parts(value); ++part) {
      const BoundBuffer& source = buffer(value, part);
      if (source.box != cache.box) continue;
      for (const RowSpan& span : source.spans) {
        write_rows(o, source, local(value).parts[part].data(), span);
      }
    }
  }

  void write_rows(std::size_t o, const BoundBuffer& source, const float* data,
                  const RowSpan& span) {
    const RequestLengths lengths = step_.input.lengths[static_cast<std::size_t>(span.request)];
    const std::int64_t first = lengths.kv_len - lengths.q_len + span.token.begin;
    const Interval positions = {.begin = first, .end = first + span.token.size()};
    KvStrip& strip =
        device_.kv.strip(key_of(step_, node_.outputs[o], span.request),
                         {.heads = source.head, .dims = source.dim, .dtype = plan_.kv_dtype});
    strip.reserve(positions);
    kernel::write_kv(team(),
                     {.source = data + span.first_element,
                      .source_row_stride = source.width(),
                      .rows = span.token.size(),
                      .num_heads = source.head.size(),
                      .head_dim = source.dim.size(),
                      .first_position_of_rows = first},
                     strip.mutable_blocks(positions));
  }

  [[nodiscard]] float scale() const {
    return static_cast<float>(1.0 / std::sqrt(static_cast<double>(model().head_dim)));
  }

  // Heads of K and V behind the query heads of a buffer, counted from `first_head`.
  std::span<const std::int64_t> head_map(const BoundBuffer& shape, std::int64_t first_head) {
    const std::int64_t group = model().num_q_heads / model().num_kv_heads;
    auto& map = memory_.head_maps.take();
    for (std::int64_t head = shape.head.begin; head < shape.head.end; ++head) {
      map.push_back(head / group - first_head);
    }
    return map;
  }

  [[nodiscard]] std::int64_t first_position(const RowSpan& span) const {
    const RequestLengths lengths = step_.input.lengths[static_cast<std::size_t>(span.request)];
    return lengths.kv_len - lengths.q_len + span.token.begin;
  }

  // Keys behind the last query of the span are not seen by any.
  [[nodiscard]] Interval seen_by(const RowSpan& span, Interval keys) const {
    const std::int64_t end = first_position(span) + span.token.size();
    return {.begin = keys.begin, .end = std::max(keys.begin, std::min(keys.end, end))};
  }

  KvView find_cache(std::size_t input, const BoundBuffer& shape, std::int64_t request,
                    Interval dims, Interval positions) {
    return find_kv(step_, device_,
                   {.cache = node_.inputs[input],
                    .request = request,
                    .heads = kv_heads_of(model(), shape.head),
                    .dims = dims,
                    .positions = positions},
                   pointers_);
  }

  void run_attention() {
    std::vector<kernel::AttentionTile>& tiles = memory_.tiles;
    tiles.clear();
    std::vector<ExtraRange> extras;
    each_buffer(0, [&](std::size_t part, const BoundBuffer& shape) {
      add_tiles(part, shape, tiles, extras);
    });
    kernel::attention(team(), tiles);
    for (const ExtraRange& extra : extras) merge_extra(extra);
  }

  // A further key range of a buffer, which is merged into what the first has given.
  struct ExtraRange {
    kernel::AttentionTile
        tile;  // Of the first range: same queries, same heads, `out` and `lse` to merge into.
    const BoundBuffer* shape;
    const RowSpan* span;
    Interval keys;
  };

  void add_tiles(std::size_t part, const BoundBuffer& shape,
                 std::vector<kernel::AttentionTile>& tiles, std::vector<ExtraRange>& extras) {
    const std::size_t query_part = source_part(0, shape, [&](const BoundBuffer& candidate) {
      return candidate.box.head == shape.box.head;
    });
    const std::int64_t q_width = shape.head.size() * model().head_dim;
    LocalValue& out = local(node_.outputs[0]);
    const bool partial = !out.lse.empty();
    for (const RowSpan& span : shape.spans) {
      const RequestLengths lengths = step_.input.lengths[static_cast<std::size_t>(span.request)];
      kernel::AttentionTile tile;
      tile.q = local(node_.inputs[0]).parts[query_part].data() + span.first_row * q_width;
      tile.q_row_stride = q_width;
      tile.q_head_stride = model().head_dim;
      tile.num_queries = span.token.size();
      tile.num_heads = shape.head.size();
      tile.key_dim = model().head_dim;
      tile.value_dim = shape.dim.size();
      tile.first_query = lengths.kv_len - lengths.q_len + span.token.begin;
      if (model().sliding_window) tile.window = *model().sliding_window;
      tile.scale = scale();
      tile.out = out.parts[part].data() + span.first_row * shape.width();
      tile.out_row_stride = shape.width();
      tile.out_head_stride = shape.dim.size();
      if (partial) {
        tile.lse = out.lse[part].data() + span.first_row * shape.head.size();
        tile.lse_row_stride = shape.head.size();
      }
      Interval first = {.begin = 0, .end = partial ? 0 : lengths.kv_len};
      for (const Range& range : shape.key_ranges) {
        const Interval keys = resolve(range, lengths.kv_len);
        if (keys.empty()) continue;
        if (first.empty()) {
          first = keys;
        } else {
          extras.push_back({.tile = tile, .shape = &shape, .span = &span, .keys = keys});
        }
      }
      set_keys(tile, shape, span, first);
      tiles.push_back(tile);
    }
  }

  void set_keys(kernel::AttentionTile& tile, const BoundBuffer& shape, const RowSpan& span,
                Interval keys) {
    const Interval seen = seen_by(span, keys);
    tile.key_begin = seen.begin;
    tile.key_end = seen.end;
    std::int64_t first_head = kv_heads_of(model(), shape.head).begin;
    if (!seen.empty()) {
      const KvView k =
          find_cache(1, shape, span.request, {.begin = 0, .end = model().head_dim}, seen);
      const KvView v = find_cache(2, shape, span.request, shape.dim, seen);
      CHECK(k.first_head == v.first_head, "K and V of a tile are stored with the same heads");
      tile.keys = k.blocks;
      tile.values = from_dim(v.blocks, shape.dim.begin - v.first_dim);
      first_head = k.first_head;
    }
    tile.kv_head_of = head_map(shape, first_head);
  }

  // The same blocks seen from a later dimension on: a tile may give only a part of each head.
  kernel::KvBlocks from_dim(kernel::KvBlocks blocks, std::int64_t dim) {
    if (dim == 0) return blocks;
    auto& shifted = memory_.shifted_blocks.take();
    for (const void* block : blocks.blocks)
      shifted.push_back(static_cast<const std::byte*>(block) + dim * size_in_bytes(blocks.dtype));
    blocks.blocks = shifted;
    return blocks;
  }

  void merge_extra(const ExtraRange& extra) {
    const std::int64_t width = extra.shape->width();
    const std::int64_t heads = extra.shape->head.size();
    const PooledBuffer out = device_.pool.take(extra.tile.num_queries * width);
    const PooledBuffer lse = device_.pool.take(extra.tile.num_queries * heads);
    kernel::AttentionTile tile = extra.tile;
    tile.out = out.data();
    tile.lse = lse.data();
    tile.lse_row_stride = heads;
    set_keys(tile, *extra.shape, *extra.span, extra.keys);
    kernel::attention(team(), std::span(&tile, 1));
    kernel::merge_partial(
        team(), {.rows = tile.num_queries, .num_heads = heads, .head_dim = extra.shape->dim.size()},
        {.out = extra.tile.out,
         .row_stride = width,
         .lse = extra.tile.lse,
         .lse_row_stride = extra.tile.lse_row_stride},
        {.out = tile.out, .row_stride = width, .lse = tile.lse, .lse_row_stride = heads});
  }

  // Scores of each request: [q_len, heads, keys], dense.
  void run_scores(std::size_t part, const BoundBuffer& shape) {
    const Piece& piece = piece_of(node_.outputs[0], part);
    const bool whole = step_.bound(node_.outputs[0]).kind == LayoutKind::whole;
    const Interval all_dims = {.begin = 0, .end = model().head_dim};
    const Interval dims = whole ? all_dims : resolve(piece.over.dim, model().head_dim);
    const std::size_t query_part = source_part(0, shape, [&](const BoundBuffer& q) {
      return q.box.head == shape.box.head && q.dim == dims;
    });
    const BoundBuffer& queries = buffer(node_.inputs[0], query_part);
    for (const RowSpan& span : shape.spans) {
      if (span.dim.empty()) continue;
      const KvView k = find_cache(1, shape, span.request, dims, span.dim);
      kernel::ScoreTile tile;
      tile.q = local(node_.inputs[0]).parts[query_part].data() + span.first_row * queries.width();
      tile.q_row_stride = queries.width();
      tile.q_head_stride = dims.size();
      tile.num_queries = span.token.size();
      tile.num_heads = shape.head.size();
      tile.key_dim = dims.size();
      tile.first_dim = dims.begin - k.first_dim;
      tile.kv_head_of = head_map(shape, k.first_head);
      tile.keys = k.blocks;
      tile.first_query = first_position(span);
      tile.key_begin = span.dim.begin;
      tile.key_end = span.dim.end;
      if (model().sliding_window) tile.window = *model().sliding_window;
      tile.scale = scale();
      tile.scores = local(node_.outputs[0]).parts[part].data() + span.first_element;
      kernel::score_slice(team(), tile);
    }
  }

  void run_scored(std::size_t part, const BoundBuffer& shape) {
    LocalValue& out = local(node_.outputs[0]);
    const Range keys = shape.key_ranges.empty() ? Range::all() : shape.key_ranges.front();
    const std::size_t score_part = source_part(0, shape, [&](const BoundBuffer& scores) {
      return scores.box.head == shape.box.head && scores.box.dim == keys;
    });
    const BoundBuffer& scores = buffer(node_.inputs[0], score_part);
    for (std::size_t i = 0; i < shape.spans.size(); ++i) {
      const RowSpan& span = shape.spans[i];
      const RowSpan& score_span = scores.spans[i];  // Same rows, so same requests.
      kernel::ScoredTile tile;
      tile.scores = local(node_.inputs[0]).parts[score_part].data() + score_span.first_element;
      tile.num_queries = span.token.size();
      tile.num_heads = shape.head.size();
      tile.value_dim = shape.dim.size();
      tile.first_query = first_position(span);
      tile.key_begin = score_span.dim.begin;
      tile.key_end = score_span.dim.end;
      std::int64_t first_head = kv_heads_of(model(), shape.head).begin;
      if (!score_span.dim.empty()) {
        const KvView v = find_cache(1, shape, span.request, shape.dim, score_span.dim);
        tile.first_dim = shape.dim.begin - v.first_dim;
        tile.values = v.blocks;
        first_head = v.first_head;
      }
      tile.kv_head_of = head_map(shape, first_head);
      if (model().sliding_window) tile.window = *model().sliding_window;
      tile.out = out.parts[part].data() + span.first_element;
      tile.out_row_stride = shape.width();
      tile.out_head_stride = shape.dim.size();
      if (!out.lse.empty()) {
        tile.lse = out.lse[part].data() + span.first_row * shape.head.size();
        tile.lse_row_stride = shape.head.size();
      }
      kernel::attend_scores(team(), tile);
    }
  }

  // The second part into the first, in place; the first gives its memory.
  void run_merge() {
    LocalValue& first = local(node_.inputs[0]);
    LocalValue& second = local(node_.inputs[1]);
    LocalValue& out = local(node_.outputs[0]);
    CHECK(first.readers_left == 1, "rounds of attention are read by their merge alone");
    out.parts = std::move(first.parts);
    out.lse = std::move(first.lse);
    first.parts.clear();
    first.lse.clear();
    each_buffer(0, [&](std::size_t part, const BoundBuffer& shape) {
      const std::size_t other = part_of_box(node_.inputs[1], shape.box);
      kernel::merge_partial(
          team(),
          {.rows = shape.rows, .num_heads = shape.head.size(), .head_dim = shape.dim.size()},
          {.out = out.parts[part].data(),
           .row_stride = shape.width(),
           .lse = out.lse[part].data(),
           .lse_row_stride = shape.head.size()},
          {.out = second.parts[other].data(),
           .row_stride = shape.width(),
           .lse = second.lse[other].data(),
           .lse_row_stride = shape.head.size()});
    });
    if (step_.bound(node_.outputs[0]).kind == LayoutKind::whole) out.lse.clear();
  }

  [[nodiscard]] std::size_t part_of_box(ValueId value, const Box& box) const {
    for (std::size_t part = 0; part < num_parts(value); ++part) {
      if (buffer(value, part).box == box) return part;
    }
    CHECK(false, "parts that are merged have the same boxes");
  }

  const StepView& step_;
  const Plan& plan_;
  DeviceState& device_;
  const Node& node_;
  const TaskWeights& weights_;
  ComputeMemory& memory_;
  // What tiles point to: a list, for its elements stay where they are, and most tasks have none.
  std::list<const void*> pointers_;
};

}  // namespace

void run_compute(const StepView& step, DeviceState& device, NodeId node, const TaskWeights& weights,
                 TaskFacts& facts) {
  ComputeTask(step, device, node, weights).run(node, facts);
}

}  // namespace weir
