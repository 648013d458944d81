#include "report/format.h"

#include <limits>

#include <gtest/gtest.h>

namespace weir {
namespace {

std::string ns(double count) { return format_duration(Seconds{count * 1e-9}); }

TEST(Format, DurationsHaveThreeDigitsAndAFittingUnit) {
  EXPECT_EQ(format_duration(SimTime{0}), "0 s");
  EXPECT_EQ(format_duration(SimTime{7}), "7 ns");
  EXPECT_EQ(format_duration(SimTime{999}), "999 ns");
  EXPECT_EQ(format_duration(SimTime{1234}), "1.23 µs");
  EXPECT_EQ(format_duration(SimTime{45'600'000}), "45.6 ms");
  EXPECT_EQ(format_duration(SimTime{456'000'000}), "456 ms");
  EXPECT_EQ(format_duration(Seconds{7.891}), "7.89 s");
  EXPECT_EQ(format_duration(Seconds{-7.891}), "-7.89 s");
  EXPECT_EQ(ns(0.25), "0.25 ns");
}

TEST(Format, DurationsThatRoundUpMoveToTheNextUnit) {
  EXPECT_EQ(ns(0.9996), "1 ns");
  EXPECT_EQ(ns(999.6), "1.00 µs");
  EXPECT_EQ(ns(9.996e3), "10.0 µs");
  EXPECT_EQ(ns(99.96e3), "100 µs");
  EXPECT_EQ(ns(999.6e3), "1.00 ms");
  EXPECT_EQ(ns(999.6e6), "1.00 s");
}

TEST(Format, LongDurationsHaveTwoUnits) {
  EXPECT_EQ(format_duration(Seconds{99.96}), "1 min 40 s");
  EXPECT_EQ(format_duration(Seconds{125}), "2 min 05 s");
  EXPECT_EQ(format_duration(Seconds{3599.6}), "1 h 00 min");
  EXPECT_EQ(format_duration(Seconds{11220}), "3 h 07 min");
  EXPECT_EQ(format_duration(Seconds{86399}), "1 d 00 h");
  EXPECT_EQ(format_duration(Seconds{2 * 86400 + 3 * 3600}), "2 d 03 h");
}

TEST(Format, QuantitiesTakeDecimalPrefixes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1500), "1.50 kB");
  EXPECT_EQ(format_bytes(999'600), "1.00 MB");
  EXPECT_EQ(format_bytes(24.6e9), "24.6 GB");
  EXPECT_EQ(format_quantity(3.12e14, "FLOP/s"), "312 TFLOP/s");
  EXPECT_EQ(format_quantity(-0.5, "B"), "-0.50 B");
  EXPECT_EQ(format_quantity(2e21, "B"), "2000 EB");
}

TEST(Format, CountsAreExactWhileShort) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(4096), "4096");
  EXPECT_EQ(format_count(99999), "99999");
  EXPECT_EQ(format_count(100000), "100 k");
  EXPECT_EQ(format_count(4'560'000), "4.56 M");
  EXPECT_EQ(format_count(2.5), "2.50");
}

TEST(Format, WhatIsNotFiniteIsSaid) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(format_duration(Seconds{infinity}), "inf");
  EXPECT_EQ(format_bytes(-infinity), "-inf");
  EXPECT_EQ(format_count(std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(format_share(infinity), "inf");
  EXPECT_EQ(format_or_undefined(std::optional<double>{}, format_bytes), "-");
}

TEST(Format, SharesAndRatios) {
  EXPECT_EQ(format_share(0.1234), "12.3%");
  EXPECT_EQ(format_share(1), "100.0%");
  EXPECT_EQ(format_ratio(1.8), "1.80x");
  EXPECT_EQ(format_ratio(12.34), "12.3x");
}

TEST(Format, WidthsCountTerminalColumns) {
  EXPECT_EQ(display_width("gpu0"), 4);
  EXPECT_EQ(display_width("µs"), 2);
  EXPECT_EQ(display_width("設備"), 4);
  EXPECT_EQ(display_width("e\u0301"), 1);
  EXPECT_EQ(display_width("█▌"), 2);
  EXPECT_EQ(display_width("🚀"), 2);
}

TEST(Format, PrintableTextCannotCommandATerminal) {
  EXPECT_EQ(printable("gpu 0 µ 設"), "gpu 0 µ 設");
  EXPECT_EQ(printable("a\x1b[2Jb\n"), "a\uFFFD[2Jb\uFFFD");
  EXPECT_EQ(printable("\u202Eabc"), "\uFFFDabc");
  // A lone continuation, an overlong slash, a surrogate, a cut sequence: byte by byte.
  EXPECT_EQ(printable("\x80|"), "\uFFFD|");
  EXPECT_EQ(printable("\xC0\xAF|"), "\uFFFD\uFFFD|");
  EXPECT_EQ(printable("\xED\xA0\x80|"), "\uFFFD\uFFFD\uFFFD|");
  EXPECT_EQ(printable("\xF0\x9F\x9A"), "\uFFFD\uFFFD\uFFFD");
}

TEST(Format, BarsFillInEighths) {
  EXPECT_EQ(format_bar(0, 4), "    ");
  EXPECT_EQ(format_bar(0.5, 4), "██  ");
  EXPECT_EQ(format_bar(17.0 / 32, 4), "██▏ ");
  EXPECT_EQ(format_bar(1, 4), "████");
  EXPECT_EQ(format_bar(7, 2), "██");
  EXPECT_EQ(format_bar(-1, 2), "  ");
  EXPECT_EQ(format_bar(std::numeric_limits<double>::quiet_NaN(), 2), "  ");
  EXPECT_EQ(format_bar(0.5, 0), "");
}

}  // namespace
}  // namespace weir
