#include "spec/measured_kernels.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace weir {
namespace {

MeasuredKernels example() {
  return {
      .linear = {{.weight = DType::bf16,
                  .level = CacheLevel::l3,
                  .devices = 2,
                  .costs = {{.rows = 1, .ps_per_weight = 17.5},
                            {.rows = 64, .ps_per_weight = 540}}}},
      .attention =
          {{.kv = DType::f16,
            .level = CacheLevel::memory,
            .devices = 1,
            .costs = {{.rows = 1, .ps_per_key = 3000, .ps_per_value = 70.25, .ps_to_begin = 900}}}},
      .stream = {{.kind = StreamKind::gelu_erf,
                  .level = CacheLevel::l2,
                  .devices = 1,
                  .ps_per_byte = 34.1}},
      .served = {{.level = CacheLevel::l3,
                  .devices = 2,
                  .shares = {{.bytes = 1 << 20, .share = 1}, {.bytes = 3 << 20, .share = 0.25}}}}};
}

std::string problem_of(const nlohmann::json& document) {
  std::vector<std::string> problems;
  (void)read_measured_kernels(ObjectReader(document, "kernels", problems));
  return problems.empty() ? "" : problems.front();
}

TEST(MeasuredKernels, AreReadBackAsTheyWereWritten) {
  const nlohmann::json document = to_json(example());
  std::vector<std::string> problems;
  EXPECT_EQ(read_measured_kernels(ObjectReader(document, "kernels", problems)), example());
  EXPECT_TRUE(problems.empty());
}

TEST(MeasuredKernels, NameTheFieldThatIsWrong) {
  nlohmann::json document = to_json(example());
  document["linear"][0]["costs"][1]["rows"] = 1;
  EXPECT_EQ(problem_of(document),
            "kernels.linear[0].costs: found rows that do not ascend, allowed ascending ones");
  document = to_json(example());
  document["attention"][0]["costs"][0]["ps_per_key"] = -1;
  EXPECT_EQ(
      problem_of(document),
      "kernels.attention[0].costs[0].ps_per_key: found -1, allowed a number in 0..100000000000");
  document = to_json(example());
  document["linear"][0]["costs"] = nlohmann::json::array();
  EXPECT_EQ(problem_of(document), "kernels.linear[0].costs: found none, allowed at least one");
  document = to_json(example());
  document["stream"] = nlohmann::json::array();
  EXPECT_EQ(problem_of(document), "kernels.stream: found none, allowed at least one cost");
  document = to_json(example());
  document["linear"][0]["level"] = "l4";
  EXPECT_NE(problem_of(document).find("kernels.linear[0].level: found \"l4\""), std::string::npos);
  document = to_json(example());
  document["served"][0]["shares"][1]["bytes"] = 1 << 20;
  EXPECT_EQ(problem_of(document),
            "kernels.served[0].shares: found bytes that do not ascend, allowed ascending ones");
  document["served"][0]["shares"][1] = {{"bytes", 1 << 22}, {"share", 1.5}};
  EXPECT_EQ(problem_of(document),
            "kernels.served[0].shares[1].share: found 1.5, allowed a number in 0..1");
  document["served"][0]["shares"] = nlohmann::json::array();
  EXPECT_EQ(problem_of(document), "kernels.served[0].shares: found none, allowed at least one");
}

}  // namespace
}  // namespace weir
