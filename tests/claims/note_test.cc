#include "claims/note.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/claims/notes_for_tests.h"

namespace weir {
namespace {

std::string error_of(const nlohmann::json& json) {
  const auto note = note_from_json(json);
  return note ? "" : note.error().message;
}
std::string claim_error(const std::string& claims) { return error_of(note_json(claims)); }

void expect_error(const std::string& message, std::string_view part) {
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(NoteReader, ReadsAClaimInItsUnit) {
  const Note note = small_note(
      R"json({"name": "a", "says": "in words", "unit": "ms", "claimed": 45,
              "compute": "tpot(one, 64)"})json");
  ASSERT_EQ(note.claims.size(), 1U);
  const Claim& claim = note.claims[0];
  EXPECT_EQ(claim.id(), "t.a");
  EXPECT_EQ(claim.says, "in words");
  EXPECT_DOUBLE_EQ(claim.claimed.low, 0.045);
  EXPECT_TRUE(claim.compute);
}

TEST(NoteReader, ReadsRangesAndTablesWithRowsAndEmptyCells) {
  nlohmann::json json = note_json("");
  json["tables"] = *parse_json(
      R"json([{"name": "t", "title": "T", "row": "seq_len",
               "columns": [{"name": "a", "unit": "GPUs", "compute": "rule_pool(seq_len)"},
                           {"name": "b", "unit": "%", "unchecked": "because"}],
               "rows": [[512, 0, [85, 90]], [8192, 8, null]]}])json",
      "test");
  const auto note = note_from_json(json);
  ASSERT_TRUE(note) << note.error().message;
  ASSERT_EQ(note->claims.size(), 3U);
  EXPECT_EQ(note->claims[0].id(), "t.a@512");
  EXPECT_EQ(note->claims[1].claimed, (ClaimedRange{0.85, 0.90}));
  EXPECT_EQ(find_claim(*note, "t.b", "8192"), nullptr);
  EXPECT_EQ(find_claim(*note, "t.a", "8192")->variables.at("seq_len"), 8192);
}

TEST(NoteReader, RefusesNamesThatNothingStandsFor) {
  const auto with = [](const std::string& compute) {
    return claim_error(R"json({"name": "a", "unit": "s", "claimed": 1, "compute": ")json" +
                       compute + "\"}");
  };
  expect_error(with("tpot(three, 64)"), "found three, allowed as a setup: one, pool, two");
  expect_error(with("speed(one, 64)"), "found the function speed of 2, allowed tpot, tps");
  expect_error(with("tpot(one)"), "found tpot with 1 arguments, allowed 2");
  expect_error(with("share(one, all, thinking, 64)"), "found thinking, allowed as a share of time");
  expect_error(with("memory(one, cellar, weights, 64)"), "found cellar, allowed as devices");
  expect_error(with("tpot(one, seq_len)"),
               "found the name seq_len, allowed tokens_per_tpot, batch_size");
  expect_error(with("parameters(soul)"), "found soul, allowed as a part of the model");
  expect_error(with("tpot(one, 64"), "found the end");
}

TEST(NoteReader, RefusesFiguresThatAreNone) {
  expect_error(
      claim_error(R"json({"name": "a", "unit": "s", "claimed": "fast", "unchecked": "x"})json"),
      "claimed: allowed a number or [lowest, highest]");
  expect_error(
      claim_error(R"json({"name": "a", "unit": "s", "claimed": [2, 1], "unchecked": "x"})json"),
      "claimed: allowed a number or [lowest, highest]");
  expect_error(
      claim_error(R"json({"name": "a", "unit": "furlongs", "claimed": 1, "unchecked": "x"})json"),
      "unit: found \"furlongs\"");
  expect_error(claim_error(R"json({"name": "a", "unit": "s", "claimed": 1})json"),
               "unchecked: found nothing");
  expect_error(
      claim_error(R"json({"name": "A b", "unit": "s", "claimed": 1, "unchecked": "x"})json"),
      "name: found \"A b\"");
  expect_error(
      claim_error(
          R"json({"name": "a", "unit": "s", "claimed": 1, "unchecked": "x", "more": 1})json"),
      "more");
}

TEST(NoteReader, RefusesTheSameFigureTwiceAndARivalThatIsNot) {
  const std::string one = R"json({"name": "a", "unit": "s", "claimed": 1, "unchecked": "x"})json";
  expect_error(claim_error(one + "," + one), "found t.a twice");
  expect_error(
      claim_error(
          R"json({"name": "a", "unit": "s", "claimed": 1, "unchecked": "x", "rival": "b"})json"),
      "t.a.rival: found t.b");
}

TEST(NoteReader, RefusesRowsThatDoNotFitTheColumns) {
  nlohmann::json json = note_json("");
  json["tables"] = *parse_json(
      R"json([{"name": "t", "title": "T", "row": "seq_len",
           "columns": [{"name": "a", "unit": "s", "unchecked": "x"}],
           "rows": [[1, 2, 3], ["one", 2], [1, "two"], 7]}])json",
      "test");
  const std::string error = error_of(json);
  expect_error(error, "found an array of 3, allowed a number and 1 cells");
  expect_error(error, "found \"two\", allowed null, a number or [lowest, highest]");
}

TEST(NoteReader, RefusesNamesThatAlreadyMeanSomething) {
  nlohmann::json json = note_json("");
  json["setups"]["a-b"] = json["setups"]["one"];
  json["setups"]["batch_size"] = json["setups"]["one"];
  json["tables"] = *parse_json(
      R"json([{"name": "t", "title": "T", "row": "one", "columns": [], "rows": [[1]]}])json",
      "test");
  const std::string error = error_of(json);
  expect_error(error, "note.setups: found the name \"a-b\"");
  expect_error(error, "note.setups: found the name \"batch_size\"");
  expect_error(error, ".row: found the name \"one\"");
}

TEST(NoteReader, RefusesModelsStrategiesAndAssumptionsThatThereAreNot) {
  nlohmann::json json = note_json("");
  json["model"] = "gpt-9";
  json["setups"]["one"]["strategy"] = "magic";
  json["assumptions"]["batch_size"]["value"] = 0;
  expect_error(error_of(json), "note.assumptions.batch_size: found 0");
  json["assumptions"]["batch_size"]["value"] = 4;
  const std::string error = error_of(json);
  expect_error(error, "note.model: preset: found \"gpt-9\"");
  expect_error(error, "note.setups.one.strategy: found magic, allowed single");
}

TEST(NoteReader, RefusesWhatIsNoObject) {
  for (const char* text : {"[]", "1", "null", R"({"setups": 1, "assumptions": []})"}) {
    const auto json = parse_json(text, "test");
    ASSERT_TRUE(json);
    EXPECT_FALSE(note_from_json(*json)) << text;
  }
}

TEST(NoteReader, AFigureThatNoNoteHasIsNamed) {
  const Note note = small_note(
      R"json({"name": "a", "unit": "s", "claimed": 1, "compute": "[t.b] + [other:t.c] + [t.a]"})json");
  const auto status = check_figures({note});
  ASSERT_FALSE(status);
  expect_error(status.error().message, "small: t.a: found the figure [t.b], which no note has");
  expect_error(status.error().message, "[other:t.c]");
  EXPECT_EQ(status.error().message.find("[t.a]"), std::string::npos);
}

}  // namespace
}  // namespace weir
