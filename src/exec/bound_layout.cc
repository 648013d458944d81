#include "exec/bound_layout.h"

#include <algorithm>

#include "base/check.h"

namespace weir {

std::int64_t BoundBuffer::row_of(std::int64_t request, std::int64_t token_index) const {
  const auto span = std::ranges::lower_bound(spans, request, {}, &RowSpan::request);
  CHECK(span != spans.end() && span->request == request,
        "a buffer lacks a request that it should hold");
  return span->first_row + token_index - span->token.begin;
}

BoundLayout bind(const Plan& plan, const Value& value, const StepLengths& lengths) {
  const Layout& layout = plan.layouts[index_of(value.layout)];
  const TensorShape shape = shape_of(plan, value);
  BoundLayout bound;
  bound.kind = layout.kind;
  bound.by_device.resize(plan.devices.size());
  for (const Buffer& buffer : buffers_of(layout)) {
    BoundBuffer& result = bound.buffers.emplace_back();
    result.device = buffer.device;
    result.box = buffer.box;
    result.head = resolve(buffer.box.head, shape.heads);
    if (!shape.dim_is_positions) result.dim = resolve(buffer.box.dim, shape.dims);
    if (layout.kind == LayoutKind::softmax) {
      for (const Piece& piece : layout.pieces) {
        if (piece.device == buffer.device && piece.box == buffer.box)
          result.key_ranges.push_back(piece.over.token);
      }
    }
    bound.by_device[index_of(buffer.device)].push_back(
        static_cast<std::uint32_t>(bound.buffers.size() - 1));
  }
  rebind(plan, value, lengths, bound);
  return bound;
}

void rebind(const Plan& plan, const Value& value, const StepLengths& lengths, BoundLayout& bound) {
  const TensorShape shape = shape_of(plan, value);
  for (BoundBuffer& buffer : bound.buffers) {
    buffer.spans.clear();
    buffer.rows = 0;
    buffer.elements = 0;
    const Interval requests = requests_of(buffer.box, plan.batch_size());
    for (std::int64_t request = requests.begin; request < requests.end; ++request) {
      const ResolvedBox part =
          resolve(buffer.box, shape, request, lengths[static_cast<std::size_t>(request)]);
      if (part.token.empty()) continue;
      buffer.spans.push_back({.request = request,
                              .token = part.token,
                              .first_row = buffer.rows,
                              .first_element = buffer.elements,
                              .dim = part.dim});
      buffer.rows += part.token.size();
      buffer.elements += part.elements();
    }
  }
}

}  // namespace weir
