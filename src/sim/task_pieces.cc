#include "sim/task_pieces.h"

#include <algorithm>
#include <cstddef>

#include "plan/locality.h"

namespace weir {

void TaskPieces::begin(const Node& node) {
  shapes_.clear();
  entries_.clear();
  for (const ValueId output : node.outputs) shapes_.push_back(shape_of(plan_, plan_.at(output)));
  for (std::size_t o = 0; o < shapes_.size(); ++o) {
    for (const Piece& piece : plan_.layout_of(node.outputs[o]).pieces)
      entries_.push_back({.piece = &piece, .shape = &shapes_[o], .sizes = {}});
  }
  const auto device_of = [](const Entry& entry) { return entry.piece->device; };
  if (!std::ranges::is_sorted(entries_, {}, device_of))
    std::ranges::stable_sort(entries_, {}, device_of);
  rest_ = entries_;
  last_ = {};
}

bool TaskPieces::next_is_alike(DeviceId device) {
  const auto end = std::ranges::find_if_not(
      rest_, [&](const Entry& entry) { return entry.piece->device == device; });
  const std::span<Entry> pieces(rest_.begin(), end);
  rest_ = {end, rest_.end()};
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = *pieces[i].piece;
    const bool replica = i < last_.size() && last_[i].shape == pieces[i].shape &&
                         last_[i].piece->box == piece.box && last_[i].piece->over == piece.over;
    pieces[i].sizes = replica ? last_[i].sizes : sizes_of(piece, *pieces[i].shape);
  }
  const bool alike = !pieces.empty() && std::ranges::equal(pieces, last_, are_alike);
  last_ = pieces;
  return alike;
}

TaskPieces::Sizes TaskPieces::sizes_of(const Piece& piece, const TensorShape& shape) const {
  const Interval heads = resolve(piece.box.head, shape.heads);
  const Interval over_heads = resolve(piece.over.head, shape.over_heads);
  const Interval over_dims = resolve(piece.over.dim, shape.over_dims);
  return {.heads = heads.size(),
          .kv_heads = kv_heads_of(plan_.model, heads).size(),
          .dims = shape.dim_is_positions ? 0 : resolve(piece.box.dim, shape.dims).size(),
          .over_heads = over_heads.size(),
          .over_dims = over_dims.size(),
          .is_first = over_heads.begin == 0 && over_dims.begin == 0};
}

bool TaskPieces::are_alike(const Entry& a, const Entry& b) {
  const Box& x = a.piece->box;
  const Box& y = b.piece->box;
  return a.shape == b.shape && a.sizes == b.sizes && x.request == y.request && x.token == y.token &&
         a.piece->over.token == b.piece->over.token &&
         (!a.shape->dim_is_positions || x.dim == y.dim);
}

}  // namespace weir
