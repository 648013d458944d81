// Weir's logits against those of transformers, for every architecture, scaling of RoPE and stored
// dtype, however the model is split and the prompt is cut. make_reference_goldens.py writes the
// models and the answers.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "exec/executor.h"
#include "plan/validate.h"
#include "spec/model.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

// Of the range of a row of logits. transformers rounds the angles of RoPE to f32, which near
// position 4096 costs a phase of 2^-12 and is far more than either side's sums lose.
constexpr double kTolerance = 1e-4;
constexpr std::int64_t kGreedyTokens = 8;
constexpr std::int64_t kChunk = 300;

constexpr const char* kModels[] = {"llama2",     "llama3",       "llama_linear",   "llama_dynamic",
                                   "llama_yarn", "llama_biases", "llama_gelu",     "llama_bf16",
                                   "llama_f16",  "mistral",      "mistral_narrow", "qwen2",
                                   "qwen3",      "phi3",         "phi3_longrope"};

struct Split {
  const char* name;
  const char* strategy;
  OptionValues options;
};
const Split kSplits[] = {
    {.name = "single", .strategy = "single", .options = {}},
    {.name = "tp2", .strategy = "tp_pp", .options = {{"tp", "2"}}},
    {.name = "pp2", .strategy = "tp_pp", .options = {{"tp", "1"}, {"pp", "2"}}},
    {.name = "tp2_pp2",
     .strategy = "tp_pp",
     .options = {{"tp", "2"}, {"pp", "2"}, {"microbatches", "2"}}},
};

using Logits = std::vector<float>;
using Tokens = std::vector<std::int64_t>;

struct ExpectedRow {
  std::int64_t length = 0;
  std::int64_t position = 0;
  std::vector<double> logits;
};
struct ExpectedTokens {
  std::int64_t length = 0;
  Tokens tokens;
};
struct Golden {
  std::vector<ExpectedRow> rows;
  std::vector<ExpectedTokens> greedy;
};

std::string folder_of(const std::string& model) {
  return std::string(WEIR_SOURCE_DIR) + "/tests/reference/golden/" + model;
}

Golden read_golden(const std::string& model) {
  std::ifstream file(folder_of(model) + "/golden.json");
  const auto json = nlohmann::json::parse(file);
  Golden golden;
  for (const auto& row : json.at("last"))
    golden.rows.push_back({row.at("length"), row.at("length").get<std::int64_t>() - 1,
                           row.at("logits").get<std::vector<double>>()});
  for (const auto& row : json.at("middle"))
    golden.rows.push_back(
        {row.at("length"), row.at("position"), row.at("logits").get<std::vector<double>>()});
  for (const auto& tokens : json.at("greedy"))
    golden.greedy.push_back({tokens.at("length"), tokens.at("tokens").get<Tokens>()});
  return golden;
}

// As make_reference_goldens.py draws it.
Tokens prompt_of(std::int64_t length, std::int64_t vocab_size) {
  std::int64_t state = length;
  Tokens tokens(static_cast<std::size_t>(length));
  for (std::int64_t& token : tokens) {
    state = (1103515245 * state + 12345) % (std::int64_t{1} << 31);
    token = (state >> 16) % vocab_size;
  }
  return tokens;
}

std::int64_t best_of(std::span<const float> row) {
  return std::ranges::max_element(row) - row.begin();
}

// Largest deviation, as a part of the expected row's range.
double deviation(std::span<const float> found, const std::vector<double>& expected) {
  const auto [least, most] = std::ranges::minmax(expected);
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(found[i]) - expected[i]));
  return worst / (most - least);
}

// A batch of prompts under one strategy: prefilled in chunks, then continued.
class Batch {
 public:
  Batch(const std::string& model, const Split& split, const std::vector<std::int64_t>& lengths)
      : model_(load_model_spec(folder_of(model)).value()),
        checkpoint_(Checkpoint::open(folder_of(model), model_).value()),
        strategy_(make_strategy(split.strategy, split.options, model_).value().strategy) {
    ExecutorOptions options;
    for (std::int64_t i = 0; i < strategy_->num_devices(); ++i) {
      options.devices.push_back({.name = std::to_string(i), .cores = {}});
      header_.devices.push_back({.name = std::to_string(i), .memory_bytes = {}});
    }
    executor_ = Executor::make(checkpoint_, model_, options).value();
    header_.model = model_;
    for (const std::int64_t length : lengths) {
      sequences_.push_back(SequenceId{sequences_.size()});
      prompts_.push_back(prompt_of(length, model_.vocab_size));
      rope_lengths_.push_back(length <= 1000 ? length + kGreedyTokens : length);
      held_.push_back(0);
      header_.limits.push_back({.q_len = length, .kv_len = length + kGreedyTokens});
    }
  }

  // Logits of all positions of each prompt.
  std::vector<Logits> prefill(std::int64_t chunk) {
    header_.logits = LogitsWanted::all;
    const ValidPlan plan = make_plan();
    std::vector<Logits> logits(prompts_.size());
    while (true) {
      std::vector<std::span<const std::int64_t>> tokens;
      bool more = false;
      for (std::size_t i = 0; i < prompts_.size(); ++i) {
        const auto rest = std::span(prompts_[i]).subspan(static_cast<std::size_t>(held_[i]));
        const std::size_t count = std::min(rest.size(), static_cast<std::size_t>(chunk));
        tokens.emplace_back(rest.first(count));
        more = more || !rest.empty();
      }
      if (!more) return logits;
      const StepOutput output = run(plan, tokens);
      for (std::size_t i = 0; i < logits.size(); ++i)
        logits[i].insert(logits[i].end(), output.logits[i].begin(), output.logits[i].end());
    }
  }

  // Continues the requests for which `begun` holds the first new token, each up to kGreedyTokens;
  // the others rest.
  void continue_greedily(std::vector<Tokens>& begun) {
    header_.logits = LogitsWanted::last;
    const ValidPlan plan = make_plan();
    for (std::int64_t i = 1; i < kGreedyTokens; ++i) {
      std::vector<std::span<const std::int64_t>> tokens;
      for (const Tokens& sequence : begun)
        tokens.push_back(std::span(sequence).last(sequence.empty() ? 0 : 1));
      const StepOutput output = run(plan, tokens);
      for (std::size_t request = 0; request < begun.size(); ++request) {
        if (!begun[request].empty()) begun[request].push_back(best_of(output.logits[request]));
      }
    }
  }

  [[nodiscard]] std::size_t vocab_size() const {
    return static_cast<std::size_t>(model_.vocab_size);
  }

 private:
  ValidPlan make_plan() {
    auto plan = validate(lower(header_, strategy_->layouts(StepShape(prompts_.size()))));
    EXPECT_TRUE(plan) << (plan ? "" : plan.error().front());
    return *std::move(plan);
  }

  StepOutput run(const ValidPlan& plan, const std::vector<std::span<const std::int64_t>>& tokens) {
    StepInput input = {
        .lengths = {}, .sequences = sequences_, .tokens = tokens, .rope_lengths = rope_lengths_};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto q_len = static_cast<std::int64_t>(tokens[i].size());
      held_[i] += q_len;
      input.lengths.push_back({.q_len = q_len, .kv_len = held_[i]});
    }
    return executor_->run(plan, input, 0, nullptr).value();
  }

  ModelSpec model_;
  Checkpoint checkpoint_;
  std::unique_ptr<Strategy> strategy_;
  std::unique_ptr<Executor> executor_;
  PlanHeader header_;
  std::vector<SequenceId> sequences_;
  std::vector<Tokens> prompts_;
  std::vector<std::int64_t> rope_lengths_;
  std::vector<std::int64_t> held_;  // Positions in the KV cache.
};

void expect_golden(const std::string& model, const Split& split,
                   const std::vector<std::int64_t>& lengths, std::int64_t chunk) {
  const Golden golden = read_golden(model);
  Batch batch(model, split, lengths);
  const std::vector<Logits> logits = batch.prefill(chunk);
  std::vector<Tokens> tokens(lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    ASSERT_EQ(logits[i].size(), static_cast<std::size_t>(lengths[i]) * batch.vocab_size());
    for (const ExpectedRow& expected : golden.rows) {
      if (expected.length != lengths[i]) continue;
      const auto row = std::span(logits[i]).subspan(
          static_cast<std::size_t>(expected.position) * batch.vocab_size(), batch.vocab_size());
      EXPECT_LE(deviation(row, expected.logits), kTolerance)
          << "position " << expected.position << " of " << expected.length;
    }
    for (const ExpectedTokens& expected : golden.greedy) {
      if (expected.length == lengths[i])
        tokens[i] = {best_of(std::span(logits[i]).last(batch.vocab_size()))};
    }
  }
  batch.continue_greedily(tokens);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    for (const ExpectedTokens& expected : golden.greedy) {
      if (expected.length == lengths[i]) {
        EXPECT_EQ(tokens[i], expected.tokens) << "after " << expected.length;
      }
    }
  }
}

struct Case {
  const char* model;
  const Split* split;
};
std::vector<Case> cases() {
  std::vector<Case> cases;
  for (const char* model : kModels) {
    for (const Split& split : kSplits) cases.push_back({.model = model, .split = &split});
  }
  return cases;
}
void PrintTo(const Case& c, std::ostream* out) { *out << c.model << ' ' << c.split->name; }

class Reference : public testing::TestWithParam<Case> {};

TEST_P(Reference, GivesTheLogitsOfAMixedBatchAtOnce) {
  expect_golden(GetParam().model, *GetParam().split, {127, 4097, 1, 1000, 2}, 1 << 20);
}

TEST_P(Reference, GivesTheLogitsOfAMixedBatchInChunks) {
  expect_golden(GetParam().model, *GetParam().split, {127, 4097, 1, 1000, 2}, kChunk);
}

TEST_P(Reference, GivesTheLogitsOfAPromptAlone) {
  expect_golden(GetParam().model, *GetParam().split, {127}, 1 << 20);
}

INSTANTIATE_TEST_SUITE_P(Models, Reference, testing::ValuesIn(cases()),
                         [](const testing::TestParamInfo<Case>& test) {
                           return std::string(test.param.model) + "_" + test.param.split->name;
                         });

TEST(ReferenceGoldens, AreAllTested) {
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder_of("")))
    found.insert(entry.path().filename());
  EXPECT_EQ(found, std::set<std::string>(std::begin(kModels), std::end(kModels)));
}

}  // namespace
}  // namespace weir
