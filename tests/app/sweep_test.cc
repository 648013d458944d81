#include "app/sweep.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "app/sweep_page.h"
#include "checkpoint/preset.h"

namespace weir {
namespace {

PredictionInput tiny_on_h100s(const std::string& strategy) {
  return {.model = preset_model("tiny", {}).value(),
          .setup = {.strategy = {.name = strategy, .values = {}}, .cluster = "h100-sxm"},
          .requests = {.batch_size = 1, .prompt_len = 64, .output_len = 4}};
}

bool go_on(std::size_t /*done*/, std::size_t /*all*/) { return true; }

Sweep sweep_of(const PredictionInput& input, const std::vector<std::string>& texts) {
  const auto axes = parse_sweep(texts, input.setup.strategy);
  EXPECT_TRUE(axes.has_value()) << axes.error().message;
  auto sweep = run_sweep(input, *axes, go_on);
  EXPECT_TRUE(sweep.has_value()) << sweep.error().message;
  return *std::move(sweep);
}

std::string message_of(const std::vector<std::string>& texts, const StrategyChoice& choice) {
  const auto axes = parse_sweep(texts, choice);
  return axes ? "" : axes.error().message;
}

SweepPoint point(std::vector<std::int64_t> values, std::int64_t devices, double tpot, double ttft) {
  return {.values = std::move(values),
          .figures = SweepFigures{.num_devices = devices,
                                  .ttft = Seconds{ttft},
                                  .tpot = Seconds{tpot},
                                  .itl = Seconds{tpot}},
          .problem = {}};
}

TEST(Sweep, ComparesWithTheFewestDevicesThatFit) {
  Sweep sweep = {.axes = {{.name = "tp", .values = {1, 2, 4, 8}}},
                 .points = {point({1}, 1, 9, 9),
                            point({2}, 2, 8, 8),
                            point({4}, 4, 5, 4),
                            {.values = {8}, .figures = {}, .problem = "too many"}}};
  sweep.points[0].figures->shortage = "too large";
  compare_points(sweep);
  EXPECT_EQ(sweep.points[0].figures->speed_up, std::nullopt) << "it does not fit";
  EXPECT_EQ(sweep.points[1].figures->speed_up, 1.0);
  EXPECT_EQ(sweep.points[1].figures->efficiency, 1.0);
  EXPECT_EQ(sweep.points[2].figures->speed_up, 1.6);
  EXPECT_EQ(sweep.points[2].figures->efficiency, 0.8);
}

TEST(Sweep, ComparesOnlyPointsWithTheSameWork) {
  Sweep sweep = {.axes = {{.name = "seq", .values = {10, 20}}, {.name = "pool", .values = {0, 1}}},
                 .points = {point({10, 0}, 1, 2, 2), point({10, 1}, 2, 1, 3),
                            point({20, 0}, 1, 8, 8), point({20, 1}, 2, 8, 7)}};
  compare_points(sweep);
  EXPECT_EQ(sweep.groups(), (std::vector<std::vector<std::size_t>>{{0, 1}, {2, 3}}));
  EXPECT_EQ(sweep.points[1].figures->speed_up, 2.0);
  EXPECT_EQ(sweep.points[3].figures->speed_up, 1.0);
  const auto short_ones = best_of(sweep, {0, 1});
  EXPECT_EQ(short_ones->tpot, 1U);
  EXPECT_EQ(short_ones->ttft, 0U);
  const auto long_ones = best_of(sweep, {2, 3});
  EXPECT_EQ(long_ones->tpot, 2U) << "of equals, the one with fewer devices";
  EXPECT_EQ(long_ones->ttft, 3U);
}

TEST(Sweep, HasNoBestWhereNothingFits) {
  Sweep sweep = {.axes = {{.name = "tp", .values = {1}}}, .points = {point({1}, 1, 1, 1)}};
  sweep.points[0].figures->shortage = "too large";
  EXPECT_FALSE(best_of(sweep, {0}).has_value());
}

TEST(Sweep, PointsAreThoseOfSinglePredictions) {
  PredictionInput input = tiny_on_h100s("tp_pp");
  const Sweep sweep = sweep_of(input, {"tp=1..4", "batch=1,3"});
  ASSERT_EQ(sweep.points.size(), 6U);
  EXPECT_EQ(sweep.points[3].values, (std::vector<std::int64_t>{2, 3}));
  input.setup.strategy.values["tp"] = "2";
  input.requests.batch_size = 3;
  const auto alone = predict(input, Serving::no);
  ASSERT_TRUE(alone.has_value()) << alone.error().message;
  EXPECT_EQ(sweep.points[3].figures->num_devices, 2);
  EXPECT_EQ(sweep.points[3].figures->peak_bytes, alone->peak_bytes());
  EXPECT_EQ(sweep.points[3].figures->joules_per_token, alone->generation.joules_per_token());
}

TEST(Sweep, KeepsImpossiblePointsWithTheirReason) {
  const Sweep sweep = sweep_of(tiny_on_h100s("tp_pp"), {"tp=2,4096"});
  ASSERT_EQ(sweep.points.size(), 2U);
  EXPECT_TRUE(sweep.points[0].figures.has_value());
  EXPECT_FALSE(sweep.points[1].figures.has_value());
  EXPECT_NE(sweep.points[1].problem.find("--tp: found 4096, allowed 1.."), std::string::npos)
      << sweep.points[1].problem;
  EXPECT_NE(sweep_page(sweep).find("tp=4096: impossible: --tp: found 4096"), std::string::npos);
}

TEST(Sweep, FailsWhereNoPointIsPossible) {
  const PredictionInput input = tiny_on_h100s("tp_pp");
  const auto one_reason = run_sweep(input, {{.name = "seq", .values = {3, 4}}}, go_on);
  ASSERT_FALSE(one_reason.has_value());
  EXPECT_EQ(one_reason.error().message,
            "--sweep: found no possible point among 2, allowed at least one; seq=3: seq: found 3 "
            "with --output-len 4, allowed at least 5");
}

TEST(Sweep, OfALengthSharesItBetweenPromptAndOutput) {
  const PredictionInput input = tiny_on_h100s("single");
  const auto at = input_at(input, {{.name = "seq", .values = {100}}}, {100});
  ASSERT_TRUE(at.has_value());
  EXPECT_EQ(at->requests.prompt_len, 96);
  EXPECT_EQ(at->requests.output_len, 4);
  const auto both = input_at(
      input, {{.name = "seq", .values = {100}}, {.name = "output-len", .values = {30}}}, {100, 30});
  ASSERT_TRUE(both.has_value());
  EXPECT_EQ(both->requests.prompt_len, 70);
}

TEST(Sweep, OfAPoolFixesItsSizeUnlessAPolicyIsAskedFor) {
  PredictionInput input = tiny_on_h100s("attention_pool");
  const std::vector<SweepAxis> axes = {{.name = "pool", .values = {3}}};
  EXPECT_EQ(input_at(input, axes, {3})->setup.strategy.values,
            (OptionValues{{"pool", "3"}, {"pool_policy", "fixed"}}));
  input.setup.strategy.values["pool_policy"] = "linear";
  EXPECT_EQ(input_at(input, axes, {3})->setup.strategy.values,
            (OptionValues{{"pool", "3"}, {"pool_policy", "linear"}}));
}

TEST(Sweep, StopsWhenTold) {
  const PredictionInput input = tiny_on_h100s("tp_pp");
  const auto sweep = run_sweep(input, {{.name = "tp", .values = {1, 2, 4}}},
                               [](std::size_t done, std::size_t all) {
                                 EXPECT_EQ(all, 3U);
                                 return done < 2;
                               });
  ASSERT_TRUE(sweep.has_value());
  EXPECT_TRUE(sweep->interrupted);
  EXPECT_EQ(sweep->points.size(), 2U);
}

TEST(Sweep, AGridHasATablePerFigureAndTheBestOfEachLength) {
  const Sweep sweep = sweep_of(tiny_on_h100s("tp_pp"), {"seq=64..128", "tp=1..2"});
  const std::string page = sweep_page(sweep);
  for (const char* title :
       {"best tp by tpot", "ttft: tp \\ seq", "tpot: tp \\ seq", "itl: tp \\ seq",
        "efficiency: tp \\ seq", "speed-up: generation time of the baseline"}) {
    EXPECT_NE(page.find(title), std::string::npos) << title << "\n" << page;
  }
}

TEST(Sweep, OfLengthsAloneComparesNothing) {
  const Sweep sweep = sweep_of(tiny_on_h100s("single"), {"seq=64..128", "batch=1,2"});
  EXPECT_EQ(sweep_page(sweep).find("speed-up"), std::string::npos);
  EXPECT_EQ(sweep.points[0].figures->speed_up, std::nullopt);
  EXPECT_TRUE(sweep_to_json(sweep)["best"].empty());
}

TEST(Sweep, RefusesWhatCannotBeSweptTogether) {
  const StrategyChoice tp = {.name = "tp_pp", .values = {{"tp", "4"}}};
  EXPECT_EQ(message_of({"tp=1..8"}, tp), "--tp: found 4 with --sweep tp, allowed one of them");
  EXPECT_EQ(message_of({"seq=1000", "batch=1", "pp=1"}, tp), "--sweep: found 3 of them, allowed 2");
  EXPECT_EQ(message_of({"seq=1000", "seq=2000"}, tp),
            "--sweep: found seq and seq, allowed one of them");
  EXPECT_EQ(message_of({"prompt-len=1000", "seq=2000"}, tp),
            "--sweep: found prompt-len and seq, allowed one of them");
  EXPECT_EQ(message_of({"batch=1..100:1", "seq=1000..2000:10"}, tp),
            "--sweep: found 10100 points, allowed at most 4096");
}

}  // namespace
}  // namespace weir
