#include "report/table.h"

#include <gtest/gtest.h>

namespace weir {
namespace {

TEST(Table, AlignsNumbersRightAndNamesLeft) {
  const Table table{.columns = {{"name", Align::left}, {"time"}},
                    .rows = {{.cells = {"a", "1.50 µs"}},
                             {.cells = {"設備", "12 ns"}},
                             {.cells = {"total", "99 ns"}, .rule_above = true}}};
  EXPECT_EQ(render(table),
            "name      time\n"
            "──────────────\n"
            "a      1.50 µs\n"
            "設備     12 ns\n"
            "──────────────\n"
            "total    99 ns\n");
}

TEST(Table, HasNoTrailingWhitespace) {
  const Table table{.columns = {{"a", Align::left}, {"note", Align::left}},
                    .rows = {{.cells = {"x"}}, {.cells = {"long name", "why"}}, {.cells = {}}}};
  EXPECT_EQ(render(table, 2),
            "  a          note\n"
            "  ───────────────\n"
            "  x\n"
            "  long name  why\n"
            "\n");
}

TEST(Table, LeavesOutTitlesThatAreEmpty) {
  const Table table{.columns = {{"", Align::left}, {""}}, .rows = {{.cells = {"x", "1"}}}};
  EXPECT_EQ(render(table), "x  1\n");
}

TEST(Table, KeepsHostileCellsOnTheirLine) {
  const Table table{.columns = {{"n", Align::left}, {"v"}}, .rows = {{.cells = {"a\nb\x1b", "1"}}}};
  EXPECT_EQ(render(table),
            "n     v\n"
            "───────\n"
            "a\uFFFDb\uFFFD  1\n");
}

TEST(Table, OfNoColumnsIsEmpty) { EXPECT_EQ(render({}), ""); }

TEST(Table, CanBeMarkdown) {
  const Table table{.columns = {{"run", Align::left}, {"time"}},
                    .rows = {{.cells = {"a|b", "1 ns"}}, {.cells = {"c"}}}};
  EXPECT_EQ(render_markdown(table),
            "| run | time |\n"
            "| :--- | ---: |\n"
            "| a\\|b | 1 ns |\n"
            "| c |  |\n");
}

TEST(TableDeathTest, RefusesMoreCellsThanColumns) {
  const Table table{.columns = {{"a"}}, .rows = {{.cells = {"1", "2"}}}};
  EXPECT_DEATH(static_cast<void>(render(table)), "more cells than columns");
}

}  // namespace
}  // namespace weir
