#include "layout/box.h"

#include <fmt/format.h>

namespace weir {
namespace {

bool is_start(Bound b) { return b.index <= 0 && b.offset <= 0; }
bool is_end(Bound b) { return b.index >= b.parts && b.offset >= 0; }

// Holds for every extent: both have the same step, so their difference does not depend on it.
bool at_most(Bound a, Bound b) {
  if (a == b || is_start(a) || is_end(b)) return true;
  const bool same_step = a.parts == b.parts || a.index == 0 || b.index == 0;
  return same_step && a.index <= b.index && a.offset <= b.offset;
}

}  // namespace

std::optional<std::weak_ordering> compare_for_every_extent(Bound a, Bound b) {
  const bool below = at_most(a, b);
  const bool above = at_most(b, a);
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
