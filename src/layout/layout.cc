#include "layout/layout.h"

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include <fmt/format.h>

namespace weir {
namespace {

constexpr std::size_t kAxesOfBox = kAllAxes.size();
// A piece of a partial layout lies in the product of its box and its over: eight axes.
constexpr std::size_t kAxesOfTile = 2 * kAxesOfBox;

// Problems of one layout after which looking further helps nobody.
constexpr std::size_t kMostProblems = 8;
// Requests times pieces that are looked at request by request; beyond it the layout is given up.
constexpr std::size_t kMostPiecesByRequest = std::size_t{1} << 24;
// Tiles looked at, over all slabs, before a layout is given up. A grid of n pieces takes 8 n at
// most; boxes thrown at random could take n^4.
constexpr std::size_t kMostVisits = std::size_t{1} << 22;

using Tile = std::array<Range, kAxesOfTile>;

// The same tile with each bound replaced by its rank among all bounds on that axis.
struct RankedTile {
  std::array<Interval, kAxesOfTile> ranks;
  bool operator==(const RankedTile&) const = default;
};

bool before(const RankedTile& a, const RankedTile& b) {
  for (std::size_t axis = 0; axis < kAxesOfTile; ++axis) {
    const Interval x = a.ranks[axis];
    const Interval y = b.ranks[axis];
    if (x != y) return x.begin != y.begin ? x.begin < y.begin : x.end < y.end;
  }
  return false;
}

Tile tile_of(const Box& box, const Box& over) {
  return {box.request, box.token, box.head, box.dim, over.request, over.token, over.head, over.dim};
}

std::string axis_name(std::size_t axis) {
  const char* name = to_string(kAllAxes[axis % kAxesOfBox]);
  return axis < kAxesOfBox ? name : fmt::format("over {}", name);
}

// Axis of box, then of over.
const Range& range_of(const Box& box, const Box& over, std::size_t axis) {
  return axis < kAxesOfBox ? box[kAllAxes[axis]] : over[kAllAxes[axis - kAxesOfBox]];
}

bool is_constant(const Range& range) {
  const auto constant = [](Bound b) { return b.is_constant() && b.offset >= 0; };
  return constant(range.begin) && constant(range.end);
}

// Whether non-empty [begin, end) in ascending order leave no gap in `whole`, nothing outside and,
// unless allowed, nothing twice.
bool is_row(std::vector<std::pair<std::int32_t, std::int32_t>> spans, const Range& whole,
            bool overlaps_allowed) {
  std::ranges::sort(spans);
  std::int32_t reached = whole.begin.offset;
  for (const auto& [begin, end] : spans) {
    const bool joins = overlaps_allowed ? begin <= reached : begin == reached;
    if (!joins || begin < whole.begin.offset) return false;
    reached = std::max(reached, end);
  }
  return reached == whole.end.offset;
}

// Whether the layout is sound at first sight: cut along one axis at most, at constant places. Most
// are, and this tells without ranks and regions.
bool is_plain_row(const Layout& layout, const LayoutDomain& domain) {
  const bool partial = layout.kind != LayoutKind::whole;
  const std::size_t num_axes = partial ? kAxesOfTile : kAxesOfBox;
  std::optional<std::size_t> cut;
  for (std::size_t axis = 0; axis < num_axes; ++axis) {
    const Range& whole = range_of(domain.box, domain.over, axis);
    if (compare_for_every_extent(whole.begin, whole.end) != std::optional(std::weak_ordering::less))
      return false;
    const bool spans = std::ranges::all_of(layout.pieces, [&](const Piece& piece) {
      return range_of(piece.box, piece.over, axis) == whole;
    });
    if (spans) continue;
    if (cut || !is_constant(whole)) return false;
    cut = axis;
  }
  if (!cut) return partial ? layout.pieces.size() == 1 : !layout.pieces.empty();
  std::vector<std::pair<std::int32_t, std::int32_t>> spans;
  spans.reserve(layout.pieces.size());
  for (const Piece& piece : layout.pieces) {
    const Range& range = range_of(piece.box, piece.over, *cut);
    if (!is_constant(range)) return false;
    if (range.begin.offset < range.end.offset)
      spans.emplace_back(range.begin.offset, range.end.offset);
  }
  return is_row(std::move(spans), range_of(domain.box, domain.over, *cut), !partial);
}

void keep_distinct(std::vector<Bound>& bounds) {
  const auto key = [](Bound b) { return std::tuple(b.offset, b.index, b.parts); };
  std::ranges::sort(bounds, {}, key);
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
}

// All bounds on one axis, ascending and distinct; nullopt (with a problem) where some two have no
// fixed order.
std::optional<std::vector<Bound>> ordered_bounds(const std::vector<Bound>& bounds, std::size_t axis,
                                                 std::vector<std::string>& problems) {
  std::optional<std::pair<Bound, Bound>> unordered;
  const auto less = [&unordered](Bound a, Bound b) {
    const auto order = compare_for_every_extent(a, b);
    if (!order) unordered.emplace(a, b);
    return order && *order == std::weak_ordering::less;
  };
  // Insertion into a sorted list compares each bound with its neighbours only, which is all that a
  // strict order needs; neighbours without an order are found here because every bound is placed
  // beside its nearest.
  std::vector<Bound> sorted;
  for (const Bound bound : bounds) {
    const auto place = std::lower_bound(sorted.begin(), sorted.end(), bound, less);
    const bool known = place != sorted.end() && compare_for_every_extent(*place, bound) ==
                                                    std::optional(std::weak_ordering::equivalent);
    if (!known) sorted.insert(place, bound);
    if (unordered) {
      problems.push_back(fmt::format("{}: the order of bounds {} and {} depends on the length",
                                     axis_name(axis), to_string(unordered->first),
                                     to_string(unordered->second)));
      return std::nullopt;
    }
  }
  return sorted;
}

std::int64_t rank_of(const std::vector<Bound>& sorted, Bound bound) {
  const auto place = std::lower_bound(sorted.begin(), sorted.end(), bound, [](Bound a, Bound b) {
    return compare_for_every_extent(a, b) == std::optional(std::weak_ordering::less);
  });
  return place - sorted.begin();
}

// Finds gaps and overlaps by cutting the region along one axis after the other. `tiles` all meet
// `region`.
class TileChecker {
 public:
  struct Allowed {
    bool overlaps = false;
    bool gaps = false;
  };
  TileChecker(Allowed allowed, std::vector<std::string>& problems,
              const std::array<std::vector<Bound>, 8>& bounds)
      : allowed_(allowed), problems_(problems), bounds_(bounds) {}

  void check(const RankedTile& region, std::vector<const RankedTile*> tiles, std::size_t axis) {
    if (problems_.size() >= kMostProblems || exhausted_) return;
    if (tiles.empty()) {
      if (allowed_.gaps) return;
      problems_.push_back(fmt::format("gap at {}", shown(region)));
      return;
    }
    // An axis along which every tile spans the region cuts nothing.
    while (axis < kAxesOfTile && std::ranges::all_of(tiles, [&](const RankedTile* tile) {
             return tile->ranks[axis].contains(region.ranks[axis]);
           })) {
      ++axis;
    }
    if (axis == kAxesOfTile) {
      if (tiles.size() > 1 && !allowed_.overlaps) {
        problems_.push_back(fmt::format("{} pieces overlap at {}", tiles.size(), shown(region)));
      }
      return;
    }
    // Where overlaps are allowed, one tile over all of the region settles it.
    const bool covered = allowed_.overlaps && std::ranges::any_of(tiles, [&](const auto* tile) {
                           return spans(*tile, region, axis);
                         });
    if (!covered) cut(region, tiles, axis);
  }

 private:
  static bool spans(const RankedTile& tile, const RankedTile& region, std::size_t first_axis) {
    for (std::size_t axis = first_axis; axis < kAxesOfTile; ++axis) {
      if (!tile.ranks[axis].contains(region.ranks[axis])) return false;
    }
    return true;
  }

  void cut(const RankedTile& region, const std::vector<const RankedTile*>& tiles,
           std::size_t axis) {
    const Interval whole = region.ranks[axis];
    std::vector<std::int64_t> cuts = {whole.begin, whole.end};
    for (const RankedTile* tile : tiles) {
      for (const std::int64_t at : {tile->ranks[axis].begin, tile->ranks[axis].end}) {
        if (at > whole.begin && at < whole.end) cuts.push_back(at);
      }
    }
    std::ranges::sort(cuts);
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    // Each tile goes to the slabs it spans: the first is found by search, so a grid costs n log n.
    std::vector<std::vector<const RankedTile*>> slabs(cuts.size() - 1);
    for (const RankedTile* tile : tiles) {
      const Interval part = intersect(tile->ranks[axis], whole);
      auto slab =
          static_cast<std::size_t>(std::ranges::lower_bound(cuts, part.begin) - cuts.begin());
      for (; slab + 1 < cuts.size() && cuts[slab] < part.end; ++slab) {
        slabs[slab].push_back(tile);
        if (++visits_ > kMostVisits) return give_up();
      }
    }
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      RankedTile slab = region;
      slab.ranks[axis] = {.begin = cuts[i], .end = cuts[i + 1]};
      check(slab, std::move(slabs[i]), axis + 1);
    }
  }

  void give_up() {
    exhausted_ = true;
    problems_.push_back(fmt::format(
        "the pieces are cut too irregularly: checking them takes more than {} steps", kMostVisits));
  }

  [[nodiscard]] std::string shown(const RankedTile& region) const {
    std::string text;
    for (std::size_t axis = 0; axis < kAxesOfTile; ++axis) {
      const Range range = {
          .begin = bounds_[axis][static_cast<std::size_t>(region.ranks[axis].begin)],
          .end = bounds_[axis][static_cast<std::size_t>(region.ranks[axis].end)]};
      if (range == Range::all()) continue;
      if (!text.empty()) text += ' ';
      text += fmt::format("{} {}", axis_name(axis), to_string(range));
    }
    return text.empty() ? "all" : text;
  }

  Allowed allowed_;
  bool exhausted_ = false;
  std::size_t visits_ = 0;
  std::vector<std::string>& problems_;
  const std::array<std::vector<Bound>, 8>& bounds_;
};

std::size_t combine(std::size_t seed, std::size_t value) {
  return seed ^ (value + 0x9E3779B97F4A7C15ULL + (seed << 6) + (seed >> 2));
}

// Each request has lengths of its own, so bounds of different requests need no order. Checks the
// requests between neighbouring request bounds by themselves; nullopt where there are no such
// bounds inside the domain, or too many.
std::optional<std::vector<std::string>> problems_by_request(const Layout& layout,
                                                            const LayoutDomain& domain) {
  const Range all = domain.box.request;
  std::vector<std::int32_t> cuts = {all.begin.offset, all.end.offset};
  for (const Piece& piece : layout.pieces) {
    for (const Bound bound : {piece.box.request.begin, piece.box.request.end}) {
      if (!bound.is_constant()) return std::nullopt;
      cuts.push_back(bound.offset);
    }
  }
  std::ranges::sort(cuts);
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  const bool has_inner =
      cuts.size() > 2 && cuts.size() * layout.pieces.size() <= kMostPiecesByRequest;
  const bool leaves = cuts.front() < all.begin.offset || cuts.back() > all.end.offset;
  if (!all.begin.is_constant() || !all.end.is_constant() || !has_inner || leaves)
    return std::nullopt;
  std::vector<std::string> problems;
  for (std::size_t i = 0; i + 1 < cuts.size() && problems.size() < kMostProblems; ++i) {
    const Range requests = Range::of(cuts[i], cuts[i + 1]);
    Layout part = {.kind = layout.kind, .pieces = {}};
    for (Piece piece : layout.pieces) {
      if (piece.box.request.begin.offset > cuts[i] || piece.box.request.end.offset < cuts[i + 1])
        continue;
      piece.box.request = requests;
      part.pieces.push_back(piece);
    }
    LayoutDomain part_domain = domain;
    part_domain.box.request = requests;
    for (const std::string& problem : problems_of(part, part_domain))
      problems.push_back(fmt::format("requests {}: {}", to_string(requests), problem));
  }
  return problems;
}

}  // namespace

const char* to_string(LayoutKind kind) {
  switch (kind) {
    case LayoutKind::whole:
      return "whole";
    case LayoutKind::sum:
      return "sum";
    case LayoutKind::softmax:
      break;
  }
  return "softmax";
}

std::size_t hash_of(const Layout& layout) {
  std::size_t seed = static_cast<std::size_t>(layout.kind);
  const auto add = [&seed](Bound bound) {
    const auto bits = [](std::int32_t x) { return std::size_t{static_cast<std::uint32_t>(x)}; };
    seed =
        combine(seed, (bits(bound.offset) << 32) ^ (bits(bound.index) << 16) ^ bits(bound.parts));
  };
  // Where pieces begin tells nearly all layouts apart.
  const auto add_begins = [&add](const Box& box) {
    add(box.request.begin);
    add(box.token.begin);
    add(box.head.begin);
    add(box.dim.begin);
  };
  const Piece* last = nullptr;
  for (const Piece& piece : layout.pieces) {
    seed = combine(seed, index_of(piece.device));
    const bool replica = last != nullptr && piece.box == last->box && piece.over == last->over;
    last = &piece;
    if (replica) continue;
    add_begins(piece.box);
    if (layout.kind != LayoutKind::whole) add_begins(piece.over);
  }
  return seed;
}

std::vector<DeviceId> devices_of(const Layout& layout) {
  std::vector<DeviceId> devices;
  devices.reserve(layout.pieces.size());
  for (const Piece& piece : layout.pieces) devices.push_back(piece.device);
  std::ranges::sort(devices);
  devices.erase(std::unique(devices.begin(), devices.end()), devices.end());
  return devices;
}

std::vector<Buffer> buffers_of(const Layout& layout) {
  std::vector<Buffer> buffers;
  buffers.reserve(layout.pieces.size());
  for (const Piece& piece : layout.pieces) {
    const Buffer buffer = {.device = piece.device, .box = piece.box};
    // Parts of one buffer usually stand side by side, so the last is tried first.
    const bool known =
        !buffers.empty() &&
        (buffers.back() == buffer ||
         (layout.kind != LayoutKind::whole && std::ranges::find(buffers, buffer) != buffers.end()));
    if (!known) buffers.push_back(buffer);
  }
  return buffers;
}

Layout replicated(std::span<const DeviceId> group, const Box& box) {
  Layout layout;
  layout.pieces.reserve(group.size());
  for (const DeviceId device : group)
    layout.pieces.push_back({.device = device, .box = box, .over = {}});
  return layout;
}

Interval even_part(std::int64_t count, std::int64_t i, std::int64_t n) {
  const std::int64_t base = count / n;
  const std::int64_t larger = count % n;
  const std::int64_t begin = i * base + std::min(i, larger);
  return {.begin = begin, .end = begin + base + (i < larger ? 1 : 0)};
}

std::vector<std::string> problems_of(const Layout& layout, const LayoutDomain& domain) {
  if (is_plain_row(layout, domain)) return {};
  std::vector<std::string> problems;
  const bool partial = layout.kind != LayoutKind::whole;
  const Tile whole = tile_of(domain.box, partial ? domain.over : Box{});
  std::vector<Tile> tiles;
  tiles.reserve(layout.pieces.size());
  for (const Piece& piece : layout.pieces)
    tiles.push_back(tile_of(piece.box, partial ? piece.over : Box{}));

  std::array<std::vector<Bound>, kAxesOfTile> bounds;
  for (std::size_t axis = 0; axis < kAxesOfTile; ++axis) {
    std::vector<Bound> on_axis = {whole[axis].begin, whole[axis].end};
    for (const Tile& tile : tiles) {
      on_axis.push_back(tile[axis].begin);
      on_axis.push_back(tile[axis].end);
    }
    keep_distinct(on_axis);
    auto sorted = ordered_bounds(on_axis, axis, problems);
    if (!sorted) {
      auto by_request = problems_by_request(layout, domain);
      return by_request ? *std::move(by_request) : problems;
    }
    bounds[axis] = *std::move(sorted);
  }

  const auto ranked = [&bounds](const Tile& tile) {
    RankedTile result;
    for (std::size_t axis = 0; axis < kAxesOfTile; ++axis) {
      result.ranks[axis] = {.begin = rank_of(bounds[axis], tile[axis].begin),
                            .end = rank_of(bounds[axis], tile[axis].end)};
    }
    return result;
  };
  const RankedTile region = ranked(whole);
  std::vector<RankedTile> ranked_tiles;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const RankedTile tile = ranked(tiles[i]);
    const bool empty =
        std::ranges::any_of(tile.ranks, [](Interval ranks) { return ranks.empty(); });
    if (empty) continue;
    for (std::size_t axis = 0; axis < kAxesOfTile && problems.size() < kMostProblems; ++axis) {
      if (!region.ranks[axis].contains(tile.ranks[axis])) {
        problems.push_back(
            fmt::format("piece {} on device {} leaves the tensor: {} {} is not in {}", i,
                        index_of(layout.pieces[i].device), axis_name(axis),
                        to_string(tiles[i][axis]), to_string(whole[axis])));
      }
    }
    ranked_tiles.push_back(tile);
  }
  if (!problems.empty()) return problems;
  if (!partial) {
    // Replicas are the same tile again; checking one of them is enough.
    std::ranges::sort(ranked_tiles, before);
    ranked_tiles.erase(std::unique(ranked_tiles.begin(), ranked_tiles.end()), ranked_tiles.end());
  }

  std::vector<const RankedTile*> meeting;
  meeting.reserve(ranked_tiles.size());
  for (const RankedTile& tile : ranked_tiles) meeting.push_back(&tile);
  TileChecker({.overlaps = !partial, .gaps = domain.gaps_allowed}, problems, bounds)
      .check(region, std::move(meeting), 0);
  return problems;
}

}  // namespace weir
