#include "claims/verdict.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace weir {
namespace {

bool is_near(const Evidence& evidence) {
  if (!evidence.computed) return false;
  const auto ratio = ratio_of(evidence.claimed, *evidence.computed);
  // A tenth is meant as it is written: 1.1 against 1.0 is within it.
  constexpr double kRatioRounding = 1e-9;
  return ratio && std::abs(*ratio - 1) <= kHoldsWithin + kRatioRounding;
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::holds:
      return "holds";
    case Verdict::direction_holds:
      return "direction holds";
    case Verdict::does_not_hold:
      return "does not hold";
    case Verdict::impossible:
      return "impossible";
    case Verdict::unchecked:
      return "unchecked";
  }
  CHECK(false, "unknown verdict");
}

Verdict judge(const Evidence& evidence) {
  if (!evidence.broken.empty()) return Verdict::impossible;
  const bool wrong_winner = evidence.says_who_wins && evidence.direction == false;
  if (is_near(evidence) && !wrong_winner) return Verdict::holds;
  if (!evidence.contradictions.empty()) return Verdict::impossible;
  if (!evidence.computed) return Verdict::unchecked;
  return evidence.direction == true ? Verdict::direction_holds : Verdict::does_not_hold;
}

std::optional<double> ratio_of(ClaimedRange claimed, double computed) {
  const double nearest = std::clamp(computed, claimed.low, claimed.high);
  if (nearest == computed) return 1;
  if (computed == 0) return std::nullopt;
  return nearest / computed;
}

int order_of(double a, double b) {
  if (std::abs(a - b) <= kEvenWithin * std::max(std::abs(a), std::abs(b))) return 0;
  return a < b ? -1 : 1;
}

}  // namespace weir
