#include "exec/rank_words.h"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace weir {
namespace {

StepWord step_word() {
  StepWord word;
  word.plan = 7;
  word.step_index = 3;
  word.record = true;
  word.lengths.resize(2);
  word.sequences = {static_cast<SequenceId>(4), static_cast<SequenceId>(5)};
  word.tokens = {{1, 2, 3}, {}};
  word.rope_lengths = {3, 9};
  return word;
}

DeviceReport report_of_a_step() {
  DeviceReport report;
  report.failure = "device 1: out of memory";
  report.logits = {0.5F, -2.0F};
  report.held = {.weights = 1, .kv_cache = 2, .buffers = 3};
  Record& record = report.records.emplace_back();
  record.task.step = 3;
  record.task.node = static_cast<NodeId>(11);
  record.task.kind = OpKind::copy;
  record.task.bytes = 64;
  record.partners = {static_cast<DeviceId>(0), static_cast<DeviceId>(2)};
  return report;
}

TEST(RankWords, AreReadAsTheyWereSaid) {
  const auto step = unpack_word(pack(RankWord(step_word())));
  ASSERT_TRUE(step) << step.error().message;
  const auto& word = std::get<StepWord>(*step);
  EXPECT_EQ(word.plan, 7U);
  EXPECT_EQ(word.step_index, 3);
  EXPECT_TRUE(word.record);
  EXPECT_EQ(word.sequences, step_word().sequences);
  EXPECT_EQ(word.tokens, step_word().tokens);
  EXPECT_EQ(word.rope_lengths, step_word().rope_lengths);
  const auto prepare = unpack_word(pack(PrepareWord{.plan = 1, .document = "a plan"}));
  ASSERT_TRUE(prepare) << prepare.error().message;
  EXPECT_EQ(std::get<PrepareWord>(*prepare).document, "a plan");
  const auto close = unpack_word(pack(CloseWord{}));
  ASSERT_TRUE(close) << close.error().message;
  EXPECT_TRUE(std::holds_alternative<CloseWord>(*close));
}

TEST(RankWords, ReportWhatADeviceDid) {
  const auto report = unpack_report(pack(report_of_a_step()));
  ASSERT_TRUE(report) << report.error().message;
  const DeviceReport said = report_of_a_step();
  EXPECT_EQ(report->failure, said.failure);
  ASSERT_EQ(report->records.size(), 1U);
  EXPECT_EQ(report->records[0].task, said.records[0].task);
  EXPECT_EQ(report->records[0].partners, said.records[0].partners);
  EXPECT_EQ(report->logits, said.logits);
  EXPECT_EQ(report->held.buffers, 3);
}

TEST(RankWords, AreRefusedWithoutTheirEndAndWithMoreThanThat) {
  std::vector<std::byte> word = pack(RankWord(step_word()));
  std::vector<std::byte> report = pack(report_of_a_step());
  for (std::size_t size = 0; size < word.size(); ++size)
    EXPECT_FALSE(unpack_word(std::span(word).first(size))) << size;
  for (std::size_t size = 0; size < report.size(); ++size)
    EXPECT_FALSE(unpack_report(std::span(report).first(size))) << size;
  word.push_back(std::byte{});
  report.push_back(std::byte{});
  EXPECT_FALSE(unpack_word(word));
  EXPECT_FALSE(unpack_report(report));
  const auto unknown = unpack_word(std::vector(1, std::byte{77}));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().message,
            "found a message of 1 bytes that is none, allowed what ranks of one build say");
}

}  // namespace
}  // namespace weir
