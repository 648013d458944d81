#include "layout/redistribute.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace weir {
namespace {

bool contains(const Range& outer, const Range& inner) {
  return at_most_for_every_extent(outer.begin, inner.begin) &&
         at_most_for_every_extent(inner.end, outer.end);
}

bool contains(const Box& outer, const Box& inner) {
  return std::ranges::all_of(kAllAxes,
                             [&](Axis axis) { return contains(outer[axis], inner[axis]); });
}

Box with_range(Box box, Axis axis, const Range& range) {
  switch (axis) {
    case Axis::request:
      box.request = range;
      break;
    case Axis::token:
      box.token = range;
      break;
    case Axis::head:
      box.head = range;
      break;
    case Axis::dim:
      box.dim = range;
      break;
  }
  return box;
}

// Pieces that share a box, with the devices that hold it.
struct Holding {
  Box box;
  std::span<const DeviceId> devices;  // Ascending, distinct.
};

// What a layout gives its devices, box by box.
class Holdings {
 public:
  explicit Holdings(const Layout& layout) {
    std::vector<std::pair<std::size_t, DeviceId>> entries;  // Place in the list, device.
    entries.reserve(layout.pieces.size());
    list_.reserve(layout.pieces.size());
    for (const Piece& piece : layout.pieces) {
      const auto place = std::ranges::find(list_, piece.box, &Holding::box);
      entries.emplace_back(static_cast<std::size_t>(place - list_.begin()), piece.device);
      if (place == list_.end()) list_.push_back({.box = piece.box, .devices = {}});
    }
    std::ranges::sort(entries);
    entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
    devices_.reserve(entries.size());
    for (const auto& [place, device] : entries) {
      devices_.push_back(device);
      std::span<const DeviceId>& devices = list_[place].devices;
      devices = {&devices_.back() - devices.size(), devices.size() + 1};
    }
  }
  Holdings(const Holdings&) = delete;  // Of whose devices the list speaks.
  Holdings& operator=(const Holdings&) = delete;
  ~Holdings() = default;

  [[nodiscard]] const std::vector<Holding>& list() const { return list_; }

  // Every device appears in one holding only.
  [[nodiscard]] bool are_disjoint() const {
    if (list_.size() == 1) return true;
    std::vector<DeviceId> seen = devices_;
    std::ranges::sort(seen);
    return std::ranges::adjacent_find(seen) == seen.end();
  }

  // No two share a part of the tensor: a collective then moves each part once, and the partials of
  // a box are all of its terms.
  [[nodiscard]] bool are_apart() const;

 private:
  std::vector<DeviceId> devices_;  // Holding by holding.
  std::vector<Holding> list_;
};

bool is_slice(const Layout& from, const Layout& to) {
  if (from.kind != LayoutKind::whole || to.kind != LayoutKind::whole) return false;
  return std::ranges::all_of(to.pieces, [&](const Piece& wanted) {
    return std::ranges::any_of(from.pieces, [&](const Piece& held) {
      return held.device == wanted.device && contains(held.box, wanted.box);
    });
  });
}

// The boxes share nothing, for any extent.
bool apart(const Box& a, const Box& b) {
  const auto ends_before = [](const Range& first, const Range& second) {
    return at_most_for_every_extent(first.end, second.begin);
  };
  return std::ranges::any_of(kAllAxes, [&](Axis axis) {
    return ends_before(a[axis], b[axis]) || ends_before(b[axis], a[axis]);
  });
}

bool Holdings::are_apart() const {
  for (std::size_t i = 0; i < list_.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (!apart(list_[i].box, list_[j].box)) return false;
    }
  }
  return true;
}

// The holdings of `parts` that lie inside `box`.
std::vector<const Holding*> inside(const std::vector<Holding>& parts, const Box& box) {
  std::vector<const Holding*> found;
  found.reserve(parts.size());
  for (const Holding& part : parts) {
    if (contains(box, part.box)) found.push_back(&part);
  }
  return found;
}

std::vector<DeviceId> single_devices(const std::vector<const Holding*>& parts) {
  std::vector<DeviceId> devices;
  devices.reserve(parts.size());
  for (const Holding* part : parts) {
    if (part->devices.size() != 1) return {};
    devices.push_back(part->devices.front());
  }
  std::ranges::sort(devices);
  return devices;
}

std::vector<DeviceId> members_of(const Holding& holding) {
  return {holding.devices.begin(), holding.devices.end()};
}

using Groups = std::vector<CollectiveGroup>;

// Partials of one box, on the same devices that want it whole.
std::optional<Groups> as_all_reduce(const std::vector<Holding>& from,
                                    const std::vector<Holding>& to) {
  Groups groups;
  for (const Holding& wanted : to) {
    const auto held = std::ranges::find(from, wanted.box, &Holding::box);
    if (held == from.end() || !std::ranges::equal(held->devices, wanted.devices) ||
        wanted.devices.size() < 2)
      return std::nullopt;
    groups.push_back(
        {.members = members_of(wanted), .root = wanted.devices.front(), .box = wanted.box});
  }
  return from.size() == to.size() ? std::optional(std::move(groups)) : std::nullopt;
}

// Partials of one box, each device wanting one part of it whole.
std::optional<Groups> as_reduce_scatter(const std::vector<Holding>& from,
                                        const std::vector<Holding>& to) {
  Groups groups;
  std::size_t used = 0;
  for (const Holding& held : from) {
    const auto parts = inside(to, held.box);
    if (held.devices.size() < 2 || !std::ranges::equal(single_devices(parts), held.devices))
      return std::nullopt;
    used += parts.size();
    groups.push_back({.members = members_of(held), .root = held.devices.front(), .box = held.box});
  }
  return used == to.size() ? std::optional(std::move(groups)) : std::nullopt;
}

std::optional<Groups> as_reduce(const std::vector<Holding>& from, const std::vector<Holding>& to) {
  Groups groups;
  for (const Holding& wanted : to) {
    const auto held = std::ranges::find(from, wanted.box, &Holding::box);
    if (held == from.end() || wanted.devices.size() != 1 || held->devices.size() < 2)
      return std::nullopt;
    const DeviceId root = wanted.devices.front();
    if (!std::ranges::binary_search(held->devices, root)) return std::nullopt;
    groups.push_back({.members = members_of(*held), .root = root, .box = wanted.box});
  }
  return from.size() == to.size() ? std::optional(std::move(groups)) : std::nullopt;
}

// Each device holds one part, all of them want all parts.
std::optional<Groups> as_all_gather(const std::vector<Holding>& from,
                                    const std::vector<Holding>& to) {
  Groups groups;
  std::size_t used = 0;
  for (const Holding& wanted : to) {
    const auto parts = inside(from, wanted.box);
    if (parts.size() < 2 || !std::ranges::equal(single_devices(parts), wanted.devices))
      return std::nullopt;
    used += parts.size();
    groups.push_back(
        {.members = members_of(wanted), .root = wanted.devices.front(), .box = wanted.box});
  }
  return used == from.size() ? std::optional(std::move(groups)) : std::nullopt;
}

std::optional<Groups> as_gather(const std::vector<Holding>& from, const std::vector<Holding>& to) {
  Groups groups;
  std::size_t used = 0;
  for (const Holding& wanted : to) {
    const auto parts = inside(from, wanted.box);
    std::vector<DeviceId> members = single_devices(parts);
    if (parts.size() < 2 || members.empty() || wanted.devices.size() != 1) return std::nullopt;
    const DeviceId root = wanted.devices.front();
    if (!std::ranges::binary_search(members, root)) return std::nullopt;
    used += parts.size();
    groups.push_back({.members = std::move(members), .root = root, .box = wanted.box});
  }
  return used == from.size() ? std::optional(std::move(groups)) : std::nullopt;
}

// One device holds a box that several want.
std::optional<Groups> as_broadcast(const std::vector<Holding>& from,
                                   const std::vector<Holding>& to) {
  Groups groups;
  for (const Holding& wanted : to) {
    const auto held = std::ranges::find(from, wanted.box, &Holding::box);
    if (held == from.end() || held->devices.size() != 1) return std::nullopt;
    CollectiveGroup group = {
        .members = members_of(wanted), .root = held->devices.front(), .box = wanted.box};
    if (!std::ranges::binary_search(group.members, group.root)) {
      group.members.insert(std::ranges::lower_bound(group.members, group.root), group.root);
    }
    if (group.members.size() < 3) return std::nullopt;  // Between two devices it is a plain copy.
    groups.push_back(std::move(group));
  }
  return from.size() == to.size() ? std::optional(std::move(groups)) : std::nullopt;
}

// The one axis along which the parts differ, if there is just one.
std::optional<Axis> cut_axis(const std::vector<const Holding*>& parts) {
  std::optional<Axis> cut;
  for (const Axis axis : kAllAxes) {
    const bool differs = std::ranges::any_of(
        parts, [&](const Holding* part) { return part->box[axis] != parts.front()->box[axis]; });
    if (!differs) continue;
    if (cut) return std::nullopt;
    cut = axis;
  }
  return cut;
}

// Holdings before and after that share parts of the tensor with each other and with no others.
struct Exchange {
  std::vector<const Holding*> from;
  std::vector<const Holding*> to;
};

// Splits a redistribution into independent exchanges, in the order of `from`.
std::vector<Exchange> exchanges_of(const std::vector<Holding>& from,
                                   const std::vector<Holding>& to) {
  std::vector<Exchange> exchanges;
  std::vector<bool> from_taken(from.size(), false);
  std::vector<bool> to_taken(to.size(), false);
  const auto take = [](const std::vector<Holding>& all, std::vector<bool>& taken, const Box& box,
                       std::vector<const Holding*>& found) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (taken[i] || apart(all[i].box, box)) continue;
      taken[i] = true;
      found.push_back(&all[i]);
    }
  };
  for (std::size_t start = 0; start < from.size(); ++start) {
    if (from_taken[start]) continue;
    from_taken[start] = true;
    Exchange exchange = {.from = {&from[start]}, .to = {}};
    std::size_t from_seen = 0;
    std::size_t to_seen = 0;
    while (from_seen < exchange.from.size() || to_seen < exchange.to.size()) {
      if (from_seen < exchange.from.size()) {
        take(to, to_taken, exchange.from[from_seen++]->box, exchange.to);
      } else {
        take(from, from_taken, exchange.to[to_seen++]->box, exchange.from);
      }
    }
    exchanges.push_back(std::move(exchange));
  }
  return exchanges;
}

// One part per device; in each exchange cut along one axis before and along another after.
std::optional<Groups> as_all_to_all(const std::vector<Holding>& from,
                                    const std::vector<Holding>& to) {
  Groups groups;
  std::size_t used = 0;
  for (const Exchange& exchange : exchanges_of(from, to)) {
    const std::vector<DeviceId> members = single_devices(exchange.from);
    if (members.size() < 2 || single_devices(exchange.to) != members) return std::nullopt;
    const auto before = cut_axis(exchange.from);
    const auto after = cut_axis(exchange.to);
    if (!before || !after || *before == *after) return std::nullopt;
    used += exchange.to.size();
    groups.push_back({.members = members,
                      .root = members.front(),
                      .box = with_range(exchange.from.front()->box, *before,
                                        exchange.to.front()->box[*before])});
  }
  return used == to.size() ? std::optional(std::move(groups)) : std::nullopt;
}

}  // namespace

RedistributionPlan classify(const Layout& from, const Layout& to) {
  if (from == to) return {.kind = Redistribution::none, .groups = {}};
  if (is_slice(from, to)) return {.kind = Redistribution::slice, .groups = {}};
  const Holdings held(from);
  const Holdings wanted(to);
  if (to.kind == LayoutKind::whole && held.are_disjoint() && wanted.are_disjoint()) {
    using Recogniser =
        std::optional<Groups> (*)(const std::vector<Holding>&, const std::vector<Holding>&);
    struct Candidate {
      Redistribution kind;
      Recogniser recognise;
    };
    static constexpr Candidate kOfPartials[] = {{Redistribution::all_reduce, as_all_reduce},
                                                {Redistribution::reduce_scatter, as_reduce_scatter},
                                                {Redistribution::reduce, as_reduce}};
    static constexpr Candidate kOfWholes[] = {{Redistribution::all_gather, as_all_gather},
                                              {Redistribution::gather, as_gather},
                                              {Redistribution::broadcast, as_broadcast},
                                              {Redistribution::all_to_all, as_all_to_all}};
    const auto candidates = from.kind == LayoutKind::whole
                                ? std::span<const Candidate>(kOfWholes)
                                : std::span<const Candidate>(kOfPartials);
    for (const Candidate& candidate : candidates) {
      auto groups = candidate.recognise(held.list(), wanted.list());
      if (!groups) continue;
      if (!held.are_apart() || !wanted.are_apart()) break;
      return {.kind = candidate.kind, .groups = *std::move(groups)};
    }
  }
  return {.kind = Redistribution::copy, .groups = {}};
}

}  // namespace weir
