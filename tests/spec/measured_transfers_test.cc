#include "spec/measured_transfers.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace weir {
namespace {

// Of two and of four members, the latter taking ten times as long.
MeasuredTransfers example_transfers() {
  return {.messages = {{.bytes = 1000, .us = 10}, {.bytes = 100000, .us = 1000}},
          .exchanges = {{.members = 2, .times = {{.bytes = 1000, .us = 20}}},
                        {.members = 4,
                         .times = {{.bytes = 1000, .us = 100}, {.bytes = 4000, .us = 400}}}},
          .all_reduces = {{.members = 4, .times = {{.bytes = 1000, .us = 500}}}},
          .reduce_scatters = {{.members = 2, .times = {{.bytes = 1000, .us = 60}}}},
          .all_gathers = {{.members = 2, .times = {{.bytes = 1000, .us = 70}}}}};
}

std::string transfers_problem_of(const nlohmann::json& document) {
  std::vector<std::string> problems;
  (void)read_measured_transfers(ObjectReader(document, "transfers", problems));
  return problems.empty() ? "" : problems.front();
}

TEST(MeasuredTransfers, LieBetweenThoseOfTheNextSizes) {
  const std::vector<TransferTime> times = example_transfers().messages;
  EXPECT_NEAR(time_at(times, 1).value, 10e-6, 1e-12);  // Smaller ones were not measured.
  EXPECT_NEAR(time_at(times, 1000).value, 10e-6, 1e-12);
  EXPECT_NEAR(time_at(times, 10000).value, 100e-6, 1e-12);  // Half way, as logarithms.
  EXPECT_NEAR(time_at(times, 200000).value, 2000e-6, 1e-12);
}

TEST(MeasuredTransfers, OfOtherNumbersOfMembersSendAsManyBytes) {
  EXPECT_NEAR(exchange_time(example_transfers(), 2, 1000).value, 20e-6, 1e-12);
  EXPECT_NEAR(exchange_time(example_transfers(), 4, 2000).value, 200e-6, 1e-12);
  // Three send two thirds of what four do, and seven twice as much.
  EXPECT_NEAR(exchange_time(example_transfers(), 3, 3000).value, 200e-6, 1e-12);
  EXPECT_NEAR(exchange_time(example_transfers(), 7, 1000).value, 200e-6, 1e-12);
}

TEST(MeasuredTransfers, OfAllReducesAreThoseOfJustAsManyMembers) {
  EXPECT_NEAR(collective_time(example_transfers().all_reduces, 4, 2000).value_or(Seconds{}).value,
              1000e-6, 1e-12);
  EXPECT_EQ(collective_time(example_transfers().all_reduces, 3, 2000), std::nullopt);
}

TEST(MeasuredTransfers, StandForEachOtherWhereOneWasNotMeasured) {
  MeasuredTransfers messages_only = example_transfers();
  messages_only.exchanges.clear();
  EXPECT_NEAR(exchange_time(messages_only, 11, 1000).value, 100e-6, 1e-12);
  MeasuredTransfers exchanges_only = example_transfers();
  exchanges_only.messages.clear();
  EXPECT_NEAR(message_time(exchanges_only, 1000).value, 20e-6, 1e-12);
  EXPECT_NEAR(message_time(example_transfers(), 1000).value, 10e-6, 1e-12);
}

TEST(MeasuredTransfers, AreReadBackAsTheyWereWritten) {
  MeasuredTransfers written = example_transfers();
  for (int round = 0; round < 6; ++round) {
    const nlohmann::json document = to_json(written);
    std::vector<std::string> problems;
    EXPECT_EQ(read_measured_transfers(ObjectReader(document, "transfers", problems)), written);
    EXPECT_TRUE(problems.empty()) << problems.front();
    written = example_transfers();
    if (round == 0) written.messages.clear();
    if (round == 1) written.exchanges.clear();
    if (round == 2) written.all_reduces.clear();
    if (round == 3) written.reduce_scatters.clear();
    if (round == 4) written.all_gathers.clear();
  }
}

TEST(MeasuredTransfers, NameTheFieldThatIsWrong) {
  nlohmann::json document = to_json(example_transfers());
  document["messages"][1]["bytes"] = 1000;
  EXPECT_EQ(transfers_problem_of(document),
            "transfers.messages: found bytes that do not ascend, allowed ascending ones");
  document = to_json(example_transfers());
  document["messages"][0]["us"] = 0;
  EXPECT_EQ(transfers_problem_of(document),
            "transfers.messages[0].us: found 0, allowed a number in 1e-06..10000000");
  document = to_json(example_transfers());
  document["exchanges"][1]["members"] = 2;
  EXPECT_EQ(transfers_problem_of(document),
            "transfers.exchanges: found members that do not ascend, allowed ascending ones");
  document = to_json(example_transfers());
  document["exchanges"][0]["members"] = 1;
  EXPECT_EQ(transfers_problem_of(document),
            "transfers.exchanges[0].members: found 1, allowed an integer in 2..65536");
  document = to_json(example_transfers());
  document["exchanges"][0]["times"] = nlohmann::json::array();
  EXPECT_EQ(transfers_problem_of(document),
            "transfers.exchanges[0].times: found none, allowed at least one");
  EXPECT_EQ(transfers_problem_of(nlohmann::json::object()),
            "transfers.exchanges: found none, allowed at least one curve without messages");
  document = to_json(example_transfers());
  document["all_reduces"][0]["times"][0].erase("us");
  EXPECT_NE(transfers_problem_of(document).find("transfers.all_reduces[0].times[0].us: missing"),
            std::string::npos);
  document = to_json(example_transfers());
  document["message"] = document["messages"];
  EXPECT_NE(transfers_problem_of(document).find("transfers.message: "), std::string::npos);
}

}  // namespace
}  // namespace weir
