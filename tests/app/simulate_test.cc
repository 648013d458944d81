// weir simulate and weir accuracy from outside.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/app/program.h"
#include "tests/checkpoint/test_folder.h"

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

TEST(SimulateCommand, SaysWhereTheTimeAndTheEnergyOfTheGenerationGo) {
  const ProgramResult result =
      run_weir({"simulate", "-m", "tiny", "-c", "h100-sxm", "-s", "tp_pp", "--tp", "2", "--batch",
                "3", "--prompt-len", "100", "--output-len", "20", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(result.out);
  const json& generation = document["generation"];
  std::int64_t sum = 0;
  for (const auto& [name, ns] : generation["breakdown"].items()) sum += ns.get<std::int64_t>();
  EXPECT_EQ(sum, generation["total_time_ns"]);
  EXPECT_EQ(generation["devices"].size(), 2U);
  EXPECT_GT(document["resting_joules"], 0.0);
  EXPECT_LT(document["resting_joules"], document["joules"]);
  EXPECT_FALSE(document.contains("full_pipeline")) << "one microbatch";
}

TEST(SimulateCommand, KeepsAPipelineFull) {
  const ProgramResult result =
      run_weir({"simulate", "-m",      "tiny", "-c",           "h100-sxm", "-s",
                "tp_pp",    "--tp",    "1",    "--pp",         "2",        "--microbatches",
                "4",        "--batch", "8",    "--prompt-len", "100",      "--output-len",
                "20",       "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(result.out);
  const double period = document["full_pipeline"]["tpot_s"];
  EXPECT_LT(period, document["last_decode"]["decode_steps"]["mean_s"].get<double>());
  EXPECT_NEAR(document["full_pipeline"]["output_tps"], 8 / period, 1e-6 * 8 / period);
  EXPECT_EQ(document["full_pipeline"]["settled"], true);
}

TEST(SimulateCommand, TracesTheWholeGenerationWithMemory) {
  TestFolder folder;
  const std::string path = folder.file("trace.json");
  const ProgramResult result =
      run_weir({"simulate", "-m", "tiny", "-c", "h100-sxm", "-s", "tp_pp", "--tp", "2",
                "--prompt-len", "100", "--output-len", "20", "--trace", path});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json trace = json::parse(std::ifstream(path));
  std::size_t steps = 0;
  std::size_t embeds = 0;
  std::size_t counts = 0;
  for (const json& event : trace.at("traceEvents")) {
    steps += event.value("cat", "") == "step" ? 1 : 0;
    embeds += event.value("name", "") == "embed" ? 1 : 0;
    counts += event.at("ph") == "C" ? 1 : 0;
  }
  EXPECT_EQ(steps, 20U);
  EXPECT_EQ(embeds, 2U * 2) << "prefill and last decode step, on two devices";
  EXPECT_GT(counts, 20U);
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

TEST(SimulateCommand, PlaysCollectivesMessageByMessage) {
  const auto mean_step = [](bool expand) {
    std::vector<std::string> arguments = {"simulate", "-m",          "tiny",  "-c",
                                          "h100-sxm", "-s",          "tp_pp", "--tp",
                                          "4",        "--nccl-only", "--json"};
    if (expand) arguments.emplace_back("--expand");
    const ProgramResult result = run_weir(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out)["generation"]["decode_steps"]["mean_s"].get<double>();
  };
  // Nothing else is on the links: the closed form, but for a nanosecond of rounding a message.
  EXPECT_NEAR(mean_step(true), mean_step(false), 1e-6);
}

TEST(SimulateCommand, SaysFirstThatAModelDoesNotFit) {
  TestFolder folder;
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

json json_of(std::vector<std::string> arguments) {
  arguments.emplace_back("--json");
  const ProgramResult result = run_weir(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  return json::parse(result.out);
}

// What does not fit, with what fits: every change is given to the program again.
TEST(SimulateCommand, EveryChangeThatItNamesFits) {
  const std::vector<std::string> tight = {"simulate", "-m",    "fa-pool-4l", "-c", "h100-sxm",
                                          "-s",       "tp_pp", "--tp",       "2"};
  const std::vector<std::string> work = {"--batch", "16",           "--prompt-len",
                                         "30000",   "--output-len", "2"};
  std::vector<std::string> arguments = tight;
  arguments.insert(arguments.end(), work.begin(), work.end());
  const json document = json_of(arguments);
  ASSERT_EQ(document["fits"], false);
  ASSERT_GE(document["fitting_changes"].size(), 3U);
  std::int64_t devices = 2;
  for (const json& change : document["fitting_changes"]) {
    std::istringstream flags(change["flags"].get<std::string>());
    std::vector<std::string> changed = arguments;
    for (std::string name, value; flags >> name >> value;) {
      const auto given = std::ranges::find(changed, name);
      if (given == changed.end()) {
        changed.insert(changed.end(), {name, value});
      } else {
        *(given + 1) = value;
      }
    }
    EXPECT_EQ(json_of(changed)["fits"], true) << change;
    changed[0] = "plan";
    for (const char* phase : {"prefill", "decode"}) {
      std::vector<std::string> planned = changed;
      planned.insert(planned.end(), {"--phase", phase});
      EXPECT_EQ(run_weir(planned).exit_code, 0) << change << " " << phase;
    }
    const bool same_cluster = change["flags"].get<std::string>().find("-c ") == std::string::npos;
    if (!same_cluster) continue;
    EXPECT_GE(change["devices"], devices) << "fewest devices first";
    devices = change["devices"];
  }
}

TEST(SimulateCommand, SaysWhatWouldFitBeforeAnythingElse) {
  const ProgramResult result =
      run_weir({"simulate", "-m", "fa-pool-4l", "-c", "a100-sxm-80gb", "--batch", "32",
                "--prompt-len", "8192", "--output-len", "1"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.rfind("does not fit: device ", 0), 0U) << result.out;
  EXPECT_NE(result.out.find("\nit would fit with any one of these"), std::string::npos);
  EXPECT_NE(result.out.find("\n  --batch "), std::string::npos);
  EXPECT_NE(result.out.find("instead of 32 (1 device)\n"), std::string::npos);
  EXPECT_NE(result.out.find("\n  -s tp_pp --tp "), std::string::npos);
}

TEST(SimulateCommand, SweepsAGridOfLengthsAndPoolSizes) {
  const std::vector<std::string> arguments = {
      "simulate",       "-m",      "fa-pool-4l", "-c",           "h100-sxm:2", "-s",
      "attention_pool", "--tp",    "4",          "--output-len", "16",         "--sweep",
      "seq=2048..8192", "--sweep", "pool=0..4:2"};
  const json document = json_of(arguments);
  ASSERT_EQ(document["points"].size(), 9U);
  EXPECT_EQ(document["points"][0]["seq"], 2048);
  EXPECT_EQ(document["points"][0]["pool"], 0);
  EXPECT_EQ(document["points"][8]["devices"], 8);
  EXPECT_EQ(document["points"][0]["speed_up"], 1.0);
  EXPECT_EQ(document["best"].size(), 3U);
  EXPECT_EQ(document["best"][0]["tpot"]["pool"], 0) << "below the crest nobody uses the pool";
  const ProgramResult page = run_weir(arguments);
  EXPECT_EQ(page.exit_code, 0);
  EXPECT_NE(page.out.find("pool_policy=fixed"), std::string::npos) << page.out;
  EXPECT_NE(page.out.find("best pool by tpot"), std::string::npos) << page.out;
}

TEST(SimulateCommand, ASweepOfTheSameCommandGivesTheSameBytes) {
  const auto text = [] {
    return run_weir({"simulate", "-m", "tiny", "-c", "h100-sxm", "-s", "tp_pp", "--sweep",
                     "tp=1..8", "--json"})
        .out;
  };
  const std::string first = text();
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, text());
}

// The arguments behind `simulate -m tiny -c h100-sxm` fail with this line.
void expect_refused(std::vector<std::string> arguments, const std::string& line) {
  arguments.insert(arguments.begin(), {"simulate", "-m", "tiny", "-c", "h100-sxm"});
  const ProgramResult result = run_weir(arguments);
  EXPECT_EQ(result.exit_code, 2) << line;
  EXPECT_EQ(result.err, "weir: " + line + "\n");
  EXPECT_EQ(result.out, "") << line;
}

TEST(SimulateCommand, RefusesSweepsInOneLineThatSaysWhatIsAllowed) {
  const std::string forms = "VALUE,VALUE,... or FIRST..LAST or FIRST..LAST:STEP";
  const std::string lengths = "an integer in 2..2147483648";
  expect_refused({"--sweep", "seq="}, "--sweep seq: found no values, allowed " + forms);
  expect_refused({"--sweep", "depth=1..4"},
                 "--sweep: found depth=1..4, allowed NAME=" + forms +
                     "; NAME is one of: seq, prompt-len, output-len, batch");
  expect_refused({"--sweep", "seq=512..64"},
                 "--sweep seq: found 512..64, allowed a range whose first value is not above its "
                 "last");
  expect_refused({"--sweep", "seq=-512..64"}, "--sweep seq: found -512, allowed " + lengths);
  expect_refused({"--sweep", "seq=0"}, "--sweep seq: found 0, allowed " + lengths);
  expect_refused({"--sweep", "seq=512..9999999999999999999"},
                 "--sweep seq: found 9999999999999999999, allowed " + lengths);
  expect_refused({"--sweep", "prompt-len=1..5000:1"},
                 "--sweep prompt-len: found more than 4096 values, allowed at most 4096");
  expect_refused({"--sweep", "seq=512", "--prompt-len", "3"},
                 "--prompt-len: found a value with --sweep seq, allowed one of them");
  expect_refused({"--sweep", "seq=512", "--trace", "t.json"},
                 "--trace: found t.json with --sweep, allowed without");
  expect_refused({"--sweep", "tp=1..2", "-s", "unknown"},
                 "--sweep: found tp=1..2, allowed NAME=" + forms +
                     "; NAME is one of: seq, prompt-len, output-len, batch");
}

TEST(SimulateCommand, RefusesLengthsThatAreNone) {
  expect_refused({"--prompt-len", "-1"},
                 "--prompt-len: found -1, allowed an integer in "
                 "1..2147483648");
  expect_refused({"--prompt-len", "0"},
                 "--prompt-len: found 0, allowed an integer in "
                 "1..2147483648");
  expect_refused({"--output-len", "99999999999999999999"},
                 "--output-len: found 99999999999999999999, allowed an integer in 1..1048576");
  expect_refused({"--batch", "0"}, "--batch: found 0, allowed an integer in 1..4096");
}

std::string cluster_text(const std::string& bandwidth, const std::string& fabric) {
  return R"({"name": "two", "device_types": {"g": {"kind": "gpu", "memory_gib": 80,
             "memory_gb_per_s": )" +
         bandwidth + R"(, "matrix_tflops": {"bf16": 100, "f32": 50}, "vector_tflops": {"f32": 10},
             "num_cores": 100}},
             "node_types": [{"name": "n", "devices": [{"type": "g", "count": 2}],
             "fabrics": [{"kind": "nvlink")" +
         fabric + "}]}]}";
}

TEST(SimulateCommand, RefusesClustersThatLackAFigureOrHaveAZero) {
  TestFolder folder;
  const auto error_of = [&](const std::string& text, std::vector<std::string> more) {
    std::ofstream(folder.file("c.json")) << text;
    std::vector<std::string> arguments = {"simulate", "-m",   "tiny", "-c", folder.file("c.json"),
                                          "-s",       "tp_pp"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = run_weir(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    return result.err;
  };
  const std::string link = error_of(cluster_text("1000", ""), {});
  EXPECT_NE(link.find("found no gb_per_s, allowed a rate"), std::string::npos) << link;
  const std::string zero = error_of(cluster_text("0", R"(, "gb_per_s": 100)"), {});
  EXPECT_NE(zero.find("memory_gb_per_s: found 0"), std::string::npos) << zero;
  const std::string zero_link = error_of(cluster_text("1000", R"(, "gb_per_s": 0)"), {});
  EXPECT_NE(zero_link.find("gb_per_s: found 0"), std::string::npos) << zero_link;
  // With one device nothing is sent, so the point is possible: the others say why they are not.
  const json swept = [&] {
    std::ofstream(folder.file("c.json")) << cluster_text("1000", "");
    return json_of({"simulate", "-m", "tiny", "-c", folder.file("c.json"), "-s", "tp_pp", "--sweep",
                    "tp=1,2"});
  }();
  EXPECT_EQ(swept["points"][0]["valid"], true);
  EXPECT_EQ(swept["points"][1]["valid"], false);
  EXPECT_NE(swept["points"][1]["reason"].get<std::string>().find("gb_per_s"), std::string::npos);
}

TEST(SimulateCommand, RefusesDevicesThatItDoesNotKnow) {
  const ProgramResult one = run_weir({"simulate", "-m", "tiny", "-c", "h900"});
  EXPECT_EQ(one.exit_code, 2);
  EXPECT_NE(one.err.find("h900"), std::string::npos) << one.err;
  const ProgramResult swept =
      run_weir({"simulate", "-m", "tiny", "-c", "h900", "--sweep", "seq=512..4096"});
  EXPECT_EQ(swept.exit_code, 2);
  EXPECT_EQ(swept.err, one.err) << "what is wrong with all points is said once";
}

TEST(SimulateCommand, NamesTheFiguresThatAClusterLacks) {
  const ProgramResult result = run_weir({"simulate", "-m", "tiny"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("--cluster: local: device type"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("found no memory_gb_per_s"), std::string::npos) << result.err;
}

TEST(AccuracyCommand, ReportsWhatIsThereAndSkipsWhatIsNot) {
  TestFolder folder;
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
  TestFolder folder;
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
