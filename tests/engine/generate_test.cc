#include "engine/generate.h"

#include <algorithm>
#include <atomic>

#include <gtest/gtest.h>

#include "engine/check.h"
#include "result/timeline_check.h"
#include "tests/engine/small_model.h"

namespace weir {
namespace {

class Generate : public testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = std::make_unique<SmallModel>(); }
  static void TearDownTestSuite() { model_.reset(); }

  static GenerationRequest request(std::int64_t prompt_len, std::int64_t max_new_tokens,
                                   std::uint64_t seed = 1) {
    return {.prompt = random_prompt(model_->spec(), prompt_len, seed),
            .max_new_tokens = max_new_tokens};
  }
  static Generation run(const std::vector<GenerationRequest>& requests,
                        const GenerationOptions& options = {.keep_logits = true}) {
    SmallRun single(*model_, "single");
    auto generation = single.generator().run(requests, options);
    EXPECT_TRUE(generation) << generation.error().message;
    return *std::move(generation);
  }
  static std::string error_of(const std::vector<GenerationRequest>& requests,
                              const GenerationOptions& options = {}) {
    SmallRun single(*model_, "single");
    const auto generation = single.generator().run(requests, options);
    EXPECT_FALSE(generation);
    return generation ? "" : generation.error().message;
  }
  static double tolerance() { return run_tolerance(model_->spec(), {}, 512); }

  inline static std::unique_ptr<SmallModel> model_;
};

TEST_F(Generate, GivesAsManyTokensAsWereAskedFor) {
  const Generation generation = run({request(7, 5), request(3, 1), request(4, 0)});
  ASSERT_EQ(generation.outputs.size(), 3U);
  EXPECT_EQ(generation.outputs[0].tokens.size(), 5U);
  EXPECT_EQ(generation.outputs[1].tokens.size(), 1U);
  EXPECT_EQ(generation.outputs[2].tokens.size(), 0U);
  for (const GenerationOutput& output : generation.outputs) {
    EXPECT_EQ(output.finish, FinishReason::length);
    EXPECT_EQ(output.logits.size(), output.tokens.size());
  }
  EXPECT_FALSE(generation.cancelled);
}

TEST_F(Generate, ChunkedPrefillGivesTheSameAsAWholeOne) {
  const std::vector<GenerationRequest> requests = {request(50, 6)};
  const Generation whole = run(requests, {.prefill_chunk = 64, .keep_logits = true});
  for (const std::int64_t chunk : {1, 7, 49, 50}) {
    const Generation chunked = run(requests, {.prefill_chunk = chunk, .keep_logits = true});
    const Comparison comparison = compare(whole, chunked, requests, tolerance());
    EXPECT_TRUE(comparison.agrees()) << chunk << ": " << comparison.first_problem.value_or("");
    EXPECT_EQ(comparison.tokens_compared, 6);
  }
}

TEST_F(Generate, ABatchGivesWhatItsRequestsGiveAlone) {
  const std::vector<GenerationRequest> requests = {request(3, 8, 1), request(40, 2, 2),
                                                   request(17, 5, 3)};
  const Generation together = run(requests, {.prefill_chunk = 16, .keep_logits = true});
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const std::vector<GenerationRequest> alone = {requests[i]};
    Generation part;
    part.outputs = {together.outputs[i]};
    const Comparison comparison = compare(run(alone), part, alone, tolerance());
    EXPECT_TRUE(comparison.agrees()) << i << ": " << comparison.first_problem.value_or("");
  }
}

TEST_F(Generate, DecodingContinuesAsPrefillingTheSameTokensWould) {
  const std::vector<GenerationRequest> requests = {request(9, 6)};
  const Generation decoded = run(requests);
  GenerationRequest longer = requests[0];
  const std::vector<std::int64_t>& tokens = decoded.outputs[0].tokens;
  longer.prompt.insert(longer.prompt.end(), tokens.begin(), tokens.end() - 1);
  longer.max_new_tokens = 1;
  const Generation prefilled = run({longer});
  EXPECT_EQ(prefilled.outputs[0].tokens[0], tokens.back());
}

TEST_F(Generate, AStopTokenEndsItsRequestAndNoOther) {
  const std::vector<GenerationRequest> free = {request(5, 6, 1), request(8, 6, 2)};
  const Generation unstopped = run(free);
  std::vector<GenerationRequest> requests = free;
  requests[0].stop_ids = {unstopped.outputs[0].tokens[2]};
  const Generation stopped = run(requests);
  const auto& all = unstopped.outputs[0].tokens;
  const auto first = std::ranges::find(all, all[2]);
  EXPECT_EQ(stopped.outputs[0].tokens, std::vector(all.begin(), first + 1));
  EXPECT_EQ(stopped.outputs[0].finish, FinishReason::stop);
  EXPECT_EQ(stopped.outputs[1].tokens, unstopped.outputs[1].tokens);
  EXPECT_EQ(stopped.outputs[1].finish, FinishReason::length);
}

TEST_F(Generate, AReaderOfTokensCanEndARequest) {
  std::vector<std::int64_t> seen;
  const Generation generation =
      run({request(5, 6)}, {.on_token = [&](std::size_t, std::int64_t token) {
            seen.push_back(token);
            return seen.size() == 2 ? AfterToken::stop : AfterToken::go_on;
          }});
  EXPECT_EQ(generation.outputs[0].tokens, seen);
  EXPECT_EQ(seen.size(), 2U);
  EXPECT_EQ(generation.outputs[0].finish, FinishReason::stop);
}

TEST_F(Generate, ForcedTokensAreFedAndTheChosenOnesReported) {
  const std::vector<GenerationRequest> requests = {request(6, 4)};
  const Generation free = run(requests);
  std::vector<GenerationRequest> forced = forced_to_follow(requests, free);
  EXPECT_TRUE(compare(free, run(forced), requests, tolerance()).agrees());
  forced[0].forced[0] = (forced[0].forced[0] + 1) % model_->spec().vocab_size;
  const Generation other = run(forced);
  EXPECT_EQ(other.outputs[0].tokens[0], free.outputs[0].tokens[0]);
  EXPECT_NE(other.outputs[0].logits[1], free.outputs[0].logits[1]);
}

TEST_F(Generate, CancellingKeepsWhatThereIs) {
  std::atomic<bool> cancel{false};
  const Generation generation = run({request(5, 100, 1), request(5, 1, 2)},
                                    {.cancel = &cancel, .on_token = [&](std::size_t, std::int64_t) {
                                       static int seen = 0;
                                       if (++seen == 4) cancel = true;
                                       return AfterToken::go_on;
                                     }});
  EXPECT_TRUE(generation.cancelled);
  EXPECT_EQ(generation.outputs[0].finish, FinishReason::cancelled);
  EXPECT_EQ(generation.outputs[0].tokens.size(), 3U);
  EXPECT_EQ(generation.outputs[1].finish, FinishReason::length);
}

TEST_F(Generate, SampledTokensDependOnTheSeedAndNotOnTheBatch) {
  const auto sampled = [](std::uint64_t seed) {
    GenerationRequest r = request(5, 12);
    r.sampling = {.temperature = 1, .top_k = 50, .top_p = 0.95, .seed = seed};
    return r;
  };
  const std::vector<std::int64_t> tokens = run({sampled(3)}).outputs[0].tokens;
  EXPECT_EQ(run({sampled(3), request(30, 4)}).outputs[0].tokens, tokens);
  EXPECT_NE(run({sampled(4)}).outputs[0].tokens, tokens);
}

TEST_F(Generate, RecordsASoundTimeline) {
  const Generation generation = run({request(10, 3), request(4, 2)}, {.prefill_chunk = 4});
  const Timeline& timeline = generation.timeline;
  EXPECT_EQ(problems_of(timeline), std::vector<std::string>{});
  ASSERT_EQ(timeline.steps.size(), 5U);  // Chunks of 4, 4, 2; then 2 and 1 requests decode.
  EXPECT_EQ(generation.planning_times.size(), 5U);
  std::vector<std::int64_t> new_tokens;
  for (const StepRecord& step : timeline.steps) new_tokens.push_back(step.new_tokens);
  EXPECT_EQ(new_tokens, (std::vector<std::int64_t>{1, 0, 1, 2, 1}));
  EXPECT_TRUE(timeline.steps[2].prefill);
  EXPECT_FALSE(timeline.steps[3].prefill);
  EXPECT_EQ(timeline.requests[0].token_times.size(), 3U);
  EXPECT_EQ(timeline.requests[1].input_tokens, 4);
  EXPECT_FALSE(timeline.tasks.empty());
}

TEST_F(Generate, PlansOnceForAllDecodeSteps) {
  const Generation generation = run({request(10, 40)});
  // Prefill with logits, decode.
  EXPECT_EQ(generation.planning.plans, 2);
  EXPECT_GE(generation.planning.lookups, 40);
}

// Half of the steps spend less.
double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

TEST(Law9Planning, ADecodeStepSpendsUnderOnePercentOfItsTimeOnPlanning) {
  ModelSpec spec = small_model_spec();  // Widened until a step takes as long as a small real one.
  spec.hidden_size = 256;
  spec.intermediate_size = 1024;
  const SmallModel model(spec);
  for (const OptionValues& degrees :
       {OptionValues{{"tp", "2"}}, OptionValues{{"tp", "1"}, {"pp", "2"}}}) {
    SmallRun split(model, "tp_pp", degrees);
    const std::vector<GenerationRequest> requests = {
        {.prompt = random_prompt(spec, 8, 1), .max_new_tokens = 60}};
    const auto generation = split.generator().run(requests, {.record_tasks = false});
    ASSERT_TRUE(generation) << generation.error().message;
    std::vector<double> planning;
    std::vector<double> running;
    for (std::size_t i = 0; i < generation->timeline.steps.size(); ++i) {
      const StepRecord& step = generation->timeline.steps[i];
      if (step.prefill) continue;
      planning.push_back(to_seconds(generation->planning_times[i]));
      running.push_back(to_seconds(step.end - step.start));
    }
    ASSERT_EQ(planning.size(), 59U);
    EXPECT_LT(median(planning), 0.01 * median(running)) << split.label();
    EXPECT_EQ(generation->planning.plans, 2);
  }
}

TEST_F(Generate, ReleasesTheCacheOfEveryRequest) {
  SmallRun single(*model_, "single");
  ASSERT_TRUE(single.generator().run(std::vector{request(20, 3)}, {}));
  const std::int64_t first = single.executor().held()[0].kv_cache;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(single.generator().run(std::vector{request(20, 3)}, {}));
  EXPECT_EQ(single.executor().held()[0].kv_cache, first);
}

TEST_F(Generate, RefusesWhatTheModelCannotServe) {
  EXPECT_EQ(error_of({}), "requests: found none, allowed at least 1");
  EXPECT_EQ(error_of({request(3, 1), request(0, 1)}),
            "requests[1].prompt: found 0 tokens, allowed at least 1");
  EXPECT_EQ(error_of({request(513, 1)}),
            "requests[0].prompt: found 513 tokens, allowed 1..512 (max_position)");
  EXPECT_EQ(error_of({request(500, 13)}),
            "requests[0].max_new_tokens: found 13, allowed 0..12 (max_position 512, prompt 500)");
  GenerationRequest outside = request(3, 1);
  outside.prompt[2] = 300;
  EXPECT_EQ(error_of({outside}),
            "requests[0].prompt[2]: found token 300, allowed 0..299 (vocab_size 300)");
  EXPECT_EQ(error_of({request(3, 1)}, {.prefill_chunk = 0}),
            "prefill_chunk: found 0, allowed 1..1048576");
  EXPECT_EQ(error_of({request(3, 1)}, {.in_flight = 9}), "in_flight: found 9, allowed 1..8");
  GenerationRequest unlikely = request(3, 1);
  unlikely.sampling.top_p = 0;
  EXPECT_EQ(error_of({unlikely}),
            "requests[0].sampling: top_p: found 0, allowed a number above 0 and up to 1");
}

TEST_F(Generate, GroupsInFlightGiveWhatOneBatchGives) {
  const std::vector<GenerationRequest> requests = {
      request(30, 9, 1), request(3, 2, 2), request(17, 12, 3), request(5, 0, 4), request(21, 7, 5)};
  const Generation together = run(requests);
  for (const std::int64_t groups : {2, 3, 8}) {
    SmallRun stages(*model_, "tp_pp", {{"tp", "1"}, {"pp", "2"}});
    const auto apart =
        stages.generator().run(forced_to_follow(requests, together),
                               {.prefill_chunk = 8, .in_flight = groups, .keep_logits = true});
    ASSERT_TRUE(apart) << apart.error().message;
    const Comparison comparison = compare(together, *apart, requests, tolerance());
    EXPECT_TRUE(comparison.agrees()) << groups << ": " << comparison.first_problem.value_or("");
    EXPECT_EQ(problems_of(apart->timeline), std::vector<std::string>{});
    const auto& steps = apart->timeline.steps;
    EXPECT_TRUE(std::ranges::adjacent_find(steps, [](const StepRecord& a, const StepRecord& b) {
                  return b.start < a.end;
                }) != steps.end());
    EXPECT_EQ(apart->planning_times.size(), steps.size());
  }
}

TEST_F(Generate, GroupsInFlightCanBeCancelled) {
  std::atomic<bool> cancel = false;
  GenerationOptions options{.in_flight = 3, .cancel = &cancel};
  std::int64_t tokens = 0;
  options.on_token = [&](std::size_t, std::int64_t) {
    if (++tokens == 5) cancel = true;
    return AfterToken::go_on;
  };
  const Generation generation =
      run({request(9, 50, 1), request(4, 50, 2), request(6, 50, 3)}, options);
  EXPECT_TRUE(generation.cancelled);
  EXPECT_LT(tokens, 10);
}

TEST_F(Generate, GroupsInFlightHoldTheirCachesAtTheSameTime) {
  SmallRun single(*model_, "single");
  const std::vector<GenerationRequest> requests = {request(200, 50, 1), request(150, 100, 2)};
  const auto together = single.generator().run(requests, {});
  const auto apart = single.generator().run(requests, {.in_flight = 2});
  ASSERT_TRUE(together && apart);
  EXPECT_EQ(apart->memory[0].kv_cache, together->memory[0].kv_cache);

  PlanHeader header = single.header();
  header.devices[0].memory_bytes = apart->memory[0].total() - 1;
  Generator tight(single.executor(), single.strategy(), header);
  const auto refused = tight.run(requests, {.in_flight = 2});
  ASSERT_FALSE(refused);
  EXPECT_EQ(
      refused.error().message.rfind("in_flight: found 2, with which device 0 (device0) needs", 0),
      0U)
      << refused.error().message;
}

TEST_F(Generate, RefusesABatchThatWillNotFitBeforeItBegins) {
  SmallRun single(*model_, "single");
  PlanHeader header = single.header();
  header.devices[0].memory_bytes = 300'000;  // Weights take less, 400 positions of KV more.
  Generator generator(single.executor(), single.strategy(), header);
  const auto generation = generator.run(std::vector{request(5, 400)}, {});
  ASSERT_FALSE(generation);
  EXPECT_EQ(generation.error().kind, ErrorKind::invalid_input);
  EXPECT_NE(generation.error().message.find("memory of device 0"), std::string::npos)
      << generation.error().message;
}

}  // namespace
}  // namespace weir
