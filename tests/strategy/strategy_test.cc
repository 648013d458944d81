#include "strategy/strategy.h"

#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "plan/lower.h"
#include "plan/validate.h"

namespace weir {
namespace {

constexpr std::array<std::string_view, 2> kColours = {"red", "blue"};
constexpr std::array kSpecs = {
    OptionSpec{.name = "size", .help = "how many", .default_value = "3", .min = 1, .max = 8},
    OptionSpec{.name = "colour", .help = "which", .default_value = "blue", .choices = kColours}};

ModelSpec tiny_model() {
  return {.name = "tiny",
          .num_layers = 4,
          .hidden_size = 32,
          .intermediate_size = 64,
          .vocab_size = 96,
          .num_q_heads = 8,
          .num_kv_heads = 2,
          .head_dim = 4,
          .max_position = 256,
          .rope = {.rotary_dim = 4}};
}

std::string message_of(const OptionValues& values) {
  const auto options = Options::parse("toy", kSpecs, values);
  return options ? "" : options.error().message;
}

TEST(Options, HaveTheirDefaults) {
  const auto options = Options::parse("toy", kSpecs, {});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->number("size"), 3);
  EXPECT_EQ(options->choice("colour"), 1U);
  EXPECT_EQ(options->to_string(), "");
}

TEST(Options, TakeWhatIsGiven) {
  const auto options = Options::parse("toy", kSpecs, {{"colour", "red"}, {"size", "8"}});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->number("size"), 8);
  EXPECT_EQ(options->choice("colour"), 0U);
  EXPECT_EQ(options->to_string(), "size=8 colour=red");
}

TEST(Options, RefuseNumbersOutsideTheirLimitsAndWhatIsNoNumber) {
  for (const char* text : {"0", "9", "-1", "two", "2x", " 2", "", "2.0", "99999999999999999999"}) {
    EXPECT_EQ(message_of({{"size", text}}),
              fmt::format("--size: found {}, allowed an integer in 1..8", text));
  }
}

TEST(Options, RefuseOtherChoices) {
  EXPECT_EQ(message_of({{"colour", "green"}}), "--colour: found green, allowed one of: red, blue");
}

TEST(Options, RefuseWhatTheStrategyDoesNotHave) {
  EXPECT_EQ(message_of({{"shape", "round"}}),
            "--shape: strategy toy has no such option, allowed: size, colour");
  const auto none = Options::parse("plain", {}, {{"size", "1"}});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().message, "--size: strategy plain has no such option, allowed: none");
}

TEST(Options, NameEveryProblemAtOnce) {
  EXPECT_EQ(message_of({{"colour", "green"}, {"shape", "round"}, {"size", "0"}}),
            "--shape: strategy toy has no such option, allowed: size, colour; "
            "--size: found 0, allowed an integer in 1..8; "
            "--colour: found green, allowed one of: red, blue");
}

TEST(Strategies, HaveNamesThatAreFoundAndUsedOnce) {
  std::set<std::string_view> names;
  for (const StrategyEntry& entry : strategies()) {
    EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
    EXPECT_EQ(find_strategy(entry.name), &entry);
  }
  EXPECT_EQ(strategies().front().name, "single");  // The reference comes first.
  EXPECT_EQ(find_strategy("none"), nullptr);
}

TEST(Strategies, SayInThreeLinesWhatTheySplitWhatTheySendAndWhenTheyPay) {
  for (const StrategyEntry& entry : strategies()) {
    EXPECT_EQ(std::ranges::count(entry.help, '\n'), 2) << entry.name;
    const std::size_t first = entry.help.find('\n');
    EXPECT_NE(entry.help.substr(0, first).find("plits"), std::string_view::npos) << entry.name;
    EXPECT_TRUE(entry.help.substr(first + 1).starts_with("Sends")) << entry.name;
    const std::string_view last = entry.help.substr(entry.help.find('\n', first + 1) + 1);
    EXPECT_FALSE(last.empty()) << entry.name;
    EXPECT_TRUE(last.ends_with('.')) << entry.name;
  }
}

TEST(Strategies, HaveDefaultsWithinTheirOwnLimits) {
  for (const StrategyEntry& entry : strategies()) {
    EXPECT_TRUE(Options::parse(entry.name, entry.options, {}).has_value()) << entry.name;
    for (const OptionSpec& option : entry.options) {
      EXPECT_FALSE(option.help.empty()) << entry.name << " " << option.name;
      EXPECT_EQ(option.help.find('\n'), std::string_view::npos) << option.name;
    }
  }
}

// Three requests: a prompt, a decode and one that sits this step out.
std::vector<std::string> problems_of_plan(const NamedStrategy& named, const ModelSpec& model) {
  PlanHeader header = {.model = model, .strategy = named.label, .limits = {}, .devices = {}};
  StepShape step;
  for (const RequestLengths lengths :
       {RequestLengths{.q_len = 40, .kv_len = 40}, RequestLengths{.q_len = 1, .kv_len = 200},
        RequestLengths{.q_len = 0, .kv_len = 10}}) {
    header.limits.push_back(lengths);
    step.push_back({.past_len = lengths.kv_len - lengths.q_len,
                    .q_len = lengths.q_len,
                    .max_len = lengths.kv_len});
  }
  for (std::int64_t i = 0; i < named.strategy->num_devices(); ++i)
    header.devices.push_back({.name = fmt::format("device {}", i), .memory_bytes = {}});
  const auto valid = validate(lower(header, named.strategy->layouts(step)));
  return valid ? std::vector<std::string>{} : valid.error();
}

constexpr DeviceFacts kDevice = {.l2_bytes = 1 << 16, .l3_bytes = 1 << 20};

TEST(Strategies, WriteValidPlansWithTheirDefaultsAndWithEachChoice) {
  for (const StrategyEntry& entry : strategies()) {
    std::vector<OptionValues> settings = {{}};
    for (const OptionSpec& option : entry.options) {
      for (const std::string_view choice : option.choices)
        settings.push_back({{std::string(option.name), std::string(choice)}});
      if (option.name == "microbatches" || option.name == "pp")
        settings.push_back({{std::string(option.name), "2"}});
    }
    for (const OptionValues& values : settings) {
      const auto named = make_strategy(entry.name, values, tiny_model(), kDevice);
      ASSERT_TRUE(named) << entry.name << ": " << named.error().message;
      EXPECT_EQ(problems_of_plan(*named, tiny_model()), std::vector<std::string>{}) << named->label;
    }
  }
}

TEST(Strategies, GiveTheSameLayoutsForTheSameStep) {
  const StepShape step(2, {.past_len = 30, .q_len = 1, .max_len = 64});
  for (const StrategyEntry& entry : strategies()) {
    const auto named = make_strategy(entry.name, {}, tiny_model(), kDevice);
    ASSERT_TRUE(named) << entry.name;
    EXPECT_EQ(named->strategy->layouts(step), named->strategy->layouts(step)) << entry.name;
    EXPECT_EQ(hash_of(named->strategy->layouts(step)), hash_of(named->strategy->layouts(step)));
  }
}

TEST(MakeStrategy, LabelsItWithTheGivenOptions) {
  const auto named = make_strategy("tp_pp", {{"tp", "4"}}, tiny_model());
  ASSERT_TRUE(named);
  EXPECT_EQ(named->label, "tp_pp tp=4");
  const auto single = make_strategy("single", {}, tiny_model());
  ASSERT_TRUE(single);
  EXPECT_EQ(single->label, "single");
}

TEST(MakeStrategy, RefusesAnUnknownName) {
  std::vector<std::string_view> names;
  for (const StrategyEntry& entry : strategies()) names.push_back(entry.name);
  const auto named = make_strategy("magic", {}, tiny_model());
  ASSERT_FALSE(named);
  EXPECT_EQ(named.error().kind, ErrorKind::invalid_input);
  EXPECT_EQ(named.error().message,
            fmt::format("--strategy: found magic, allowed one of: {}", fmt::join(names, ", ")));
}

TEST(MakeStrategy, RefusesTheOptionsOfAnother) {
  const auto named = make_strategy("single", {{"tp", "2"}}, tiny_model());
  ASSERT_FALSE(named);
  EXPECT_EQ(named.error().message, "--tp: strategy single has no such option, allowed: none");
}

}  // namespace
}  // namespace weir
