#include "spec/workload.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

using nlohmann::json;

json two_kinds() {
  return json::parse(R"({
    "name": "chat", "activation_dtype": "bf16", "kv_dtype": "float16",
    "requests": [{"prompt_len": 512, "output_len": 64, "count": 3},
                 {"prompt_len": 8192, "output_len": 1, "arrival_s": 0.25}]})");
}

std::string workload_error_of(const json& document) {
  const auto workload = workload_from_json(document);
  return workload ? "no error" : workload.error().message;
}

TEST(WorkloadFromJson, RepeatsCountedRequestsInTheOrderWritten) {
  const auto workload = workload_from_json(two_kinds());
  ASSERT_TRUE(workload) << workload.error().message;
  const Request chat{.prompt_len = 512, .output_len = 64};
  const Request document{.prompt_len = 8192, .output_len = 1, .arrival = {0.25}};
  EXPECT_EQ(*workload, (Workload{.name = "chat",
                                 .requests = {chat, chat, chat, document},
                                 .activation_dtype = DType::bf16,
                                 .kv_dtype = DType::f16}));
}

TEST(WorkloadToJson, IsReadBackIntoAnEqualWorkload) {
  const auto workload = workload_from_json(two_kinds());
  ASSERT_TRUE(workload) << workload.error().message;
  const json written = workload_to_json(*workload);
  EXPECT_EQ(written["requests"].size(), 2U);
  EXPECT_EQ(workload_from_json(written), workload);
}

TEST(BatchWorkload, IsEqualRequestsAtOnce) {
  const Workload workload = batch_workload({.batch_size = 2, .prompt_len = 10, .output_len = 5});
  EXPECT_EQ(workload, (Workload{.name = "2 x (10 + 5)",
                                .requests = {{.prompt_len = 10, .output_len = 5},
                                             {.prompt_len = 10, .output_len = 5}}}));
}

TEST(WorkloadFromJson, ListsEveryProblemAtOnce) {
  const json document = json::parse(R"({
    "name": 7, "kv_dtype": "fp8", "deadline": 1,
    "requests": [{"prompt_len": 0, "output_len": 1.5, "arrival_s": -1, "count": 0, "priority": 1},
                 {"output_len": 1}, 3]})");
  EXPECT_EQ(workload_error_of(document),
            "workload.name: found 7, allowed a string; "
            "workload.kv_dtype: found \"fp8\", allowed one of: f32, bf16, f16; "
            "workload.requests[2]: found 3, allowed an object; "
            "workload.requests[0].prompt_len: found 0, allowed an integer in 1..2147483648; "
            "workload.requests[0].output_len: found 1.5, allowed an integer in 1..2147483648; "
            "workload.requests[0].arrival_s: found -1, allowed a number in 0..31622400; "
            "workload.requests[0].count: found 0, allowed an integer in 1..1048576; "
            "workload.requests[0].priority: unknown key; "
            "workload.requests[1].prompt_len: missing, allowed an integer in 1..2147483648; "
            "workload.requests[2].prompt_len: missing, allowed an integer in 1..2147483648; "
            "workload.requests[2].output_len: missing, allowed an integer in 1..2147483648; "
            "workload.deadline: unknown key");
}

TEST(WorkloadFromJson, RefusesNoRequestsAndTooMany) {
  json document = two_kinds();
  document["requests"][0]["count"] = kMaxRequests;
  EXPECT_EQ(workload_error_of(document),
            "workload.requests: found 1048577 requests, allowed 1 to 1048576");
  document["requests"] = json::array();
  EXPECT_EQ(workload_error_of(document),
            "workload.requests: found 0 requests, allowed 1 to 1048576");
}

TEST(LoadWorkload, NamesTheFileThatIsWrong) {
  const std::string path =
      (std::filesystem::path(testing::TempDir()) / "weir_workload_that_is_wrong.json").string();
  std::ofstream(path) << R"({"name": "n", "requests": 1})";
  EXPECT_EQ(load_workload(path).error().message,
            path +
                ": workload.requests: found 1, allowed an array of objects; "
                "workload.requests: found 0 requests, allowed 1 to 1048576");
  std::filesystem::remove(path);
  EXPECT_EQ(load_workload(path).error().message, path + ": cannot be opened for reading");
}

TEST(CheckLengths, NamesEachRequestThatOutgrowsTheModel) {
  const auto workload = workload_from_json(two_kinds());
  ASSERT_TRUE(workload) << workload.error().message;
  ModelSpec model{.name = "tiny", .max_position = 8193};
  EXPECT_TRUE(check_lengths(*workload, model));
  model.max_position = 8192;
  EXPECT_EQ(
      check_lengths(*workload, model).error().message,
      "workload.requests[3]: found 8192 + 1 tokens, allowed at most 8192, which is as long as "
      "tiny goes");
}

}  // namespace
}  // namespace weir
