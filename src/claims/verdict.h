#pragma once
// From a claimed figure, what was recomputed, and what speaks against it, to one of five words.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "claims/note.h"

namespace weir {

enum class Verdict : std::uint8_t {
  holds,            // Within kHoldsWithin of what is recomputed.
  direction_holds,  // The figure is off; who wins, or how it goes from row to row, is right.
  does_not_hold,
  impossible,  // Breaks a bound, or contradicts another figure of the notes.
  unchecked,   // Says nothing that a plan could tell.
};
inline constexpr std::array kVerdicts = {Verdict::holds, Verdict::direction_holds,
                                         Verdict::does_not_hold, Verdict::impossible,
                                         Verdict::unchecked};
[[nodiscard]] std::string_view to_string(Verdict verdict);

inline constexpr double kHoldsWithin = 0.10;
// Two figures nearer than this are even: nobody wins.
inline constexpr double kEvenWithin = 0.01;

struct Evidence {
  ClaimedRange claimed;
  std::optional<double> computed = {};
  bool says_who_wins = false;                    // Then it cannot hold with the wrong winner.
  std::vector<std::string> broken = {};          // Bounds that the figure breaks,
  std::vector<std::string> contradictions = {};  // other figures that it differs from, in words.
  std::optional<bool> direction = {};            // Whether it is right; nullopt: there is none.
};

// Bounds come first. A figure that holds stays so when another contradicts it: of the two it is the
// other that must be wrong.
[[nodiscard]] Verdict judge(const Evidence& evidence);

// Claimed / computed, of a range the nearest claimed figure; nullopt for something over nothing.
[[nodiscard]] std::optional<double> ratio_of(ClaimedRange claimed, double computed);

// -1, 0 (even) or 1: whether `a` is below, at or above `b`.
[[nodiscard]] int order_of(double a, double b);

}  // namespace weir
