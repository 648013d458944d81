#pragma once
// Where in a logical tensor something lies. Every logical tensor of a step has the same four axes:
//
//   request: which sequence of the batch        token: new tokens of that request (q_len), or
//   positions (kv_len) head:    attention heads, or 1              dim:   head_dim, hidden,
//   intermediate, vocabulary, or key positions
//
// A Box is a range per axis. Lengths of requests are not known when a plan is written, so a bound
// may be a fraction of the axis' extent; it becomes a number when the plan is read for a step with
// given lengths. A box over several requests is ragged: its token range is taken of each request's
// own length.

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>

namespace weir {

enum class Axis : std::uint8_t { request, token, head, dim };
inline constexpr std::array kAllAxes = {Axis::request, Axis::token, Axis::head, Axis::dim};

// A point on an axis of extent E:  clamp(offset + index * ceil(E / parts), 0, E).
struct Bound {
  std::int32_t offset = 0;
  std::int32_t index = 0;
  std::int32_t parts = 1;

  constexpr bool operator==(const Bound&) const = default;

  // The constant c (never beyond the extent).
  [[nodiscard]] static constexpr Bound at(std::int64_t c) {
    return {.offset = static_cast<std::int32_t>(c)};
  }
  // The end of the axis, and `back` before it.
  [[nodiscard]] static constexpr Bound end() { return {.index = 1}; }
  [[nodiscard]] static constexpr Bound before_end(std::int32_t back) {
    return {.offset = -back, .index = 1};
  }
  // The start of block i of `parts` blocks of ceil(E / parts); i = parts gives the end.
  [[nodiscard]] static constexpr Bound block(std::int64_t i, std::int64_t parts) {
    if (i == 0) return {};
    if (i >= parts) return end();
    return {.index = static_cast<std::int32_t>(i), .parts = static_cast<std::int32_t>(parts)};
  }

  [[nodiscard]] constexpr std::int64_t value(std::int64_t extent) const {
    std::int64_t v = offset;
    if (index != 0) v += index * (parts == 1 ? extent : (extent + parts - 1) / parts);
    return v < 0 ? 0 : (v > extent ? extent : v);
  }
  [[nodiscard]] constexpr bool is_constant() const { return index == 0; }
};

// Whether a is at or before b for every extent: both have the same step then, so that their
// difference does not depend on it, or one is the start or the end of the axis.
[[nodiscard]] constexpr bool at_most_for_every_extent(Bound a, Bound b) {
  const bool a_is_start = a.index <= 0 && a.offset <= 0;
  const bool b_is_end = b.index >= b.parts && b.offset >= 0;
  if (a == b || a_is_start || b_is_end) return true;
  const bool same_step = a.parts == b.parts || a.index == 0 || b.index == 0;
  return same_step && a.index <= b.index && a.offset <= b.offset;
}

// The order of two bounds that holds for every extent, or nullopt where it depends on the extent.
[[nodiscard]] std::optional<std::weak_ordering> compare_for_every_extent(Bound a, Bound b);

struct Range {
  Bound begin;
  Bound end;

  constexpr bool operator==(const Range&) const = default;
  [[nodiscard]] static constexpr Range all() { return {.begin = {}, .end = Bound::end()}; }
  [[nodiscard]] static constexpr Range of(std::int64_t begin, std::int64_t end) {
    return {.begin = Bound::at(begin), .end = Bound::at(end)};
  }
  [[nodiscard]] static constexpr Range block(std::int64_t i, std::int64_t parts) {
    return {.begin = Bound::block(i, parts), .end = Bound::block(i + 1, parts)};
  }
};

struct Box {
  Range request = Range::all();
  Range token = Range::all();
  Range head = Range::all();
  Range dim = Range::all();

  constexpr bool operator==(const Box&) const = default;
  [[nodiscard]] constexpr const Range& operator[](Axis axis) const {
    switch (axis) {
      case Axis::request:
        return request;
      case Axis::token:
        return token;
      case Axis::head:
        return head;
      case Axis::dim:
        break;
    }
    return dim;
  }
};

// A range of plain numbers, half open; what a Range becomes once lengths are known.
struct Interval {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  constexpr bool operator==(const Interval&) const = default;
  [[nodiscard]] constexpr std::int64_t size() const { return end > begin ? end - begin : 0; }
  [[nodiscard]] constexpr bool empty() const { return end <= begin; }
  [[nodiscard]] constexpr bool contains(Interval other) const {
    return other.empty() || (begin <= other.begin && other.end <= end);
  }
};
[[nodiscard]] constexpr Interval intersect(Interval a, Interval b) {
  return {.begin = a.begin > b.begin ? a.begin : b.begin, .end = a.end < b.end ? a.end : b.end};
}
[[nodiscard]] constexpr Interval resolve(const Range& range, std::int64_t extent) {
  return {.begin = range.begin.value(extent), .end = range.end.value(extent)};
}

// "[0, end)", "[4096, end)", "[3/8, 4/8)": as plans print it. A constant is itself, a block is
// index/parts.
[[nodiscard]] std::string to_string(Bound bound);
[[nodiscard]] std::string to_string(const Range& range);
// Only the axes that are cut: "token [1/8, 2/8) head [0, 4)"; "all" where none is.
[[nodiscard]] std::string to_string(const Box& box);
[[nodiscard]] const char* to_string(Axis axis);

}  // namespace weir
