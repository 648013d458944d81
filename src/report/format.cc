#include "report/format.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace weir {
namespace {

// Three significant digits without an exponent, for 0 <= value < 999.5.
std::string three_digits(double value) {
  if (value < 9.995) return fmt::format("{:.2f}", value);
  if (value < 99.95) return fmt::format("{:.1f}", value);
  return fmt::format("{:.0f}", value);
}

std::string not_finite(double value) {
  if (std::isnan(value)) return "nan";
  return value < 0 ? "-inf" : "inf";
}

// 125 s is 2 min 05 s: whole large units, and whole small ones in two digits.
std::string two_units(double small_units, std::string_view large, std::string_view small,
                      std::int64_t ratio) {
  const auto whole = static_cast<std::int64_t>(std::llround(small_units));
  return fmt::format("{} {} {:02} {}", whole / ratio, large, whole % ratio, small);
}

std::string positive_duration(double seconds) {
  const double ns = seconds * 1e9;
  if (ns < 0.9995) return fmt::format("{:.2g} ns", ns);
  if (ns < 999.5) return fmt::format("{:.0f} ns", ns);
  if (ns < 999.5e3) return three_digits(ns * 1e-3) + " µs";
  if (ns < 999.5e6) return three_digits(ns * 1e-6) + " ms";
  if (seconds < 99.95) return three_digits(seconds) + " s";
  if (seconds < 3599.5) return two_units(seconds, "min", "s", 60);
  if (seconds < 24 * 3600 - 30) return two_units(seconds / 60, "h", "min", 60);
  constexpr double kLongest = 1e15;  // Beyond this, hours no longer fit 64 bits safely.
  return two_units(std::min(seconds, kLongest) / 3600, "d", "h", 24);
}

struct CodePoint {
  char32_t value = U'\uFFFD';
  std::size_t size = 1;  // Bytes read; 1 for a byte that begins no valid sequence.
  bool valid = false;
};

// Decodes the first code point. Overlong forms, surrogates and values beyond U+10FFFF are invalid.
CodePoint first_code_point(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {.value = lead, .size = 1, .valid = true};
  const std::size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return {};
  char32_t value = lead & (0xFFU >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return {};
    value = (value << 6) | (byte(i) & 0x3FU);
  }
  constexpr std::array<char32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (value < kSmallest[size] || value > 0x10FFFF || surrogate) return {};
  return {.value = value, .size = size, .valid = true};
}

struct CodeRange {
  char32_t first;
  char32_t last;
};

constexpr std::array kZeroWidth = {
    CodeRange{0x0300, 0x036F},  CodeRange{0x0483, 0x0489}, CodeRange{0x0591, 0x05BD},
    CodeRange{0x064B, 0x065F},  CodeRange{0x1AB0, 0x1AFF}, CodeRange{0x1DC0, 0x1DFF},
    CodeRange{0x200B, 0x200F},  CodeRange{0x20D0, 0x20FF}, CodeRange{0x2060, 0x2064},
    CodeRange{0xFE00, 0xFE0F},  CodeRange{0xFE20, 0xFE2F}, CodeRange{0xFEFF, 0xFEFF},
    CodeRange{0xE0100, 0xE01EF}};

constexpr std::array kDoubleWidth = {
    CodeRange{0x1100, 0x115F},   CodeRange{0x231A, 0x231B},   CodeRange{0x2E80, 0x303E},
    CodeRange{0x3041, 0x33FF},   CodeRange{0x3400, 0x4DBF},   CodeRange{0x4E00, 0x9FFF},
    CodeRange{0xA000, 0xA4CF},   CodeRange{0xA960, 0xA97F},   CodeRange{0xAC00, 0xD7A3},
    CodeRange{0xF900, 0xFAFF},   CodeRange{0xFE30, 0xFE6F},   CodeRange{0xFF00, 0xFF60},
    CodeRange{0xFFE0, 0xFFE6},   CodeRange{0x16FE0, 0x18DFF}, CodeRange{0x1AFF0, 0x1B2FF},
    CodeRange{0x1F300, 0x1F64F}, CodeRange{0x1F680, 0x1F6FF}, CodeRange{0x1F900, 0x1F9FF},
    CodeRange{0x1FA70, 0x1FAFF}, CodeRange{0x20000, 0x3FFFD}};

template <std::size_t N>
bool is_in(char32_t code, const std::array<CodeRange, N>& ranges) {
  return std::ranges::any_of(
      ranges, [&](const CodeRange& range) { return code >= range.first && code <= range.last; });
}

bool is_control(char32_t code) {
  const bool line_or_paragraph_end = code == 0x2028 || code == 0x2029;
  const bool direction = (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
  return code < 0x20 || (code >= 0x7F && code <= 0x9F) || line_or_paragraph_end || direction;
}

}  // namespace

std::string format_duration(Seconds time) {
  if (!std::isfinite(time.value)) return not_finite(time.value);
  if (time.value == 0) return "0 s";
  return fmt::format("{}{}", time.value < 0 ? "-" : "", positive_duration(std::abs(time.value)));
}

std::string format_duration(SimTime time) { return format_duration(Seconds{to_seconds(time)}); }

std::string format_quantity(double value, std::string_view unit) {
  if (!std::isfinite(value)) return not_finite(value);
  if (value < 0) return fmt::format("-{}", format_quantity(-value, unit));
  constexpr std::array<std::string_view, 7> kPrefixes = {"", "k", "M", "G", "T", "P", "E"};
  std::size_t prefix = 0;
  const bool whole = value < 999.5 && value == std::floor(value);
  double scaled = value;
  while (scaled >= 999.5 && prefix + 1 < kPrefixes.size()) {
    scaled /= 1000;
    ++prefix;
  }
  const std::string number = whole ? fmt::format("{:.0f}", value) : three_digits(scaled);
  const std::string_view space = kPrefixes[prefix].empty() && unit.empty() ? "" : " ";
  return fmt::format("{}{}{}{}", number, space, kPrefixes[prefix], unit);
}

std::string format_bytes(double bytes) { return format_quantity(bytes, "B"); }

std::string format_count(double count) {
  constexpr double kLargestExact = 99999;
  if (std::abs(count) <= kLargestExact && count == std::floor(count))
    return fmt::format("{:.0f}", count);
  return format_quantity(count, "");
}

std::string format_share(double share) {
  return std::isfinite(share) ? fmt::format("{:.1f}%", share * 100) : not_finite(share);
}

std::string format_ratio(double ratio) {
  if (!std::isfinite(ratio)) return not_finite(ratio);
  return fmt::format("{}{}x", ratio < 0 ? "-" : "", three_digits(std::abs(ratio)));
}

std::string printable(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const CodePoint code = first_code_point(text);
    if (code.valid && !is_control(code.value)) {
      result += text.substr(0, code.size);
    } else {
      result += "\xEF\xBF\xBD";  // U+FFFD.
    }
    text.remove_prefix(code.size);
  }
  return result;
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    const CodePoint code = first_code_point(text);
    if (is_in(code.value, kDoubleWidth)) {
      width += 2;
    } else if (!is_in(code.value, kZeroWidth)) {
      width += 1;
    }
    text.remove_prefix(code.size);
  }
  return width;
}

std::string format_bar(double share, std::size_t width) {
  constexpr std::array<std::string_view, 8> kEighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const double clamped = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0.0;
  const auto eighths =
      static_cast<std::size_t>(std::llround(clamped * 8 * static_cast<double>(width)));
  std::string bar;
  for (std::size_t i = 0; i < eighths / 8; ++i) bar += "█";
  bar += kEighths[eighths % 8];
  const std::size_t filled = (eighths + 7) / 8;
  return bar + std::string(width - filled, ' ');
}

}  // namespace weir
