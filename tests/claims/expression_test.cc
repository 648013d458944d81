#include "claims/expression.h"

#include <string>

#include <gtest/gtest.h>

namespace weir {
namespace {

// Names are their length, figures 10, calls the number of their arguments and words.
Scope counting_scope() {
  return {
      .name = [](const std::string& name) -> Result<double> {
        if (name == "missing") return invalid_input("missing");
        return static_cast<double>(name.size());
      },
      .figure = [](const FigureName& figure) -> Result<std::optional<double>> {
        if (figure.optional) return std::nullopt;
        return 10.0;
      },
      .call = [](const std::string& name, std::span<const Argument> arguments) -> Result<double> {
        double words = 0;
        for (const Argument& one : arguments) words += std::holds_alternative<std::string>(one);
        return static_cast<double>(name.size()) * 100 + static_cast<double>(arguments.size()) * 10 +
               words;
      },
      .is_word = [](const std::string& name) { return name == "word"; }};
}

double value_of(std::string_view text) {
  const auto parsed = parse_expression(text);
  EXPECT_TRUE(parsed) << text;
  if (!parsed) return -1;
  const auto value = evaluate(*parsed, counting_scope());
  EXPECT_TRUE(value && *value) << text;
  return value && *value ? **value : -1;
}

TEST(Expression, ProductsBindTighterThanSumsAndBothGoFromTheLeft) {
  EXPECT_EQ(value_of("1 + 2 * 3"), 7);
  EXPECT_EQ(value_of("(1 + 2) * 3"), 9);
  EXPECT_EQ(value_of("10 - 4 - 3"), 3);
  EXPECT_EQ(value_of("100 / 5 / 2"), 10);
  EXPECT_EQ(value_of("2 * -3 + 0.5"), -5.5);
  EXPECT_EQ(value_of("1.5e3"), 1500);
}

TEST(Expression, NamesFiguresAndCallsAreTheScopes) {
  EXPECT_EQ(value_of("abcd + [x.y]"), 14);
  EXPECT_EQ(value_of("f(word, 2, abc)"), 131);
  EXPECT_EQ(value_of("f(word + 0, 2)"), 120) << "only a bare word stands for itself";
}

TEST(Expression, KnowsMinMaxCeilAndFloor) {
  EXPECT_EQ(value_of("min(3, 1, 2) + max(3, 7)"), 8);
  EXPECT_EQ(value_of("ceil(2.1) - floor(2.9)"), 1);
}

TEST(Expression, AnOptionalFigureThatIsAbsentTakesTheWholeValueWithIt) {
  const auto parsed = parse_expression("1 + max([a.b?], 2)");
  ASSERT_TRUE(parsed);
  const auto value = evaluate(*parsed, counting_scope());
  ASSERT_TRUE(value);
  EXPECT_FALSE(*value);
}

TEST(Expression, ReadsTheNoteTheClaimAndTheRowOfAFigure) {
  const auto parsed = parse_expression("[fa-pool-2:tpot.baseline@8192?]");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(
      parsed->figure,
      (FigureName{.note = "fa-pool-2", .claim = "tpot.baseline", .row = "8192", .optional = true}));
}

TEST(Expression, AValueThatIsNotFiniteIsAnError) {
  const auto parsed = parse_expression("1 / 0");
  ASSERT_TRUE(parsed);
  const auto value = evaluate(*parsed, counting_scope());
  ASSERT_FALSE(value);
  EXPECT_NE(value.error().message.find("not finite"), std::string::npos);
}

TEST(Expression, AnErrorOfTheScopeIsThatOfTheValue) {
  const auto parsed = parse_expression("2 * missing");
  ASSERT_TRUE(parsed);
  EXPECT_FALSE(evaluate(*parsed, counting_scope()));
}

TEST(Expression, RefusesWhatItCannotReadAndSaysWhere) {
  for (const char* text : {"", "1 +", "(1", "1 2", "f(1", "f(1,)", "[a", "[]", "[note:]", "$",
                           "1..2", "A", "f(1))", "1e999"}) {
    const auto parsed = parse_expression(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().message.find("allowed"), std::string::npos) << text;
  }
  EXPECT_EQ(parse_expression("1 + ").error().message,
            "found the end at character 5, allowed a number, a name, \"[\" or \"(\"");
}

TEST(Expression, RefusesEndlessNestingAndLength) {
  EXPECT_FALSE(parse_expression(std::string(200, '(')));
  std::string signs(200, '-');
  EXPECT_FALSE(parse_expression(signs.append("1")));
  std::string calls;
  for (int i = 0; i < 100; ++i) calls += "f(";
  EXPECT_FALSE(parse_expression(calls));
  EXPECT_FALSE(parse_expression(std::string(kMaxExpressionLength + 1, '1')));
  std::string sum = "1";
  for (int i = 0; i < 400; ++i) sum += "+1";
  EXPECT_EQ(value_of(sum), 401);
}

}  // namespace
}  // namespace weir
