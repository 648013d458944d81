// Transfers at random against a plain reference: at every instant at which something changes, all
// rates are found again from nothing, by progressive filling, in real numbers.

#include "sim/link_sharing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "sim/activities.h"

namespace weir {
namespace {

struct Message {
  double start = 0;     // Nanoseconds, as all times here.
  double duration = 0;  // Alone.
  std::vector<LinkUse> uses;
  double left = 0;  // Of duration.
  double end = -1;

  // Share of link `i` that it takes at full speed, in bytes per nanosecond.
  [[nodiscard]] double wants(std::size_t i) const {
    for (const LinkUse& use : uses) {
      if (index_of(use.link) == i) return use.bytes / duration;
    }
    return 0;
  }
  // Of the link that carries most of it, at full speed.
  [[nodiscard]] double full_rate() const {
    double most = 0;
    for (const LinkUse& use : uses) most = std::max(most, use.bytes);
    return most / duration;
  }
};

// Shares of full speed. Rates, those of the links that carry most, grow together.
std::vector<double> speeds_of(const std::vector<const Message*>& messages,
                              const std::vector<double>& capacities) {
  std::vector<double> rate(messages.size(), 0);
  std::vector<bool> fixed(messages.size(), false);
  for (std::size_t round = 0; round < messages.size(); ++round) {
    // How much further all can grow until the next link is full or the next has all that it wants.
    double growth = std::numeric_limits<double>::infinity();
    std::size_t full = capacities.size();
    std::size_t content = messages.size();
    for (std::size_t link = 0; link < capacities.size(); ++link) {
      double left = capacities[link];
      double weight = 0;
      for (std::size_t m = 0; m < messages.size(); ++m) {
        const double share = messages[m]->wants(link) / messages[m]->full_rate();
        left -= share * rate[m];
        if (!fixed[m]) weight += share;
      }
      if (weight > 0 && left / weight < growth) {
        growth = left / weight;
        full = link;
      }
    }
    for (std::size_t m = 0; m < messages.size(); ++m) {
      if (fixed[m] || messages[m]->full_rate() - rate[m] > growth) continue;
      growth = messages[m]->full_rate() - rate[m];
      content = m;
    }
    for (std::size_t m = 0; m < messages.size(); ++m) {
      if (fixed[m]) continue;
      rate[m] += growth;
      fixed[m] = content < messages.size() ? m == content : messages[m]->wants(full) > 0;
    }
  }
  for (std::size_t m = 0; m < messages.size(); ++m) rate[m] /= messages[m]->full_rate();
  return rate;
}

void play(std::vector<Message>& messages, const std::vector<double>& capacities) {
  double now = 0;
  while (true) {
    std::vector<const Message*> active;
    std::vector<Message*> changing;
    double next = std::numeric_limits<double>::infinity();
    for (Message& message : messages) {
      if (message.end >= 0) continue;
      if (message.start > now) {
        next = std::min(next, message.start);
      } else {
        active.push_back(&message);
        changing.push_back(&message);
      }
    }
    if (active.empty() && std::isinf(next)) return;
    const std::vector<double> speeds = speeds_of(active, capacities);
    for (std::size_t m = 0; m < active.size(); ++m)
      next = std::min(next, now + active[m]->left / speeds[m]);
    for (std::size_t m = 0; m < active.size(); ++m) {
      changing[m]->left -= (next - now) * speeds[m];
      if (changing[m]->left < 1e-6) changing[m]->end = next;
    }
    now = next;
  }
}

std::vector<Message> random_messages(Random& random, const std::vector<double>& capacities) {
  std::vector<Message> messages(static_cast<std::size_t>(random.integer(2, 30)));
  for (Message& message : messages) {
    message.start = static_cast<double>(random.integer(0, 5)) * 20'000;
    double longest = 0;
    for (std::uint32_t link = 0; link < capacities.size(); ++link) {
      if (random.uniform() > 0.4 && (link + 1 < capacities.size() || !message.uses.empty()))
        continue;
      message.uses.push_back(
          {.link = LinkId{link}, .bytes = 1000.0 * static_cast<double>(random.integer(1, 200))});
      longest = std::max(longest, message.uses.back().bytes / capacities[link]);
    }
    // As fast as its slowest link, or slower by itself.
    message.duration = std::ceil(longest * (random.uniform() < 0.5 ? 1 : 1 + random.uniform()));
    message.left = message.duration;
  }
  return messages;
}

TEST(LinkSharing, GivesWhatProgressiveFillingFromNothingGives) {
  int slowed = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    std::vector<double> capacities;
    for (std::int64_t i = random.integer(1, 6); i > 0; --i)
      capacities.push_back(static_cast<double>(random.integer(1, 8)));
    std::vector<Message> messages = random_messages(random, capacities);
    ActivityGraph graph;
    for (const Message& message : messages) {
      graph.add(graph.add_work({static_cast<std::int64_t>(message.start)},
                               {static_cast<std::int64_t>(message.duration)}, message.uses),
                {});
    }
    std::vector<double> per_second;
    for (const double capacity : capacities) per_second.push_back(capacity * 1e9);
    const ActivityTimes times = run_by_events(graph, per_second);
    slowed += times.has_slowed ? 1 : 0;
    play(messages, capacities);
    // Every end is rounded up to a nanosecond, and is where another one's rate may change.
    const auto rounding = static_cast<double>(2 * messages.size());
    for (std::size_t m = 0; m < messages.size(); ++m) {
      EXPECT_NEAR(static_cast<double>(times.ends[m].ns), messages[m].end, rounding)
          << "seed " << seed << " message " << m;
    }
  }
  EXPECT_GT(slowed, 250);
}

}  // namespace
}  // namespace weir
