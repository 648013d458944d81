#pragma once
// Quantities as types, so that only meaningful arithmetic compiles: Bytes / BytesPerSecond =
// Seconds, and so on.

#include <compare>
#include <cstdint>

namespace weir {

// One dimension of quantity: adds to itself, scales by plain numbers, divides by itself into a
// ratio.
template <class Tag, class Rep>
struct Quantity {
  Rep value{};

  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity& operator+=(Quantity other) { return value += other.value, *this; }
  constexpr Quantity& operator-=(Quantity other) { return value -= other.value, *this; }
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return {a.value + b.value}; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return {a.value - b.value}; }
  friend constexpr Quantity operator*(Quantity a, Rep factor) { return {a.value * factor}; }
  friend constexpr Quantity operator*(Rep factor, Quantity a) { return {a.value * factor}; }
  friend constexpr Quantity operator/(Quantity a, Rep divisor) { return {a.value / divisor}; }
  friend constexpr double operator/(Quantity a, Quantity b) {
    return static_cast<double>(a.value) / static_cast<double>(b.value);
  }
};

using Bytes = Quantity<struct BytesTag, std::int64_t>;
using Flops = Quantity<struct FlopsTag,
                       std::int64_t>;  // Floating-point operations, a count; a multiply-add is 2.
using Seconds = Quantity<struct SecondsTag, double>;
using BytesPerSecond = Quantity<struct BytesPerSecondTag, double>;
using FlopsPerSecond = Quantity<struct FlopsPerSecondTag, double>;

[[nodiscard]] constexpr Seconds operator/(Bytes amount, BytesPerSecond rate) {
  return {static_cast<double>(amount.value) / rate.value};
}
[[nodiscard]] constexpr Seconds operator/(Flops amount, FlopsPerSecond rate) {
  return {static_cast<double>(amount.value) / rate.value};
}

// An instant or a span of simulated or measured time. Integer, so that equal runs compare equal.
struct SimTime {
  std::int64_t ns = 0;

  constexpr auto operator<=>(const SimTime&) const = default;
  constexpr SimTime& operator+=(SimTime other) { return ns += other.ns, *this; }
  friend constexpr SimTime operator+(SimTime a, SimTime b) { return {a.ns + b.ns}; }
  friend constexpr SimTime operator-(SimTime a, SimTime b) { return {a.ns - b.ns}; }
};

[[nodiscard]] constexpr double to_seconds(SimTime time) {
  return static_cast<double>(time.ns) * 1e-9;
}
[[nodiscard]] constexpr double to_milliseconds(SimTime time) {
  return static_cast<double>(time.ns) * 1e-6;
}

}  // namespace weir
