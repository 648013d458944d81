#include "claims/assumptions.h"

#include <set>

#include <gtest/gtest.h>

namespace weir {
namespace {

TEST(Assumptions, EveryDefaultIsAllowed) {
  AssumptionValues values;
  for (const AssumptionSpec& spec : assumption_specs())
    values[std::string(spec.name)] = std::string(spec.default_value);
  const auto spelled = make_assumptions(values, "test");
  ASSERT_TRUE(spelled) << spelled.error().message;
  EXPECT_EQ(spelled->batch_size, make_assumptions({}, "test")->batch_size);
}

TEST(Assumptions, ReadsEveryKindOfValue) {
  const auto assumptions = make_assumptions({{"batch_size", "64"},
                                             {"tpot", "decode"},
                                             {"tpot_tokens", "batch"},
                                             {"tps_tokens", "decode"},
                                             {"ffn", "plain"},
                                             {"dtype", "f32"},
                                             {"cluster", "h200-sxm"}},
                                            "test");
  ASSERT_TRUE(assumptions) << assumptions.error().message;
  EXPECT_EQ(assumptions->batch_size, 64);
  EXPECT_EQ(assumptions->tpot, TpotReading::decode);
  EXPECT_EQ(assumptions->tpot_tokens, TpotTokens::batch);
  EXPECT_EQ(assumptions->tps_tokens, TpsTokens::decode);
  EXPECT_EQ(assumptions->ffn, FfnKind::plain);
  EXPECT_EQ(assumptions->dtype, DType::f32);
  EXPECT_EQ(assumptions->cluster, "h200-sxm");
}

TEST(Assumptions, NamesEveryWrongValueAndWhatIsAllowed) {
  const auto wrong = make_assumptions(
      {{"batch_size", "0"}, {"tpot", "sometimes"}, {"cluster", ""}, {"vocab_size", "12x"}}, "note");
  ASSERT_FALSE(wrong);
  for (const char* part : {"note.batch_size: found 0, allowed 1..4096",
                           "note.tpot: found sometimes, allowed generation, decode",
                           "note.cluster: found nothing", "note.vocab_size: found 12x"}) {
    EXPECT_NE(wrong.error().message.find(part), std::string::npos) << wrong.error().message;
  }
}

TEST(Assumptions, RefusesANameThatThereIsNot) {
  const auto wrong = make_assumptions({{"temperature", "1"}}, "note");
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("found temperature, allowed batch_size, output_len"),
            std::string::npos)
      << wrong.error().message;
}

TEST(Assumptions, DecideTheModel) {
  const auto gated = assumed_model("fa-pool-4l", *make_assumptions({}, "test"));
  const auto plain = assumed_model("fa-pool-4l", *make_assumptions({{"ffn", "plain"}}, "test"));
  const auto wordy =
      assumed_model("fa-pool-4l", *make_assumptions({{"vocab_size", "64000"}}, "test"));
  ASSERT_TRUE(gated && plain && wordy);
  const std::int64_t matrix = 4096LL * 16384;
  EXPECT_EQ(count_parameters(*gated).total - count_parameters(*plain).total, 4 * matrix);
  EXPECT_EQ(count_parameters(*wordy).total - count_parameters(*gated).total, 2 * 32000LL * 4096);
}

}  // namespace
}  // namespace weir
