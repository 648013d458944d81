// weir simulate and weir accuracy from outside.

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/app/program.h"
#include "tests/checkpoint/temporary_folder.h"

namespace weir {
namespace {

using nlohmann::json;

TEST(SimulateCommand, PredictsAGenerationAsJson) {
  const ProgramResult result =
      run_weir({"simulate", "-m", "tiny", "-c", "h100-sxm", "-s", "tp_pp", "--tp", "2", "--batch",
                "3", "--prompt-len", "100", "--output-len", "20", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(result.out);
  EXPECT_EQ(document["generation"]["output_tokens"], 60);
  EXPECT_GT(document["generation"]["decode_steps"]["mean_s"], 0.0);
  EXPECT_EQ(document["memory"].size(), 2U);
  EXPECT_EQ(document["fits"], true);
  EXPECT_GT(document["usd_per_million_tokens"], 0.0);
  EXPECT_LT(document["simulated_steps"], 20);
}

TEST(SimulateCommand, TheSameCommandGivesTheSameBytes) {
  const auto text = [] {
    return run_weir({"simulate", "-m", "tiny", "-c", "a100-sxm-80gb", "-s", "tp_pp", "--tp", "2",
                     "--pp", "2", "--json"})
        .out;
  };
  const std::string first = text();
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, text());
}

TEST(SimulateCommand, SaysFirstThatAModelDoesNotFit) {
  TemporaryFolder folder;
  std::ofstream(folder.file("small.json"))
      << R"({"name": "small", "device_types": {"g": {"kind": "gpu", "memory_gib": 0.0001,
             "memory_gb_per_s": 1000, "matrix_tflops": {"bf16": 100}, "vector_tflops": {"f32": 10},
             "num_cores": 100}},
             "node_types": [{"name": "n", "devices": [{"type": "g"}]}]})";
  const ProgramResult result =
      run_weir({"simulate", "-m", "tiny", "-c", folder.file("small.json")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.rfind("does not fit: device n/", 0), 0U) << result.out;
}

TEST(SimulateCommand, NamesTheFiguresThatAClusterLacks) {
  const ProgramResult result = run_weir({"simulate", "-m", "tiny"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("--cluster: local: device type"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("found no memory_gb_per_s"), std::string::npos) << result.err;
}

TEST(AccuracyCommand, ReportsWhatIsThereAndSkipsWhatIsNot) {
  TemporaryFolder folder;
  std::ofstream(folder.file("aic_gemm_h200.csv")) << "gpu,dtype,m,n,k,time_us,l2_warm\n"
                                                     "H200-SXM,bfloat16,8192,8192,8192,1552.5,0\n";
  const ProgramResult result =
      run_weir({"accuracy", "--data",
                std::filesystem::path(folder.file("x")).parent_path().string(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(result.out);
  ASSERT_EQ(document["rows"].size(), 1U);
  EXPECT_LT(document["rows"][0]["model"]["median"], 0.15);
  EXPECT_FALSE(document["absent"].empty());

  const ProgramResult absent = run_weir({"accuracy", "--data", folder.file("nothing")});
  EXPECT_EQ(absent.exit_code, 0);
  EXPECT_EQ(absent.out.rfind("skipped: ", 0), 0U);
}

// One row of ai-dynamo/aiconfigurator@095f58a5, systems/silicon_sample.csv (TensorRT-LLM).
TEST(AccuracyCommand, HoldsServedModelsAgainstTheSimulator) {
  TemporaryFolder folder;
  std::ofstream(folder.file("aic_e2e_h100.csv"))
      << "gpu,model,weights,mode,isl,osl,concurrency,tp,pp,tpot_ms\n"
         "H100-SXM,Llama-3.1-8B-Instruct,,agg,1024,128,8,2,1,5.21248\n"
         "H100-SXM,Llama-3.1-8B-Instruct,fp8,agg,1024,128,8,2,1,4\n";
  const ProgramResult result =
      run_weir({"accuracy", "--data",
                std::filesystem::path(folder.file("x")).parent_path().string(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(result.out);
  ASSERT_EQ(document["rows"].size(), 1U);
  EXPECT_EQ(document["rows"][0]["what"], "tpot served");
  EXPECT_LT(document["rows"][0]["model"]["median"], 0.15);
  EXPECT_EQ(document["skipped_rows"], 1);
}

}  // namespace
}  // namespace weir
