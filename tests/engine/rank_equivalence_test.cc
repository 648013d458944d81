// Law 1 with every device in a process of its own: strategies that use as many devices as there are
// ranks. Rank 0 runs the cases, the others follow it.
//
// WEIR_LAW1_SEED chooses other cases.

#include <cstdlib>
#include <numeric>
#include <span>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "exec/follower.h"
#include "tests/comm/rank_tests.h"
#include "tests/engine/equivalence_run.h"

namespace weir {
namespace {

constexpr int kCasesPerStrategy = 3;
constexpr int kMostDraws = 3000;

std::uint64_t first_seed() {
  const char* const text = std::getenv("WEIR_LAW1_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

// Cases may draw models that no config.json describes; ranks learn of a model from its folder and
// of a plan from its document.
bool can_be_written(const ModelSpec& model) {
  const auto read = model_from_config(config_of(model), model.name);
  return read && *read == model;
}

// The next case of the strategy with a device for every rank; nullopt where none of many draws is.
std::optional<EquivalenceCase> case_for_ranks(Random& random, std::string_view strategy) {
  for (int draw = 0; draw < kMostDraws; ++draw) {
    auto instance = draw_case(random, strategy);
    if (!instance) return std::nullopt;
    if (!can_be_written(instance->model)) continue;
    const auto made =
        make_strategy(instance->strategy, instance->options, instance->model, kCaseDevices);
    if (made->strategy->num_devices() == static_cast<std::int64_t>(test_ranks().size()))
      return instance;
  }
  return std::nullopt;
}

void say_to_all(const std::string& text) {
  for (std::size_t rank = 1; rank < test_ranks().size(); ++rank)
    test_ranks().send(rank, std::as_bytes(std::span(text)));
}

// Opens each model that rank 0 names, until it names none.
void follow_cases() {
  while (true) {
    const auto bytes = test_ranks().receive(0);
    const std::string folder(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (folder.empty()) return;
    const auto model = load_model_spec(folder);
    ASSERT_TRUE(model) << model.error().message;
    const auto checkpoint = Checkpoint::open(folder, *model);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    const Status followed =
        follow(test_ranks(), *checkpoint, *model, {.name = "device", .cores = {}});
    EXPECT_TRUE(followed) << followed.error().message;
  }
}

TEST(Law1EquivalenceOfRanks, AnyStrategyGivesTheSingleDeviceAnswer) {
  if (test_ranks().rank() != 0) {
    follow_cases();
    return;
  }
  for (const StrategyEntry& strategy : strategies()) {
    if (strategy.name == "single") continue;
    Random random(first_seed());
    for (int i = 0; i < kCasesPerStrategy; ++i) {
      const auto instance = case_for_ranks(random, strategy.name);
      ASSERT_TRUE(instance) << strategy.name;
      const SmallModel model(instance->model);
      say_to_all(model.folder());
      EXPECT_EQ(problem_of(*instance, model, &test_ranks()), std::nullopt) << to_string(*instance);
    }
  }
  say_to_all("");
}

TEST(Ranks, LoadTheirOwnSlicesOnly) {
  if (test_ranks().rank() != 0) {
    follow_cases();
    return;
  }
  ModelSpec spec = small_model_spec();
  spec.num_layers = 8;
  const SmallModel model(spec);
  const auto weights_of = [&](NamedStrategy strategy, Ranks* ranks) {
    SmallRun run(model, std::move(strategy), DType::f32, ranks);
    const std::vector<GenerationRequest> requests = {
        {.prompt = random_prompt(spec, 5, 1), .max_new_tokens = 1}};
    EXPECT_TRUE(run.generator().run(requests, {}));
    std::vector<std::int64_t> weights;
    for (const Executor::Held& device : run.executor().held()) weights.push_back(device.weights);
    return weights;
  };
  const std::int64_t all = weights_of(make_strategy("single", {}, spec).value(), nullptr).at(0);
  const std::string stages = std::to_string(test_ranks().size());
  say_to_all(model.folder());
  const std::vector<std::int64_t> parts = weights_of(
      make_strategy("tp_pp", {{"tp", "1"}, {"pp", stages}}, spec).value(), &test_ranks());
  say_to_all("");
  EXPECT_EQ(parts.size(), test_ranks().size());
  EXPECT_EQ(std::accumulate(parts.begin(), parts.end(), std::int64_t{0}), all);
  for (const std::int64_t part : parts) EXPECT_LT(part, all);
}

}  // namespace
}  // namespace weir
