#include "sim/link_sharing.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace weir {
namespace {

// Rates closer than this to each other or to a capacity are equal: far above the rounding of sums
// over thousands of transfers, far below what anybody could measure.
constexpr double kSameRate = 1e-9;
// Ends are rounded up to nanoseconds; less than this over is rounding.
constexpr double kRoundingNs = 1e-3;
// A link's capacity as an integer, so that what is added to a sum can be taken away again.
constexpr double kWholeLink = 0x1p40;
constexpr auto kOverbooked = static_cast<std::int64_t>(kWholeLink * (1 + kSameRate));

// As std::ceil, without a call; nothing for less than nothing.
std::int64_t rounded_up(double ns) {
  if (ns <= 0) return 0;
  const auto whole = static_cast<std::int64_t>(ns);
  return whole + (static_cast<double>(whole) < ns ? 1 : 0);
}

}  // namespace

LinkSharing::LinkSharing(std::span<const double> capacities) : links_(capacities.size()) {
  for (std::size_t i = 0; i < capacities.size(); ++i) {
    links_[i].capacity = capacities[i] * 1e-9;
    links_[i].whole_per_capacity = kWholeLink / links_[i].capacity;
  }
}

std::int64_t LinkSharing::wanted(const Link& link, const LinkUse& use, double per_length) {
  return static_cast<std::int64_t>(use.bytes * per_length * link.whole_per_capacity);
}

bool LinkSharing::is_overbooked(const Link& link) { return link.wanted > kOverbooked; }

void LinkSharing::begin(std::uint32_t name, std::span<const LinkUse> uses, SimTime duration,
                        SimTime now) {
  CHECK(duration.ns > 0, "a transfer takes time");
  change_at(now);
  Slot slot = 0;
  if (free_.empty()) {
    slot = static_cast<Slot>(transfers_.size());
    transfers_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  const auto length = static_cast<double>(duration.ns);
  double largest = 0;
  for (const LinkUse& use : uses) {
    Link& link = links_[index_of(use.link)];
    largest = std::max(largest, use.bytes);
    link.wanted += wanted(link, use, 1 / length);
    link.slots.push_back(slot);
  }
  CHECK(largest > 0 || uses.empty(), "a link is used for bytes");
  Transfer& transfer = transfers_[slot];
  transfer.uses = uses;
  transfer.per_largest = 1 / largest;
  transfer.full_rate = largest / length;
  transfer.per_length = 1 / length;
  transfer.per_full_rate = length / largest;
  transfer.remaining = length;
  transfer.speed = 0;
  transfer.since = now;
  transfer.name = name;
  begun_.push_back(slot);
  operations_ += 1 + uses.size();
  ++active_;
}

std::optional<LinkSharing::End> LinkSharing::next(SimTime now) {
  change_at(now);
  settle(now);
  if (ends_.empty()) return std::nullopt;
  return End{.time = ends_.top().time, .name = ends_.top().name};
}

std::optional<LinkSharing::End> LinkSharing::next_at(SimTime now) const {
  if (ends_.empty() || ends_.top().time != now) return std::nullopt;
  return End{.time = now, .name = ends_.top().name};
}

void LinkSharing::finish(const End& end) {
  const EndHeap::Entry top = ends_.top();
  CHECK(top.time == end.time && top.name == end.name, "transfers finish in the order announced");
  change_at(end.time);
  const Transfer& transfer = transfers_[top.slot];
  for (const LinkUse& use : transfer.uses) {
    Link& link = links_[index_of(use.link)];
    if (is_overbooked(link)) relieved_.push_back(static_cast<std::uint32_t>(index_of(use.link)));
    link.wanted -= wanted(link, use, transfer.per_length);
    const auto found = std::ranges::find(link.slots, top.slot);
    operations_ += static_cast<std::uint64_t>(found - link.slots.begin()) + 1;
    *found = link.slots.back();
    link.slots.pop_back();
  }
  free_.push_back(top.slot);
  ends_.pop();
  --active_;
}

// What has changed earlier takes effect then.
void LinkSharing::change_at(SimTime now) {
  if (changed_at_ == now) return;
  settle(changed_at_);
  changed_at_ = now;
}

void LinkSharing::settle(SimTime now) {
  if (begun_.empty() && relieved_.empty()) return;
  ++visit_;
  for (const std::uint32_t link : relieved_) {
    for (const Slot slot : links_[link].slots) share_around(slot, now);
  }
  for (const Slot slot : begun_) share_around(slot, now);
  begun_.clear();
  relieved_.clear();
}

void LinkSharing::share_around(Slot first, SimTime now) {
  ++operations_;
  if (transfers_[first].visit == visit_) return;
  collect(first);
  if (tight_.empty()) {
    change_speed(first, 1, now);
  } else {
    fill(now);
  }
}

// Whoever is joined to `first` by overbooked links, and these.
void LinkSharing::collect(Slot first) {
  members_.clear();
  uses_.clear();
  tight_.clear();
  join(first);
  // NOLINTNEXTLINE(modernize-loop-convert): it grows as it goes.
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const Transfer& transfer = transfers_[members_[i].slot];
    members_[i].first_use = static_cast<std::uint32_t>(uses_.size());
    for (const LinkUse& use : transfer.uses) {
      Link& link = links_[index_of(use.link)];
      if (!is_overbooked(link)) continue;
      if (link.visit != visit_) {
        link.visit = visit_;
        link.place = static_cast<std::uint32_t>(tight_.size());
        tight_.push_back({.left = link.capacity, .weight = 0});
        for (const Slot slot : link.slots) {
          if (transfers_[slot].visit != visit_) join(slot);
        }
      }
      const double weight = use.bytes * transfer.per_largest;
      tight_[link.place].weight += weight;
      uses_.push_back({.link = link.place, .weight = weight});
    }
    members_[i].end_use = static_cast<std::uint32_t>(uses_.size());
    operations_ += transfer.uses.size();
  }
}

void LinkSharing::join(Slot slot) {
  transfers_[slot].visit = visit_;
  members_.push_back({.slot = slot, .full_rate = transfers_[slot].full_rate});
}

// All rates grow together until a link is full or a transfer has all that it can take; those are
// fixed, and the others grow on.
void LinkSharing::fill(SimTime now) {
  // Those not fixed yet come first.
  std::span<Member> growing = members_;
  while (!growing.empty()) {
    const double reached = level();
    operations_ += growing.size() + tight_.size();
    // Who can take no more than that gets all of it; if nobody is so modest, who is on a full link
    // gets the level.
    const double modest = reached * (1 + kSameRate);
    auto fixed = std::partition(growing.begin(), growing.end(),
                                [&](const Member& member) { return member.full_rate > modest; });
    const bool all_they_want = fixed != growing.end();
    if (!all_they_want) {
      fixed = std::partition(growing.begin(), growing.end(),
                             [&](const Member& member) { return !is_held_up(member, reached); });
    }
    CHECK(fixed != growing.end(), "every round fixes a transfer");
    for (auto member = fixed; member != growing.end(); ++member)
      fix(*member, all_they_want ? member->full_rate : reached, now);
    growing = growing.first(static_cast<std::size_t>(fixed - growing.begin()));
  }
}

// The rate that those who are not fixed yet can reach together.
double LinkSharing::level() const {
  double level = std::numeric_limits<double>::infinity();
  for (const TightLink& link : tight_) {
    if (link.weight > kSameRate) level = std::min(level, link.left / link.weight);
  }
  return level;
}

// By a link that is full at this level.
bool LinkSharing::is_held_up(const Member& member, double level) const {
  for (std::uint32_t i = member.first_use; i < member.end_use; ++i) {
    const TightLink& link = tight_[uses_[i].link];
    if (link.left <= level * link.weight * (1 + kSameRate)) return true;
  }
  return false;
}

void LinkSharing::fix(const Member& member, double rate, SimTime now) {
  for (std::uint32_t i = member.first_use; i < member.end_use; ++i) {
    TightLink& link = tight_[uses_[i].link];
    link.left = std::max(0.0, link.left - uses_[i].weight * rate);
    link.weight -= uses_[i].weight;
  }
  operations_ += member.end_use - member.first_use;
  change_speed(member.slot,
               rate == member.full_rate ? 1 : rate * transfers_[member.slot].per_full_rate, now);
}

void LinkSharing::change_speed(Slot slot, double speed, SimTime now) {
  Transfer& transfer = transfers_[slot];
  if (speed < 1) has_slowed_ = true;
  if (transfer.speed == speed) return;
  transfer.remaining -= static_cast<double>((now - transfer.since).ns) * transfer.speed;
  transfer.remaining = std::max(transfer.remaining, 0.0);
  transfer.since = now;
  transfer.speed = speed;
  ends_.set({.time = now + SimTime{rounded_up(transfer.remaining / speed - kRoundingNs)},
             .name = transfer.name,
             .slot = slot});
}

}  // namespace weir
