#include "plan/placement.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

namespace weir {
namespace {

struct Part {
  Interval heads{.begin = 0, .end = 1};
  Interval dims;
};

class SliceList {
 public:
  SliceList(const ModelSpec& model, std::int32_t layer, std::vector<WeightSlice>& slices)
      : model_(model), layer_(layer), slices_(slices) {}

  void matrix(WeightKind kind, Part rows, Part cols) {
    slices_.push_back({.kind = kind,
                       .layer = is_per_layer(kind) ? layer_ : -1,
                       .row_heads = rows.heads,
                       .row_dims = rows.dims,
                       .col_heads = cols.heads,
                       .col_dims = cols.dims});
  }
  void vector(WeightKind kind, Part cols) {
    if (has_weight(model_, kind)) matrix(kind, {.dims = {.begin = 0, .end = 1}}, cols);
  }

 private:
  const ModelSpec& model_;
  std::int32_t layer_;
  std::vector<WeightSlice>& slices_;
};

// Columns of an output box, whose head and dim axes are constant.
Part part_of(const Box& box, const TensorShape& shape) {
  return {.heads = resolve(box.head, shape.heads), .dims = resolve(box.dim, shape.dims)};
}

// What a piece contracts: its `over`, or everything when it is whole.
Part contraction_of(const Layout& layout, const Piece& piece, const TensorShape& shape) {
  if (layout.kind == LayoutKind::whole) {
    return {.heads = {.begin = 0, .end = shape.over_heads},
            .dims = {.begin = 0, .end = shape.over_dims}};
  }
  return {.heads = resolve(piece.over.head, shape.over_heads),
          .dims = resolve(piece.over.dim, shape.over_dims)};
}

bool starts_at_zero(const Part& part) { return part.heads.begin == 0 && part.dims.begin == 0; }

// A piece of a node's output, and the shape of the whole of it.
struct OutputPiece {
  std::size_t output = 0;
  const TensorShape& shape;
  const Piece& piece;
};

// Appends what the piece needs.
void append_slices(const Plan& plan, const Node& node, const OutputPiece& made,
                   std::vector<WeightSlice>& slices) {
  const auto& [output, shape, piece] = made;
  const ModelSpec& model = plan.model;
  const Value& value = plan.at(node.outputs[output]);
  const Layout& layout = plan.layout_of(node.outputs[output]);
  const Part out = part_of(piece.box, shape);
  const Part hidden = {.dims = {.begin = 0, .end = model.hidden_size}};
  SliceList list(model, node.layer, slices);
  using enum OpKind;
  using W = WeightKind;
  switch (node.kind) {
    case embed:
      list.matrix(W::embedding, contraction_of(layout, piece, shape), hidden);
      break;
    case attn_norm:
      list.vector(W::attn_norm, hidden);
      break;
    case ffn_norm:
      list.vector(W::ffn_norm, hidden);
      break;
    case final_norm:
      list.vector(W::final_norm, hidden);
      break;
    case qkv_proj: {
      const bool is_q = value.role == Role::q;
      const bool is_k = value.role == Role::k;
      list.matrix(is_q ? W::q_proj : (is_k ? W::k_proj : W::v_proj), out, hidden);
      list.vector(is_q ? W::q_bias : (is_k ? W::k_bias : W::v_bias), out);
      break;
    }
    case rope:
      list.vector(value.role == Role::q ? W::q_norm : W::k_norm, {.dims = out.dims});
      break;
    case o_proj:
    case ffn_down: {
      const Part over = contraction_of(layout, piece, shape);
      list.matrix(node.kind == ffn_down ? W::down_proj : W::o_proj, hidden, over);
      if (starts_at_zero(over))
        list.vector(node.kind == ffn_down ? W::down_bias : W::o_bias, hidden);
      break;
    }
    case ffn_up: {
      const bool is_gate = value.role == Role::gate;
      list.matrix(is_gate ? W::gate_proj : W::up_proj, out, hidden);
      list.vector(is_gate ? W::gate_bias : W::up_bias, out);
      break;
    }
    case lm_head:
      list.matrix(W::lm_head, out, hidden);
      break;
    case kv_append:
    case attention:
    case score_slice:
    case attend_scores:
    case merge:
    case add:
    case activation:
    case slice:
    case all_reduce:
    case reduce_scatter:
    case all_gather:
    case all_to_all:
    case broadcast:
    case gather:
    case reduce:
    case copy:
    case kv_copy:
      break;
  }
}

}  // namespace

std::vector<WeightSlice> weight_slices(const Plan& plan, const Node& node, std::size_t output,
                                       const Piece& piece) {
  std::vector<WeightSlice> slices;
  const TensorShape shape = shape_of(plan, plan.at(node.outputs[output]));
  append_slices(plan, node, {output, shape, piece}, slices);
  return slices;
}

std::vector<WeightSlice> weights_on(const Plan& plan, DeviceId device) {
  std::vector<WeightSlice> held;
  for (const NodeId id : plan.devices[index_of(device)].compute) {
    const Node& node = plan.at(id);
    for (std::size_t output = 0; output < node.outputs.size(); ++output) {
      for (const Piece& piece : plan.layout_of(node.outputs[output]).pieces) {
        if (piece.device != device) continue;
        for (const WeightSlice& slice : weight_slices(plan, node, output, piece))
          held.push_back(slice);
      }
    }
  }
  const auto key = [](const WeightSlice& s) {
    return std::tuple(s.layer, s.kind, s.row_heads.begin, s.row_dims.begin, s.col_heads.begin,
                      s.col_dims.begin, s.row_heads.end, s.row_dims.end, s.col_heads.end,
                      s.col_dims.end);
  };
  std::ranges::sort(held, {}, key);
  held.erase(std::unique(held.begin(), held.end()), held.end());
  return held;
}

namespace {

// Area of the union of rectangles (rows x cols in a weight): devices hold few per weight, so
// cutting by rows is enough.
std::int64_t union_area(const std::vector<std::pair<Interval, Interval>>& rectangles) {
  if (rectangles.size() == 1)
    return rectangles.front().first.size() * rectangles.front().second.size();
  std::vector<std::int64_t> cuts;
  for (const auto& [rows, cols] : rectangles) cuts.insert(cuts.end(), {rows.begin, rows.end});
  std::ranges::sort(cuts);
  std::int64_t area = 0;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    std::vector<Interval> spans;
    for (const auto& [rows, cols] : rectangles) {
      if (rows.begin <= cuts[i] && cuts[i + 1] <= rows.end) spans.push_back(cols);
    }
    std::ranges::sort(spans, {}, &Interval::begin);
    std::int64_t width = 0;
    std::int64_t reached = 0;
    for (const Interval& span : spans) {
      width += std::max<std::int64_t>(0, span.end - std::max(span.begin, reached));
      reached = std::max(reached, span.end);
    }
    area += width * (cuts[i + 1] - cuts[i]);
  }
  return area;
}

// The slice as rectangles in the weight's rows and columns: one per head unless whole heads are
// taken.
void append_rectangles(const WeightSlice& slice, std::int64_t row_head_dim,
                       std::int64_t col_head_dim,
                       std::vector<std::pair<Interval, Interval>>& rectangles) {
  const auto each_span = [](Interval heads, Interval dims, std::int64_t head_dim, auto&& visit) {
    const bool joined = dims.size() == head_dim || heads.size() == 1;
    const std::int64_t step = joined ? heads.size() : 1;
    for (std::int64_t head = heads.begin; head < heads.end; head += step) {
      visit(Interval{.begin = head * head_dim + dims.begin,
                     .end = (head + step - 1) * head_dim + dims.end});
    }
  };
  each_span(slice.row_heads, slice.row_dims, row_head_dim, [&](Interval rows) {
    each_span(slice.col_heads, slice.col_dims, col_head_dim,
              [&](Interval cols) { rectangles.emplace_back(rows, cols); });
  });
}

using Rectangles = std::vector<std::pair<Interval, Interval>>;

// What the devices hold of each weight: one rectangle, as nearly always, or several.
class HeldWeights {
 public:
  explicit HeldWeights(const Plan& plan)
      : model_(plan.model), first_(plan.devices.size() * kAllWeightKinds.size()) {}

  void add(DeviceId device, WeightKind kind, const Rectangles& rectangles) {
    const std::size_t place =
        index_of(device) * kAllWeightKinds.size() + static_cast<std::size_t>(kind);
    for (const auto& rectangle : rectangles) {
      if (!first_[place]) {
        first_[place] = rectangle;
      } else if (*first_[place] != rectangle) {
        Rectangles& more = more_[place];
        if (std::ranges::find(more, rectangle) == more.end()) more.push_back(rectangle);
      }
    }
  }

  [[nodiscard]] std::vector<std::int64_t> bytes() {
    std::vector<std::int64_t> bytes(first_.size() / kAllWeightKinds.size(), 0);
    const std::int64_t size = size_in_bytes(model_.weight_dtype);
    for (std::size_t place = 0; place < first_.size(); ++place) {
      if (!first_[place] || more_.contains(place)) continue;
      const auto& [rows, cols] = *first_[place];
      bytes[place / kAllWeightKinds.size()] += rows.size() * cols.size() * size;
    }
    for (auto& [place, rectangles] : more_) {
      rectangles.push_back(*first_[place]);
      bytes[place / kAllWeightKinds.size()] += union_area(rectangles) * size;
    }
    return bytes;
  }

 private:
  const ModelSpec& model_;
  std::vector<std::optional<std::pair<Interval, Interval>>> first_;  // By device, then kind.
  std::map<std::size_t, Rectangles> more_;
};

// Bytes that the weight-carrying nodes of one layer need on each device.
std::vector<std::int64_t> layer_weight_bytes(const Plan& plan,
                                             const std::vector<const Node*>& nodes) {
  using enum WeightKind;
  const ModelSpec& model = plan.model;
  HeldWeights held(plan);
  std::vector<WeightSlice> slices;
  Rectangles added;
  for (const Node* node : nodes) {
    for (std::size_t output = 0; output < node->outputs.size(); ++output) {
      const TensorShape shape = shape_of(plan, plan.at(node->outputs[output]));
      for (const Piece& piece : plan.layout_of(node->outputs[output]).pieces) {
        slices.clear();
        append_slices(plan, *node, {output, shape, piece}, slices);
        for (const WeightSlice& slice : slices) {
          if (slice.elements() == 0) continue;
          const WeightKind kind =
              slice.kind == lm_head && model.tied_embeddings ? embedding : slice.kind;
          const bool rows_have_heads = kind == q_proj || kind == k_proj || kind == v_proj;
          const bool cols_have_heads =
              kind == o_proj || kind == q_bias || kind == k_bias || kind == v_bias;
          const WeightShape whole = shape_of(model, kind);
          added.clear();
          append_rectangles(slice, rows_have_heads ? model.head_dim : whole.rows,
                            cols_have_heads ? model.head_dim : whole.cols, added);
          held.add(piece.device, kind, added);
        }
      }
    }
  }
  return held.bytes();
}

bool has_weights(const ModelSpec& model, OpKind kind) {
  if (kind == OpKind::rope) return model.qk_norm;
  const bool is_norm =
      kind == OpKind::attn_norm || kind == OpKind::ffn_norm || kind == OpKind::final_norm;
  return is_norm || kind == OpKind::embed || class_of(kind) == OpClass::linear;
}

// Embedding and lm_head may share bytes, so what lies outside the layers counts as one layer.
std::int32_t weight_layer(const Node& node) {
  const bool outside =
      node.kind == OpKind::embed || node.kind == OpKind::final_norm || node.kind == OpKind::lm_head;
  return outside ? -1 : node.layer;
}

}  // namespace

std::vector<std::int64_t> weight_bytes_by_device(const Plan& plan,
                                                 std::span<const std::int64_t> layer_repeats) {
  // Layers whose nodes have the same layouts hold the same bytes, so each distinct layer is looked
  // at once.
  using Signature = std::vector<std::pair<OpKind, LayoutId>>;
  const auto num_layers = static_cast<std::size_t>(plan.model.num_layers);
  std::vector<std::vector<const Node*>> layers(1 + num_layers);  // From -1 on.
  for (const Node& node : plan.nodes) {
    if (has_weights(plan.model, node.kind))
      layers[static_cast<std::size_t>(std::int64_t{weight_layer(node)} + 1)].push_back(&node);
  }
  std::map<Signature, std::vector<std::int64_t>> known;
  std::vector<std::int64_t> bytes(plan.devices.size(), 0);
  Signature signature;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::vector<const Node*>& nodes = layers[i];
    signature.clear();
    for (const Node* node : nodes) {
      for (const ValueId output : node->outputs)
        signature.emplace_back(node->kind, plan.at(output).layout);
    }
    const auto [place, added] = known.try_emplace(signature);
    if (added) place->second = layer_weight_bytes(plan, nodes);
    const bool repeated = i > 0 && !layer_repeats.empty();
    const std::int64_t count = repeated ? layer_repeats[i - 1] : 1;
    for (std::size_t device = 0; device < bytes.size(); ++device)
      bytes[device] += count * place->second[device];
  }
  return bytes;
}

}  // namespace weir
