#include "sim/csv.h"

#include <gtest/gtest.h>

namespace weir {
namespace {

TEST(Csv, ReadsFieldsByColumnName) {
  const auto table = CsvTable::parse("name,us\na,1.5\n\"b, \"\"c\"\"\",2\r\n", "t.csv");
  ASSERT_TRUE(table.has_value()) << table.error().message;
  ASSERT_EQ(table->num_rows(), 2U);
  EXPECT_EQ(table->text(0, "name"), "a");
  EXPECT_EQ(table->number(0, "us"), 1.5);
  EXPECT_EQ(table->text(1, "name"), "b, \"c\"");
  EXPECT_EQ(table->integer(1, "us"), 2);
  EXPECT_FALSE(table->has("ms"));
}

TEST(Csv, WhatIsNoNumberIsNone) {
  const auto table = CsvTable::parse("a,b,c,d\n,1x,nan,1.5\n", "t.csv");
  ASSERT_TRUE(table.has_value());
  EXPECT_EQ(table->number(0, "a"), std::nullopt);
  EXPECT_EQ(table->number(0, "b"), std::nullopt);
  EXPECT_EQ(table->number(0, "c"), std::nullopt);
  EXPECT_EQ(table->integer(0, "d"), std::nullopt);
  EXPECT_EQ(table->number(0, "missing"), std::nullopt);
}

TEST(Csv, RefusesRowsOfOtherLengthThanTheHeader) {
  const auto table = CsvTable::parse("a,b\n1,2\n3\n", "t.csv");
  ASSERT_FALSE(table.has_value());
  EXPECT_EQ(table.error().message, "t.csv: row 3: found 1 fields, allowed 2 as in the header");
}

TEST(Csv, RefusesQuotesThatDoNotCloseAndColumnsNamedTwice) {
  EXPECT_EQ(CsvTable::parse("a\n\"1\n", "t.csv").error().message,
            "t.csv: row 2: found a quote that does not close");
  EXPECT_EQ(CsvTable::parse("a,a\n", "t.csv").error().message,
            "t.csv: found column a twice, allowed once");
}

}  // namespace
}  // namespace weir
