#pragma once
// Quantities and names as people read them: three significant digits and a unit, the same
// everywhere. Prefixes are decimal (1 GB = 1e9 bytes), as vendors give bandwidths and memory.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/units.h"

namespace weir {

// What stands where a quantity is undefined.
inline constexpr std::string_view kUndefined = "-";

// 0 s, 7 ns, 1.23 µs, 45.6 ms, 7.89 s, 2 min 05 s, 3 h 07 min, 2 d 03 h. Whole nanoseconds below
// 1 µs, but never 0 for what is more than that: 0.25 ns.
[[nodiscard]] std::string format_duration(Seconds time);
[[nodiscard]] std::string format_duration(SimTime time);

// 512 B, 1.50 kB, 24.6 GB.
[[nodiscard]] std::string format_bytes(double bytes);
// Exact up to 99999, then 123 k, 4.56 M, 7.89 G, 1.00 T.
[[nodiscard]] std::string format_count(double count);
// Three significant digits and a prefixed unit: format_quantity(3.12e14, "FLOP/s") is
// "312 TFLOP/s". A unit is separated by a space; an empty one leaves the prefix alone.
[[nodiscard]] std::string format_quantity(double value, std::string_view unit);
// A share of 1 as 12.3%.
[[nodiscard]] std::string format_share(double share);
// A ratio as 1.80x.
[[nodiscard]] std::string format_ratio(double ratio);

// `format` of the value, or kUndefined.
template <class T, class Format>
[[nodiscard]] std::string format_or_undefined(const std::optional<T>& value, const Format& format) {
  return value ? format(*value) : std::string(kUndefined);
}

// The text with control characters and what is not UTF-8 replaced by U+FFFD, so that names from
// files can neither break a table nor command a terminal.
[[nodiscard]] std::string printable(std::string_view text);
// Terminal columns that valid UTF-8 takes: two for East Asian wide characters and emoji, none for
// combining marks. Source: Unicode 15, EastAsianWidth.txt, its large ranges.
[[nodiscard]] std::size_t display_width(std::string_view text);

// A bar of `width` columns, filled from the left in eighths of a column. The share is clamped to
// 0..1; the unfilled part is spaces.
[[nodiscard]] std::string format_bar(double share, std::size_t width);

}  // namespace weir
