#pragma once
// From one layout of a tensor to another: which movement that is. Regular movements get the names
// that MPI and NCCL know, so that a library's collective can do them; everything else is a `copy`
// of box intersections, point to point.

#include <cstdint>
#include <vector>

#include "layout/layout.h"

namespace weir {

enum class Redistribution : std::uint8_t {
  none,   // The layouts are equal.
  slice,  // Every device already holds what it needs in one buffer, whole.
  all_reduce,
  reduce_scatter,
  reduce,
  all_gather,
  all_to_all,
  broadcast,
  gather,
  copy,
};

// A regular movement may be several independent collectives of the same kind side by side (one per
// group of devices with the same part of the tensor). All devices of a group take part; the groups
// are disjoint. For broadcast `root` sends, for gather and reduce it receives; otherwise it is the
// first member.
struct CollectiveGroup {
  std::vector<DeviceId> members;  // Ascending.
  DeviceId root{};
  Box box;  // The tensor part that the group holds together.

  bool operator==(const CollectiveGroup&) const = default;
};

struct RedistributionPlan {
  Redistribution kind = Redistribution::none;
  std::vector<CollectiveGroup> groups;  // Empty for none, slice and copy.
};

// `to` is whole, or equal to `from`, or (as a `copy`) partial over the same terms.
[[nodiscard]] RedistributionPlan classify(const Layout& from, const Layout& to);

}  // namespace weir
