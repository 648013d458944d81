#include "base/json.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

TEST(Json, GathersEveryProblemWithItsPath) {
  const auto document =
      parse_json(R"({"a": -1, "b": "x", "nested": {"c": 1.5}, "extra": 0})", "f.json");
  ASSERT_TRUE(document);
  std::vector<std::string> problems;
  ObjectReader reader(*document, "spec", problems);
  EXPECT_EQ(reader.integer("a", {.min = 1, .max = 9}), 1);
  EXPECT_EQ(reader.integer("b", {.min = 0}), 0);
  EXPECT_EQ(reader.object("nested").integer("c", {}), 0);
  EXPECT_EQ(reader.integer("missing", {.min = 2, .max = 3}), 2);
  reader.refuse_unknown_keys();
  EXPECT_EQ(problems, (std::vector<std::string>{
                          "spec.a: found -1, allowed an integer in 1..9",
                          "spec.b: found \"x\", allowed an integer of at least 0",
                          "spec.nested.c: found 1.5, allowed an integer",
                          "spec.missing: missing, allowed an integer in 2..3",
                          "spec.extra: unknown key",
                      }));
}

TEST(Json, RefusesSyntaxErrorsOnOneLine) {
  const auto document = parse_json("{\"a\": 1,\n}", "f.json");
  ASSERT_FALSE(document);
  EXPECT_TRUE(document.error().message.starts_with("f.json: not valid JSON: "))
      << document.error().message;
  EXPECT_EQ(document.error().message.find('\n'), std::string::npos);
}

TEST(Json, RefusesDeepNesting) {
  const auto document = parse_json(std::string(100000, '['), "f.json");
  ASSERT_FALSE(document);
  EXPECT_EQ(document.error().message, "f.json: found nesting of depth 100000, allowed at most 64");
}

TEST(Json, KeepsMessagesOnOneLineWhateverTheKeys) {
  const auto document = parse_json(R"({"a\nb": 1})", "f.json");
  ASSERT_TRUE(document);
  std::vector<std::string> problems;
  ObjectReader reader(*document, "", problems);
  reader.refuse_unknown_keys();
  EXPECT_EQ(problems, (std::vector<std::string>{"a?b: unknown key"}));
}

TEST(Json, ReadsWholeNumbersWrittenAsFloats) {
  const auto document = parse_json(R"({"a": 4096.0, "b": 18446744073709551615})", "f.json");
  ASSERT_TRUE(document);
  std::vector<std::string> problems;
  ObjectReader reader(*document, "", problems);
  EXPECT_EQ(reader.integer("a", {}), 4096);
  EXPECT_EQ(reader.integer("b", {}), 0);
  EXPECT_EQ(problems.size(), 1U);
}

TEST(Json, NamesAFileThatCannotBeRead) {
  const auto document = read_json_file("/nonexistent/config.json");
  ASSERT_FALSE(document);
  EXPECT_EQ(document.error().message, "/nonexistent/config.json: cannot be opened for reading");
  EXPECT_FALSE(read_json_file("/tmp"));
}

}  // namespace
}  // namespace weir
