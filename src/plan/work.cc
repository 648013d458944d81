#include "plan/work.h"

#include <algorithm>

#include "plan/equal_lengths.h"
#include "plan/locality.h"
#include "plan/placement.h"

namespace weir {
namespace {

// Sum of clamp(p + 1 - low, 0, width) for p in [begin, end): pairs whose key lies in [low, low +
// width) at or before p.
std::int64_t pairs_at_or_before(Interval positions, std::int64_t low, std::int64_t width) {
  const auto triangle = [&](std::int64_t p) {  // Sum over positions below p.
    const std::int64_t ramp = std::clamp<std::int64_t>(p - low, 0, width);
    const std::int64_t full = std::max<std::int64_t>(0, p - low - width);
    return ramp * (ramp + 1) / 2 + full * width;
  };
  return triangle(positions.end) - triangle(positions.begin);
}

class WorkCount {
 public:
  WorkCount(const Plan& plan, const Node& node, DeviceId device, const StepLengths& lengths)
      : plan_(plan), node_(node), device_(device), lengths_(lengths) {}

  Work run() {
    if (queue_of(node_.kind) == Queue::comm) return {};
    for (std::size_t output = 0; output < node_.outputs.size(); ++output) {
      const Value& value = plan_.at(node_.outputs[output]);
      const Layout& layout = plan_.layout_of(node_.outputs[output]);
      const TensorShape shape = shape_of(plan_, value);
      for (const Piece& piece : layout.pieces) {
        if (piece.device == device_) count(output, value, layout, shape, piece);
      }
    }
    return work_;
  }

 private:
  struct Extent {
    std::int64_t rows = 0;
    std::int64_t elements = 0;
  };

  [[nodiscard]] Extent extent_of(const Box& box, const TensorShape& shape) const {
    Extent extent;
    each_of_equal_lengths(
        requests_of(box, plan_.batch_size()), lengths_,
        [&](std::int64_t request, std::int64_t count, const RequestLengths& lengths) {
          const ResolvedBox part = resolve(box, shape, request, lengths);
          extent.rows += count * part.token.size();
          extent.elements += count * part.elements();
        });
    return extent;
  }

  void count(std::size_t output, const Value& value, const Layout& layout, const TensorShape& shape,
             const Piece& piece) {
    const std::int64_t size = size_in_bytes(plan_.activation_dtype);
    const std::int64_t hidden = plan_.model.hidden_size;
    using enum OpKind;
    if (node_.kind == kv_append) return count_append(output, piece);
    if (node_.kind == score_slice || node_.kind == attend_scores) {
      count_scores(layout, shape, piece);
      return;
    }
    if (node_.kind == attention) {
      count_tile(value, layout, shape, piece);
      return;
    }
    const Extent out = extent_of(piece.box, shape);
    work_.written_bytes += out.elements * size;
    if (out.rows == 0) return;  // Who has no tokens reads no weights.
    for (const WeightSlice& slice : weight_slices(plan_, node_, output, piece)) {
      const bool gathered = node_.kind == embed;  // Reads one row per token, not the table.
      work_.weight_bytes +=
          (gathered ? out.elements : slice.elements()) * size_in_bytes(plan_.model.weight_dtype);
      if (class_of(node_.kind) == OpClass::linear && slice.rows() > 1)
        work_.flops += 2 * out.rows * slice.elements();
      if (class_of(node_.kind) == OpClass::linear && slice.rows() == 1) work_.flops += out.elements;
    }
    switch (node_.kind) {
      case qkv_proj:
      case ffn_up:
        // Outputs that share an input read it once.
        if (output == input_of_rows(node_, output)) work_.read_bytes += out.rows * hidden * size;
        break;
      case lm_head:
        work_.read_bytes += out.rows * hidden * size;
        break;
      case o_proj:
      case ffn_down:
        work_.read_bytes += out.rows * contracted_width(layout, shape, piece) * size;
        break;
      case attn_norm:
      case ffn_norm:
      case final_norm:
        work_.flops += 4 * out.elements;
        work_.read_bytes += out.elements * size;
        break;
      case rope:
        work_.flops += 3 * out.elements + (plan_.model.qk_norm ? 4 * out.elements : 0);
        work_.read_bytes += out.elements * size;
        break;
      case add:
        work_.flops += out.elements;
        work_.read_bytes += 2 * out.elements * size;
        break;
      case activation:
        work_.flops += (plan_.model.gated_ffn ? 5 : 4) * out.elements;
        work_.read_bytes += (plan_.model.gated_ffn ? 2 : 1) * out.elements * size;
        break;
      case slice:
        work_.read_bytes += out.elements * size;
        break;
      case merge:
        work_.flops += 3 * out.elements;
        work_.read_bytes += 2 * out.elements * size;
        break;
      case embed:
      case kv_append:
      case attention:
      case score_slice:
      case attend_scores:
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

  static std::int64_t contracted_width(const Layout& layout, const TensorShape& shape,
                                       const Piece& piece) {
    if (layout.kind == LayoutKind::whole) return shape.over_heads * shape.over_dims;
    return resolve(piece.over.head, shape.over_heads).size() *
           resolve(piece.over.dim, shape.over_dims).size();
  }

  void count_append(std::size_t output, const Piece& piece) {
    const TensorShape shape = shape_of(plan_, plan_.at(node_.inputs[output]));
    const std::int64_t elements = extent_of(piece.box, shape).elements;  // Of the new tokens.
    work_.read_bytes += elements * size_in_bytes(plan_.activation_dtype);
    work_.kv_bytes += elements * size_in_bytes(plan_.kv_dtype);
  }

  // One half of a tile each: products of q and a slice of K, or of complete scores and V.
  void count_scores(const Layout& layout, const TensorShape& shape, const Piece& piece) {
    const ModelSpec& model = plan_.model;
    const std::int64_t size = size_in_bytes(plan_.activation_dtype);
    const bool products = node_.kind == OpKind::score_slice;
    const auto count = [&](std::int64_t request, std::int64_t alike,
                           const RequestLengths& lengths) {
      const ResolvedBox tile = resolve(piece.box, shape, request, lengths);
      Interval keys = {.begin = 0, .end = lengths.kv_len};
      if (products) {
        keys = tile.dim;
      } else if (layout.kind == LayoutKind::softmax) {
        keys = resolve(piece.over.token, lengths.kv_len);
      }
      const std::int64_t dims = products && layout.kind == LayoutKind::sum
                                    ? resolve(piece.over.dim, model.head_dim).size()
                                : products ? model.head_dim
                                           : tile.dim.size();
      const std::int64_t rows = alike * tile.token.size() * tile.head.size();
      const std::int64_t past = lengths.kv_len - lengths.q_len;
      const std::int64_t pairs =
          alike * visible_pairs(tile.token, past, keys, model.sliding_window);
      work_.flops += 2 * pairs * tile.head.size() * dims;
      work_.kv_bytes += alike * seen_keys(tile.token, past, keys) *
                        kv_heads_of(model, tile.head).size() * dims * size_in_bytes(plan_.kv_dtype);
      work_.read_bytes += rows * (products ? dims : keys.size()) * size;
      work_.written_bytes += rows * (products ? keys.size() : dims) * size;
    };
    each_of_equal_lengths(requests_of(piece.box, plan_.batch_size()), lengths_, count);
  }

  void count_tile(const Value& value, const Layout& layout, const TensorShape& shape,
                  const Piece& piece) {
    const ModelSpec& model = plan_.model;
    const std::int64_t size = size_in_bytes(value.dtype);
    const bool partial = layout.kind == LayoutKind::softmax;
    const auto count = [&](std::int64_t request, std::int64_t alike,
                           const RequestLengths& lengths) {
      const ResolvedBox tile = resolve(piece.box, shape, request, lengths);
      const Interval keys = partial ? resolve(piece.over.token, lengths.kv_len)
                                    : Interval{.begin = 0, .end = lengths.kv_len};
      const std::int64_t past = lengths.kv_len - lengths.q_len;
      const std::int64_t pairs =
          alike * visible_pairs(tile.token, past, keys, model.sliding_window);
      const std::int64_t rows = alike * tile.token.size() * tile.head.size();
      // q.k and p.v are each 2 FLOPs per dimension; the softmax's few are left out, as is
      // customary.
      work_.flops += 2 * pairs * tile.head.size() * (model.head_dim + tile.dim.size());
      work_.read_bytes += rows * model.head_dim * size;
      work_.written_bytes += rows * tile.dim.size() * size + (partial ? rows * 4 : 0);
      work_.kv_bytes += alike * seen_keys(tile.token, past, keys) *
                        kv_heads_of(model, tile.head).size() * (model.head_dim + tile.dim.size()) *
                        size_in_bytes(plan_.kv_dtype);
    };
    each_of_equal_lengths(requests_of(piece.box, plan_.batch_size()), lengths_, count);
  }

  // Keys that at least one query of the tile sees.
  [[nodiscard]] std::int64_t seen_keys(Interval queries, std::int64_t past, Interval keys) const {
    if (queries.empty()) return 0;
    Interval seen = {.begin = 0, .end = past + queries.end};
    if (plan_.model.sliding_window)
      seen.begin =
          std::max<std::int64_t>(0, past + queries.begin + 1 - *plan_.model.sliding_window);
    return intersect(seen, keys).size();
  }

  const Plan& plan_;
  const Node& node_;
  DeviceId device_;
  const StepLengths& lengths_;
  Work work_;
};

}  // namespace

std::int64_t visible_pairs(Interval queries, std::int64_t past, Interval keys,
                           std::optional<std::int64_t> window) {
  if (queries.empty() || keys.empty()) return 0;
  const Interval positions = {.begin = past + queries.begin, .end = past + queries.end};
  const std::int64_t seen = pairs_at_or_before(positions, keys.begin, keys.size());
  if (!window) return seen;
  // Keys at or before p - window are out of the window: the same count, `window` positions earlier.
  const Interval earlier = {.begin = positions.begin - *window, .end = positions.end - *window};
  return seen - pairs_at_or_before(earlier, keys.begin, keys.size());
}

Work work_of(const Plan& plan, const Node& node, DeviceId device, const StepLengths& lengths) {
  return WorkCount(plan, node, device, lengths).run();
}

}  // namespace weir
