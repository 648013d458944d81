#include "claims/recomputation.h"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/claims/notes_for_tests.h"

namespace weir {
namespace {

std::string claim(const std::string& unit, double claimed, const std::string& compute,
                  const std::string& more = "") {
  return fmt::format(R"({{"name": "a", "unit": "{}", "claimed": {}, "compute": "{}"{}}})", unit,
                     claimed, compute, more);
}

Finding only(const std::string& claims, const AssumptionValues& overrides = {}) {
  static Note note;  // Findings point into it.
  note = small_note(claims);
  const auto findings = judged(note, overrides);
  EXPECT_EQ(findings.size(), 1U);
  return findings.empty() ? Finding{} : findings[0];
}

double computed(const std::string& compute, const AssumptionValues& overrides = {}) {
  return only(claim("", 1, compute), overrides).computed.value_or(-1);
}

bool says(const Finding& finding, std::string_view part) {
  for (const std::string& reason : finding.reasons) {
    if (reason.find(part) != std::string::npos) return true;
  }
  return false;
}

TEST(Recomputation, AClaimOfWhatIsComputedHoldsWhateverTheFunction) {
  for (const char* compute :
       {"tpot(two, 256)", "tps(two, 256)", "prefill(two, 256)", "step(two, 256)",
        "comm_per_token(two, 256)", "share(two, all, attention, 256)",
        "memory(two, all, total, 256)", "gpus(pool, 256)", "pool(pool, 256)", "rule_pool(8192)",
        "best_pool(one, two, pool, one, 256)", "peak_watts(two, 256)", "mean_watts(two, 256)",
        "tokens_per_joule(two, 256)", "parameters(total)"}) {
    const Finding found = only(claim("", computed(compute), compute));
    EXPECT_EQ(found.verdict, Verdict::holds) << compute;
    EXPECT_NEAR(found.ratio.value_or(0), 1, 1e-4) << compute;
    const Finding off = only(claim("", 1.2 * computed(compute) + 1e-3, compute));
    EXPECT_NE(off.verdict, Verdict::holds) << compute;
  }
}

TEST(Recomputation, TimeThroughputAndTheirReadingsFitTogether) {
  const double prefill = computed("prefill(two, 256)");
  const double step = computed("step(two, 256)");
  EXPECT_NEAR(computed("tpot(two, 256)"), (prefill + 7 * step) / 8, 1e-12);
  EXPECT_EQ(computed("tpot(two, 256)", {{"tpot", "decode"}}), step);
  EXPECT_NEAR(computed("tpot(two, 256)", {{"tpot_tokens", "batch"}}), (prefill + 7 * step) / 32,
              1e-12);
  EXPECT_NEAR(computed("tps(two, 256)"), 4 * 256 / (prefill + 7 * step), 1e-3);
  EXPECT_NEAR(computed("tps(two, 256)", {{"tps_tokens", "output"}}), 32 / (prefill + 7 * step),
              1e-3);
  EXPECT_NEAR(computed("tps(two, 256)", {{"tps_tokens", "decode"}}), 4 / step, 1e-3);
}

TEST(Recomputation, EveryAssumptionOfTheRunChangesIt) {
  const double usual = computed("tpot(pool, 1024)");
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"batch_size", "8"},
                                                        {"output_len", "16"},
                                                        {"vocab_size", "64000"},
                                                        {"ffn", "plain"},
                                                        {"dtype", "f32"},
                                                        {"cluster", "a100-sxm-80gb"},
                                                        {"split", "heads"}}) {
    EXPECT_NE(computed("tpot(pool, 1024)", {{name, value}}), usual) << name;
  }
  EXPECT_EQ(computed("unstated_len", {{"unstated_len", "77"}}), 77);
}

TEST(Recomputation, SharesOfTimeAddUpToOne) {
  EXPECT_NEAR(computed("share(two, all, compute, 256) + share(two, all, overhead, 256) + "
                       "share(two, all, idle, 256)"),
              1, 1e-6);
}

TEST(Recomputation, MemoryFollowsFromTheShapes) {
  // K and V of 2 layers, 2 heads of 16, 4 sequences of 256 positions but the last, halved.
  EXPECT_EQ(computed("memory(two, all, kv_cache, 256)"), 4 * 255 * 2 * 2 * 2 * 16 * 2 / 2);
  EXPECT_EQ(computed("memory(one, all, weights, 256)"), 2 * computed("parameters(total)"));
  EXPECT_GE(computed("memory(two, all, total, 256)"),
            computed("memory(two, all, kv_cache, 256) + memory(two, all, weights, 256)"));
}

TEST(Recomputation, APoolIsSizedForTheLengthAndHasItsOwnDevices) {
  EXPECT_EQ(computed("gpus(pool, 100)"), 1);
  EXPECT_EQ(computed("gpus(pool, 101)"), 3);
  EXPECT_GT(computed("memory(pool, base, weights, 256)"), 0);
  EXPECT_EQ(computed("memory(pool, pool, weights, 256)"), 0);
  EXPECT_GT(computed("share(pool, pool, attention, 256)"), 0);
}

TEST(Recomputation, ATimeBelowWhatTheDevicesCanDoIsImpossible) {
  const Finding found = only(claim("s", 1e-12, "tpot(two, 256)"));
  EXPECT_EQ(found.verdict, Verdict::impossible);
  EXPECT_TRUE(says(found, "at least")) << found.reasons.front();
  EXPECT_TRUE(says(found, "2 at peak"));
  const Finding rate = only(claim("tokens/s", 1e15, "tps(two, 256)"));
  EXPECT_EQ(rate.verdict, Verdict::impossible);
  EXPECT_TRUE(says(rate, "at most"));
}

TEST(Recomputation, ABatchThatNoDeviceCanKeepIsImpossible) {
  nlohmann::json json = note_json(claim("s", 100, "tpot(baseline, 40960)"));
  json["model"] = "fa-pool-4l";
  json["assumptions"]["batch_size"]["value"] = 128;
  json["setups"] = *parse_json(R"({"baseline": {"strategy": "tp_pp", "options": {"tp": 2}}})", "t");
  // Expressions are checked against the setups: read again.
  const auto note = note_from_json(json);
  ASSERT_TRUE(note) << note.error().message;
  const auto findings = judged(*note);
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings[0].verdict, Verdict::impossible);
  EXPECT_TRUE(says(findings[0],
                   "memory: baseline needs 173 GB of weights and KV cache on a GPU of "
                   "85.9 GB"))
      << findings[0].reasons.front();
  EXPECT_EQ(judged(*note, {{"batch_size", "32"}})[0].verdict, Verdict::does_not_hold);
}

TEST(Recomputation, LimitsHoldToBothSides) {
  const auto with = [](double claimed, const std::string& upper) {
    return only(claim("GB", claimed, "2e9",
                      R"(, "limits": [{"value": "1e9", "says": "a limit", "is_upper": )" + upper +
                          "}]"))
        .verdict;
  };
  EXPECT_EQ(with(2, "true"), Verdict::impossible);
  EXPECT_EQ(with(2, "false"), Verdict::holds);
  EXPECT_EQ(with(0.5, "false"), Verdict::impossible);
  EXPECT_EQ(with(0.5, "true"), Verdict::does_not_hold);
}

TEST(Recomputation, AFigureThatItsOwnTableContradictsIsImpossible) {
  const std::string parts = R"({"name": "x", "unit": "GB", "claimed": 30, "unchecked": "part"},
                               {"name": "y", "unit": "GB", "claimed": 20, "unchecked": "part"},)";
  const auto total = [&](double claimed) {
    const Note note = small_note(
        parts + claim("GB", claimed, "100e9",
                      R"(, "agrees_with": [{"value": "[t.x] + [t.y]", "says": "its own sum"}])"));
    return judged(note).at(2);
  };
  EXPECT_EQ(total(50).verdict, Verdict::does_not_hold);
  EXPECT_EQ(total(65).verdict, Verdict::impossible);
  EXPECT_TRUE(says(total(65), "its own sum: 50 GB"));
  EXPECT_EQ(total(100).verdict, Verdict::holds);
  EXPECT_TRUE(says(total(100), "its own sum: 50 GB")) << "said all the same";
}

TEST(Recomputation, TheDirectionIsWhoWinsInTheRow) {
  const auto pair = [](double one, double two) {
    const Note note = small_note(fmt::format(
        R"({{"name": "a", "unit": "s", "claimed": {}, "compute": "1 + 0 * batch_size", "rival": "b"}},
           {{"name": "b", "unit": "s", "claimed": {}, "compute": "2", "rival": "a"}})",
        one, two));
    return judged(note).at(0).verdict;
  };
  EXPECT_EQ(pair(10, 30), Verdict::direction_holds);
  EXPECT_EQ(pair(30, 10), Verdict::does_not_hold);
  EXPECT_EQ(pair(10, 10), Verdict::does_not_hold) << "claimed even, computed not";
}

TEST(Recomputation, TheDirectionIsHowATableGoes) {
  nlohmann::json json = note_json("");
  json["tables"] = *parse_json(
      R"([{"name": "t", "title": "T", "row": "x",
           "columns": [{"name": "a", "unit": "s", "compute": "x", "trend": true}],
           "rows": [[1, 10], [2, 20], [3, 15]]}])",
      "test");
  const auto note = note_from_json(json);
  ASSERT_TRUE(note) << note.error().message;
  const auto findings = judged(*note);
  EXPECT_EQ(findings[0].verdict, Verdict::direction_holds);
  EXPECT_EQ(findings[1].verdict, Verdict::direction_holds);
  EXPECT_EQ(findings[2].verdict, Verdict::does_not_hold);
}

TEST(Recomputation, ARatioAndAGainSayWhoWins) {
  EXPECT_EQ(only(claim("x", 3, "2")).verdict, Verdict::direction_holds);
  EXPECT_EQ(only(claim("x", 1.04, "0.97")).verdict, Verdict::does_not_hold);
  EXPECT_EQ(only(claim("%", 20, "0.4", R"(, "gain": true)")).verdict, Verdict::direction_holds);
  EXPECT_EQ(only(claim("%", 20, "0 - 0.4", R"(, "gain": true)")).verdict, Verdict::does_not_hold);
}

TEST(Recomputation, WhatNoPlanCanTellIsUncheckedWithItsReason) {
  const Finding found =
      only(R"({"name": "a", "unit": "%", "claimed": 5, "unchecked": "says how runs scatter"})");
  EXPECT_EQ(found.verdict, Verdict::unchecked);
  EXPECT_TRUE(says(found, "says how runs scatter"));
}

TEST(Recomputation, LargePoolBatchesLieOnTheLineThroughSmallOnes) {
  const auto model = assumed_model("fa-pool-4l", *make_assumptions({}, "test"));
  ASSERT_TRUE(model);
  const SetupSpec pool{.strategy = "attention_pool",
                       .options = {{"tp", "4"}, {"pool", "4"}, {"pool_policy", "fixed"}}};
  const auto run = [&](const std::string& batch) {
    const auto setup =
        SimulatedSetup::make(*model, pool, *make_assumptions({{"batch_size", batch}}, "t"));
    EXPECT_TRUE(setup);
    RunCache runs;
    const auto result = setup->run(8192, runs);
    EXPECT_TRUE(result);
    return **result;
  };
  const SimulatedRun whole = run("64");
  EXPECT_FALSE(whole.is_drawn);
  const SimulatedRun drawn = run("128");
  EXPECT_TRUE(drawn.is_drawn);
  const SimulatedRun larger = run("192");
  EXPECT_NEAR(larger.total - drawn.total, drawn.total - whole.total, 1e-9 * drawn.total);
  EXPECT_DOUBLE_EQ(drawn.devices[7].kv_cache, 2 * whole.devices[7].kv_cache);
  EXPECT_DOUBLE_EQ(drawn.devices[0].weights, whole.devices[0].weights);
}

TEST(Recomputation, RunsAreSimulatedOnceForAllWhoAskForThem) {
  const Note note =
      small_note(claim("s", 1, "tpot(two, 256) + prefill(two, 256) + tpot(one, 256)"));
  RunCache runs;
  const std::vector<Note> notes = {note};
  ASSERT_TRUE(recompute(notes, note, {}, runs));
  EXPECT_EQ(runs.size(), 2U);
  ASSERT_TRUE(recompute(notes, note, {}, runs));
  EXPECT_EQ(runs.size(), 2U);
  ASSERT_TRUE(recompute(notes, note, {{"batch_size", "5"}}, runs));
  EXPECT_EQ(runs.size(), 4U);
}

TEST(Recomputation, WhatCannotBeRunIsAnErrorThatNamesTheClaim) {
  const auto error_of = [](const std::string& compute, const AssumptionValues& overrides = {}) {
    const Note note = small_note(claim("s", 1, compute));
    RunCache runs;
    const auto findings = recompute({note}, note, overrides, runs);
    return findings ? std::string() : findings.error().message;
  };
  EXPECT_NE(
      error_of("tpot(one, 8)").find("small: t.a: found sequences of 8 tokens, allowed 9..8192"),
      std::string::npos);
  EXPECT_NE(error_of("tpot(one, 1e30)").find("found sequences of 1e+30 tokens"), std::string::npos);
  EXPECT_NE(error_of("share(one, pool, compute, 64)").find("found no pool devices"),
            std::string::npos);
  EXPECT_NE(error_of("tpot(one, 64) / 0").find("not finite"), std::string::npos);
  EXPECT_NE(error_of("1", {{"cluster", "tpu"}}).find("cluster: "), std::string::npos);
}

TEST(Recomputation, RefusesOptionsThatTheStrategyDoesNotHave) {
  for (const char* options :
       {R"({"tp": 2, "speed": 9})", R"({"tp": "two"})", R"({"tp": "=wish"})"}) {
    nlohmann::json json = note_json("");
    json["setups"]["two"]["options"] = *parse_json(options, "test");
    const auto note = note_from_json(json);
    ASSERT_TRUE(note) << note.error().message;
    RunCache runs;
    const auto findings = recompute({*note}, *note, {}, runs);
    ASSERT_FALSE(findings) << options;
    EXPECT_EQ(findings.error().message.find("setup two: "), 0U) << findings.error().message;
  }
}

TEST(InUnit, WritesFiguresAsTheNotesDo) {
  EXPECT_EQ(in_unit(*find_unit("ms"), 0.0456), "45.6 ms");
  EXPECT_EQ(in_unit(*find_unit("%"), ClaimedRange{0.85, 0.9}), "85-90%");
  EXPECT_EQ(in_unit(*find_unit("x"), 2.1), "2.1x");
  EXPECT_EQ(in_unit(*find_unit("B"), 1.336e9), "1.34 B");
  EXPECT_EQ(in_unit(*find_unit("tokens/s"), 379088.4), "379088 tokens/s");
  EXPECT_EQ(in_unit(*find_unit(""), 3), "3");
}

}  // namespace
}  // namespace weir
