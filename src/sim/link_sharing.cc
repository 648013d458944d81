#include "sim/link_sharing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"

namespace weir {
namespace {

// Rates closer than this to each other or to a capacity are equal: far above the rounding of sums
// over thousands of transfers, far below what anybody could measure.
constexpr double kSameRate = 1e-9;
// Ends are rounded up to nanoseconds; less than this over is rounding.
constexpr double kRoundingNs = 1e-3;

}  // namespace

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
  double largest = 0;
  for (const LinkUse& use : uses) largest = std::max(largest, use.bytes);
  const auto length = static_cast<double>(duration.ns);
  transfers_[slot] = {.name = name,
                      .uses = uses,
                      .largest = largest,
                      .full_rate = largest / length,
                      .remaining = length,
                      .speed = 0,
                      .since = now,
                      .end = {},
                      .visit = 0};
  for (const LinkUse& use : uses) {
    on_link_[index_of(use.link)].push_back(slot);
    changed_.push_back(use.link);
  }
  ++active_;
  if (uses.empty()) change_speed(slot, 1, now);
}

std::optional<LinkSharing::End> LinkSharing::next(SimTime now) {
  change_at(now);
  settle(now);
  if (ends_.empty()) return std::nullopt;
  const auto& [time, name, slot] = *ends_.begin();
  return End{.time = {time}, .name = name};
}

void LinkSharing::finish(const End& end) {
  const auto [time, name, slot] = *ends_.begin();
  CHECK(time == end.time.ns && name == end.name, "transfers finish in the order announced");
  change_at(end.time);
  Transfer& transfer = transfers_[slot];
  for (const LinkUse& use : transfer.uses) {
    std::vector<Slot>& there = on_link_[index_of(use.link)];
    there.erase(std::ranges::find(there, slot));
    changed_.push_back(use.link);
  }
  free_.push_back(slot);
  ends_.erase(ends_.begin());
  --active_;
}

// What has changed earlier takes effect then.
void LinkSharing::change_at(SimTime now) {
  if (changed_at_ != now) settle(changed_at_);
  changed_at_ = now;
}

void LinkSharing::settle(SimTime now) {
  if (changed_.empty()) return;
  // Only those who are joined to a change by shared links can be affected by it.
  const std::vector<Slot> slots = component();
  share(slots, now);
}

std::vector<LinkSharing::Slot> LinkSharing::component() {
  std::vector<LinkId> links = std::move(changed_);
  changed_.clear();
  ++visit_;
  std::vector<Slot> found;
  while (!links.empty()) {
    const LinkId link = links.back();
    links.pop_back();
    if (std::exchange(link_visit_[index_of(link)], visit_) == visit_) continue;
    for (const Slot slot : on_link_[index_of(link)]) {
      if (std::exchange(transfers_[slot].visit, visit_) == visit_) continue;
      found.push_back(slot);
      for (const LinkUse& use : transfers_[slot].uses) links.push_back(use.link);
    }
  }
  // Sums are made in an order that does not depend on who came first.
  std::ranges::sort(found, {}, [&](Slot slot) { return transfers_[slot].name; });
  return found;
}

// All rates grow together until a link is full or a transfer has all that it can take; those are
// fixed, and the others grow on.
void LinkSharing::share(std::span<const Slot> slots, SimTime now) {
  struct Shared {
    double left = 0;    // Bytes per nanosecond.
    double weight = 0;  // Of those not fixed, per unit of their rate.
  };
  std::vector<std::pair<LinkId, Shared>> links;
  for (const Slot slot : slots) {
    for (const LinkUse& use : transfers_[slot].uses) links.push_back({use.link, {}});
  }
  std::ranges::sort(links, {}, [](const auto& entry) { return entry.first; });
  links.erase(std::unique(links.begin(), links.end(),
                          [](const auto& a, const auto& b) { return a.first == b.first; }),
              links.end());
  const auto of = [&](LinkId link) -> Shared& {
    return std::ranges::lower_bound(links, link, {}, [](const auto& e) { return e.first; })->second;
  };
  for (auto& [link, shared] : links) shared.left = topology_.capacity(link).value * 1e-9;
  for (const Slot slot : slots) {
    const Transfer& transfer = transfers_[slot];
    for (const LinkUse& use : transfer.uses) of(use.link).weight += use.bytes / transfer.largest;
  }
  std::vector<Slot> growing(slots.begin(), slots.end());
  while (!growing.empty()) {
    double level = std::numeric_limits<double>::infinity();
    for (const auto& [link, shared] : links) {
      if (shared.weight > kSameRate) level = std::min(level, shared.left / shared.weight);
    }
    // Who can take no more than that gets all of it; if nobody is so modest, who is on a full link
    // gets the level.
    std::vector<Slot> rest;
    std::vector<std::pair<Slot, double>> fixed;
    for (const Slot slot : growing) {
      if (transfers_[slot].full_rate <= level * (1 + kSameRate)) {
        fixed.emplace_back(slot, transfers_[slot].full_rate);
      } else {
        rest.push_back(slot);
      }
    }
    if (fixed.empty()) {
      std::erase_if(rest, [&](Slot slot) {
        const bool full = std::ranges::any_of(transfers_[slot].uses, [&](const LinkUse& use) {
          const Shared& shared = of(use.link);
          return shared.left <= level * shared.weight * (1 + kSameRate);
        });
        if (full) fixed.emplace_back(slot, level);
        return full;
      });
    }
    CHECK(!fixed.empty(), "every round fixes a transfer");
    for (const auto& [slot, rate] : fixed) {
      const Transfer& transfer = transfers_[slot];
      for (const LinkUse& use : transfer.uses) {
        Shared& shared = of(use.link);
        const double weight = use.bytes / transfer.largest;
        shared.left = std::max(0.0, shared.left - weight * rate);
        shared.weight -= weight;
      }
      change_speed(slot, rate == transfer.full_rate ? 1 : rate / transfer.full_rate, now);
    }
    growing = std::move(rest);
  }
}

void LinkSharing::change_speed(Slot slot, double speed, SimTime now) {
  Transfer& transfer = transfers_[slot];
  if (speed < 1) has_slowed_ = true;
  if (transfer.speed == speed) return;
  if (transfer.speed > 0) {
    ends_.erase({transfer.end.ns, transfer.name, slot});
    transfer.remaining -= static_cast<double>((now - transfer.since).ns) * transfer.speed;
    transfer.remaining = std::max(transfer.remaining, 0.0);
  }
  transfer.since = now;
  transfer.speed = speed;
  const double left = std::max(0.0, std::ceil(transfer.remaining / speed - kRoundingNs));
  transfer.end = now + SimTime{static_cast<std::int64_t>(left)};
  ends_.emplace(transfer.end.ns, transfer.name, slot);
}

}  // namespace weir
