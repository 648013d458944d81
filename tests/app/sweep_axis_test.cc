#include "app/sweep_axis.h"

#include <array>

#include <gtest/gtest.h>

namespace weir {
namespace {

using Values = std::vector<std::int64_t>;

constexpr std::array kNames = {
    SweepName{.name = "seq", .min = 2, .max = std::int64_t{1} << 31},
    SweepName{.name = "output-len", .min = 1, .max = 1 << 20},
    SweepName{.name = "pool", .min = 0, .max = 65536, .one_by_one = true},
};

Values values_of(std::string_view text) {
  const auto axis = parse_sweep_axis(text, kNames);
  EXPECT_TRUE(axis.has_value()) << axis.error().message;
  return axis ? axis->values : Values{};
}

std::string message_of(std::string_view text) {
  const auto axis = parse_sweep_axis(text, kNames);
  return axis ? "" : axis.error().message;
}

TEST(SweepAxis, ARangeDoublesFromItsFirstToItsLastValue) {
  EXPECT_EQ(values_of("seq=512..4096"), (Values{512, 1024, 2048, 4096}));
  EXPECT_EQ(values_of("seq=1000..5000"), (Values{1000, 2000, 4000, 5000}));
  EXPECT_EQ(values_of("seq=7..7"), (Values{7}));
  EXPECT_EQ(values_of("seq=1073741824..2147483648"), (Values{1073741824, 2147483648}));
}

TEST(SweepAxis, ARangeOfWhatIsCountedOneByOneTakesEveryValue) {
  EXPECT_EQ(values_of("pool=0..3"), (Values{0, 1, 2, 3}));
}

TEST(SweepAxis, ARangeWithAStepTakesEverySoManyAndTheLast) {
  EXPECT_EQ(values_of("pool=0..32:8"), (Values{0, 8, 16, 24, 32}));
  EXPECT_EQ(values_of("pool=1..10:4"), (Values{1, 5, 9, 10}));
  EXPECT_EQ(values_of("seq=100..300:100"), (Values{100, 200, 300}));
}

TEST(SweepAxis, AListMayMixValuesAndRangesAndEachComesOnceInOrder) {
  EXPECT_EQ(values_of("seq=4096,512,1000"), (Values{512, 1000, 4096}));
  EXPECT_EQ(values_of("pool=8,0..2,1,16"), (Values{0, 1, 2, 8, 16}));
}

TEST(SweepAxis, IsNamedAsTheFlagWithHyphensOrUnderscores) {
  EXPECT_EQ(parse_sweep_axis("output_len=1,2", kNames)->name, "output-len");
  EXPECT_EQ(parse_sweep_axis("output-len=1,2", kNames)->name, "output-len");
}

TEST(SweepAxis, RefusesWhatIsNoSweep) {
  const std::string forms = "VALUE,VALUE,... or FIRST..LAST or FIRST..LAST:STEP";
  const std::string unknown = ", allowed NAME=" + forms + "; NAME is one of: seq, output-len, pool";
  EXPECT_EQ(message_of("depth=1..2"), "--sweep: found depth=1..2" + unknown);
  EXPECT_EQ(message_of("=1..2"), "--sweep: found =1..2" + unknown);
  EXPECT_EQ(message_of(""), "--sweep: found nothing" + unknown);
  EXPECT_EQ(message_of("seq"), "--sweep seq: found no values, allowed " + forms);
  EXPECT_EQ(message_of("seq="), "--sweep seq: found no values, allowed " + forms);
}

TEST(SweepAxis, RefusesValuesThatAreNoneOrLieOutsideTheirLimits) {
  const std::string allowed = ", allowed an integer in 2..2147483648";
  EXPECT_EQ(message_of("seq=many"), "--sweep seq: found many" + allowed);
  EXPECT_EQ(message_of("seq=-512"), "--sweep seq: found -512" + allowed);
  EXPECT_EQ(message_of("seq=0"), "--sweep seq: found 0" + allowed);
  EXPECT_EQ(message_of("seq=512,,1024"), "--sweep seq: found nothing" + allowed);
  EXPECT_EQ(message_of("seq=..512"), "--sweep seq: found nothing" + allowed);
  EXPECT_EQ(message_of("seq=512.."), "--sweep seq: found nothing" + allowed);
  EXPECT_EQ(message_of("seq=512...1024"), "--sweep seq: found .1024" + allowed);
  EXPECT_EQ(message_of("seq=2..99999999999999999999"),
            "--sweep seq: found 99999999999999999999" + allowed);
  EXPECT_EQ(message_of("seq=4,2147483649"), "--sweep seq: found 2147483649" + allowed);
}

TEST(SweepAxis, RefusesARangeThatFalls) {
  EXPECT_EQ(message_of("seq=4096..512"),
            "--sweep seq: found 4096..512, allowed a range whose first value is not above its "
            "last");
}

TEST(SweepAxis, RefusesStepsThatLeadNowhere) {
  for (const char* step : {"0", "-1", "x"}) {
    EXPECT_EQ(message_of(std::string("pool=0..4:") + step),
              std::string("--sweep pool: found step ") + step + ", allowed a step of at least 1");
  }
  EXPECT_EQ(message_of("pool=0..4:"),
            "--sweep pool: found step nothing, allowed a step of at least 1");
}

TEST(SweepAxis, RefusesMoreValuesThanItTakes) {
  EXPECT_EQ(message_of("pool=0..4096"),
            "--sweep pool: found more than 4096 values, allowed at most 4096");
  EXPECT_EQ(values_of("pool=0..4095").size(), 4096U);
}

TEST(SweepAxis, EveryStrategySweepsLengthsAndItsOwnNumbers) {
  for (const StrategyEntry& strategy : strategies()) {
    const std::vector<SweepName> names = sweep_names(strategy);
    EXPECT_TRUE(parse_sweep_axis("seq=512..65536", names).has_value()) << strategy.name;
    for (const OptionSpec& option : strategy.options) {
      const std::string text = std::string(option.name) + "=2..8";
      EXPECT_EQ(parse_sweep_axis(text, names).has_value(), option.choices.empty()) << text;
    }
  }
}

}  // namespace
}  // namespace weir
