#pragma once
// The ends of transfers that are under way, earliest first: a heap of four children per entry in
// which an entry can be moved, since every change of a rate moves an end. Takes O(log n) per
// change, and no more memory than there are transfers under way.

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "base/units.h"

namespace weir {

class EndHeap {
 public:
  struct Entry {
    SimTime time;
    std::uint32_t name = 0;  // Decides between equal times.
    std::uint32_t slot = 0;  // By which an entry is found again; small numbers.
    [[nodiscard]] bool before(const Entry& other) const {
      return time != other.time ? time < other.time : name < other.name;
    }
  };

  [[nodiscard]] bool empty() const { return entries_.empty(); }
  [[nodiscard]] const Entry& top() const { return entries_.front(); }
  // Moves of entries so far, each of constant cost.
  [[nodiscard]] std::uint64_t moves() const { return moves_; }

  // Adds the entry, or moves the one of its slot.
  void set(const Entry& entry) {
    if (entry.slot >= place_.size()) place_.resize(entry.slot + 1, kNowhere);
    std::uint32_t place = place_[entry.slot];
    if (place == kNowhere) {
      place = static_cast<std::uint32_t>(entries_.size());
      entries_.push_back(entry);
    }
    sink(rise(place, entry), entry);
  }

  void pop() {
    place_[entries_.front().slot] = kNowhere;
    const Entry last = entries_.back();
    entries_.pop_back();
    if (!entries_.empty()) sink(0, last);
  }

 private:
  static constexpr std::uint32_t kNowhere = std::numeric_limits<std::uint32_t>::max();
  static constexpr std::uint32_t kChildren = 4;

  void put(std::uint32_t place, const Entry& entry) {
    entries_[place] = entry;
    place_[entry.slot] = place;
    ++moves_;
  }

  // Makes room for `entry` as far up as it belongs, beginning at `place`.
  std::uint32_t rise(std::uint32_t place, const Entry& entry) {
    while (place > 0) {
      const std::uint32_t parent = (place - 1) / kChildren;
      if (!entry.before(entries_[parent])) break;
      put(place, entries_[parent]);
      place = parent;
    }
    return place;
  }

  // Puts `entry` as far down as it belongs, beginning at `place`.
  void sink(std::uint32_t place, const Entry& entry) {
    const auto size = static_cast<std::uint32_t>(entries_.size());
    while (true) {
      const std::uint32_t first = place * kChildren + 1;
      if (first >= size) break;
      std::uint32_t least = first;
      for (std::uint32_t child = first + 1; child < size && child < first + kChildren; ++child) {
        if (entries_[child].before(entries_[least])) least = child;
      }
      if (!entries_[least].before(entry)) break;
      put(place, entries_[least]);
      place = least;
    }
    put(place, entry);
  }

  std::vector<Entry> entries_;
  std::vector<std::uint32_t> place_;  // By slot.
  std::uint64_t moves_ = 0;
};

}  // namespace weir
