#include "layout/box.h"

#include <fmt/format.h>

namespace weir {

std::optional<std::weak_ordering> compare_for_every_extent(Bound a, Bound b) {
  const bool below = at_most_for_every_extent(a, b);
  const bool above = at_most_for_every_extent(b, a);
  if (below && above) return std::weak_ordering::equivalent;
  if (below) return std::weak_ordering::less;
  if (above) return std::weak_ordering::greater;
  return std::nullopt;
}

std::string to_string(Bound bound) {
  if (bound.index == 0) return fmt::format("{}", bound.offset);
  std::string text =
      bound.index == bound.parts ? "end" : fmt::format("{}/{}", bound.index, bound.parts);
  if (bound.offset != 0) text += fmt::format("{:+}", bound.offset);
  return text;
}

std::string to_string(const Range& range) {
  return fmt::format("[{}, {})", to_string(range.begin), to_string(range.end));
}

const char* to_string(Axis axis) {
  switch (axis) {
    case Axis::request:
      return "request";
    case Axis::token:
      return "token";
    case Axis::head:
      return "head";
    case Axis::dim:
      break;
  }
  return "dim";
}

std::string to_string(const Box& box) {
  std::string text;
  for (const Axis axis : kAllAxes) {
    if (box[axis] == Range::all()) continue;
    if (!text.empty()) text += ' ';
    text += fmt::format("{} {}", to_string(axis), to_string(box[axis]));
  }
  return text.empty() ? "all" : text;
}

}  // namespace weir
