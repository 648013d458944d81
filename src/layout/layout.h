#pragma once
// Who holds a logical tensor, and in what form. The vocabulary in which every strategy is written.
//
// A layout is a list of pieces. A piece says: this device holds this box. What the boxes hold is
// the layout's kind:
//
//   whole    values. The pieces cover the tensor; where they overlap, the overlapping values are
//   replicas. sum      partial sums, to be added. A piece also says which part `over` of the
//   contracted tensor it has summed up. softmax  partial attention: outputs, each with the
//   log-sum-exp of its scores, to be merged by it. `over` is the range
//            of key positions (on the token axis) that the piece has attended to.
//
// The pieces of a partial tensor tile box x over exactly: every term is counted once. Pieces of one
// device with equal boxes are one buffer; in a partial layout its contribution is that of all its
// `over` parts together. Pieces whose boxes turn out empty for given lengths hold nothing and do no
// harm.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "layout/box.h"

namespace weir {

enum class LayoutKind : std::uint8_t { whole, sum, softmax };

struct Piece {
  DeviceId device{};
  Box box;
  Box over;  // Partial layouts only.

  constexpr bool operator==(const Piece&) const = default;
};

struct Layout {
  LayoutKind kind = LayoutKind::whole;
  std::vector<Piece> pieces;

  bool operator==(const Layout&) const = default;
};

[[nodiscard]] const char* to_string(LayoutKind kind);
[[nodiscard]] std::size_t hash_of(const Layout& layout);

// The devices that hold a piece, ascending, each once.
[[nodiscard]] std::vector<DeviceId> devices_of(const Layout& layout);
// One buffer of a layout: a distinct box on a device.
struct Buffer {
  DeviceId device{};
  Box box;
  bool operator==(const Buffer&) const = default;
};
// In the order of the pieces that first name them.
[[nodiscard]] std::vector<Buffer> buffers_of(const Layout& layout);

// Every device of the group holds all of `box`.
[[nodiscard]] Layout replicated(std::span<const DeviceId> group, const Box& box = {});
// The part of `count` things that rank i of n takes: contiguous, sizes differing by at most one,
// larger parts first.
[[nodiscard]] Interval even_part(std::int64_t count, std::int64_t i, std::int64_t n);

// What a layout is checked against: the part of the tensor that must be held, and, for partial
// layouts, the part of the contracted tensor whose terms must all be counted. `request` ranges are
// constants.
struct LayoutDomain {
  Box box;
  Box over;
  bool gaps_allowed = false;  // The layout is a part of the tensor, which others complete.
};

// Every way in which the pieces fail to tile the domain: a gap, an overlap (of terms), a piece
// outside, bounds whose order depends on the lengths. Empty: the layout is sound for all lengths.
// Cost: n log n in distinct boxes for grids; boxes in utter disorder are given up with a problem
// that says so.
[[nodiscard]] std::vector<std::string> problems_of(const Layout& layout,
                                                   const LayoutDomain& domain);

}  // namespace weir
