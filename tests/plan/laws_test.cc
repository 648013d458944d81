#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>

#include "tests/plan/broken_plans.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

// The laws of ARCHITECTURE.md that plans can be held against by themselves. Law 2 and 3 have their
// property tests in validate_property_test.cc, law 5 its own in transfers_test.cc.

TEST(Law2Order, EveryCollectiveStandsOnceInTheQueueOfEachMember) {
  const Plan plan = tensor_pipeline_plan(
      {.tp = 2, .pp = 2, .microbatches = 3, .limits = StepLengths(3, {.q_len = 2, .kv_len = 6})});
  for (std::uint32_t i = 0; i < plan.nodes.size(); ++i) {
    if (queue_of(plan.at(NodeId{i}).kind) != Queue::comm) continue;
    for (std::uint32_t device = 0; device < plan.devices.size(); ++device) {
      const auto& members = plan.at(plan.at(NodeId{i}).devices);
      EXPECT_EQ(std::ranges::count(plan.devices[device].comm, NodeId{i}),
                std::ranges::count(members, DeviceId{device}));
    }
  }
}

TEST(Law3Validity, OnlyValidateMakesAValidPlan) {
  static_assert(!std::is_default_constructible_v<ValidPlan>);
  static_assert(!std::is_constructible_v<ValidPlan, Plan>);
  const Plan plan = tensor_pipeline_plan({.tp = 2});
  const auto valid = validate(plan);
  ASSERT_TRUE(valid);
  EXPECT_EQ(valid->plan(), plan);
}

// Identifiers of a source, comments left out.
std::vector<std::string> words_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<std::string> words;
  for (std::string line; std::getline(file, line);) {
    line.resize(std::min(line.size(), line.find("//")));
    std::string word;
    for (const char c : line + ' ') {
      if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_') {
        word += c;
      } else if (!word.empty()) {
        words.push_back(std::exchange(word, {}));
      }
    }
  }
  return words;
}

TEST(Law4NoSeconds, PlansLayoutsAndStrategiesKnowNoTime) {
  constexpr std::array kTimes = {"Seconds", "SimTime", "chrono",        "BytesPerSecond",
                                 "seconds", "time",    "FlopsPerSecond"};
  std::size_t sources = 0;
  for (const char* folder : {"plan", "layout", "strategy"}) {
    const auto root = std::filesystem::path(WEIR_SOURCE_DIR) / "src" / folder;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      if (entry.path().extension() != ".h" && entry.path().extension() != ".cc") continue;
      ++sources;
      for (const std::string& word : words_of(entry.path()))
        EXPECT_EQ(std::ranges::find(kTimes, word), kTimes.end()) << entry.path() << ": " << word;
    }
  }
  EXPECT_GE(sources, 30U);
}

TEST(Law7Determinism, TheSameInputGivesTheSamePlanAndTheSameOrder) {
  const TensorPipelineCase choice = {
      .tp = 2, .pp = 2, .microbatches = 2, .limits = StepLengths(2, {.q_len = 2, .kv_len = 6})};
  const auto first = validate(tensor_pipeline_plan(choice));
  const auto second = validate(tensor_pipeline_plan(choice));
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->plan(), second->plan());
  EXPECT_TRUE(std::ranges::equal(first->topological_order(), second->topological_order()));
}

}  // namespace
}  // namespace weir
