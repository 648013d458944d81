#include "plan/shape_text.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace weir {
namespace {

// More distinct shapes than this say nothing more to a reader.
constexpr std::size_t kMostShapes = 3;

std::string shape_of_box(const Plan& plan, const TensorShape& shape, const Box& box) {
  std::vector<std::string> axes;
  const std::string tokens = length_text(box.token, shape.counts_positions ? "kv_len" : "q_len");
  const std::int64_t requests = requests_of(box, plan.batch_size()).size();
  axes.push_back(requests == 1 ? tokens : fmt::format("{} x {}", requests, tokens));
  if (shape.heads > 1) axes.push_back(fmt::format("{}", resolve(box.head, shape.heads).size()));
  axes.push_back(fmt::format("{}", resolve(box.dim, shape.dims).size()));
  return fmt::format("[{}]", fmt::join(axes, ", "));
}

}  // namespace

std::string length_text(const Range& range, std::string_view symbol) {
  const Bound begin = range.begin;
  const Bound end = range.end;
  if (begin.is_constant() && end.is_constant())
    return fmt::format("{}", std::max<std::int64_t>(0, std::int64_t{end.offset} - begin.offset));
  if (range == Range::all()) return std::string(symbol);
  if (end == Bound::end() && begin.is_constant())
    return fmt::format("{} - {}", symbol, begin.offset);
  if (end == Bound::end() && begin.parts == 1 && begin.index == 1 && begin.offset < 0)
    return fmt::format("{}", -std::int64_t{begin.offset});
  // Blocks of one cut; the last one ends at the end.
  const std::int32_t parts = std::max(begin.parts, end.parts);
  const auto block_of = [parts](Bound bound) -> std::optional<std::int32_t> {
    if (bound.offset != 0) return std::nullopt;
    if (bound == Bound::end()) return parts;
    if (bound.index == 0) return 0;
    return bound.parts == parts ? std::optional(bound.index) : std::nullopt;
  };
  const auto first = block_of(begin);
  const auto last = block_of(end);
  if (!first || !last || *last <= *first) return to_string(range);
  const std::int32_t blocks = *last - *first;
  return blocks == 1 ? fmt::format("{}/{}", symbol, parts)
                     : fmt::format("{}/{} {}", blocks, parts, symbol);
}

std::string shape_text(const Plan& plan, const Value& value, std::optional<DeviceId> device) {
  const TensorShape shape = shape_of(plan, value);
  std::vector<std::string> distinct;
  for (const Piece& piece : plan.layouts[index_of(value.layout)].pieces) {
    if (device && piece.device != *device) continue;
    std::string text = shape_of_box(plan, shape, piece.box);
    if (std::ranges::find(distinct, text) == distinct.end()) distinct.push_back(std::move(text));
    if (distinct.size() > kMostShapes) break;
  }
  if (distinct.size() > kMostShapes) distinct.back() = "...";
  return fmt::format("{}", fmt::join(distinct, " | "));
}

}  // namespace weir
