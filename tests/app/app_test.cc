// The program from outside: exit codes, one line on stderr, nothing but JSON on stdout where JSON
// is asked for.

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "base/json.h"
#include "plan/plan_json.h"
#include "tests/app/program.h"
#include "tests/app/tiny_model_test.h"

namespace weir {
namespace {

using Arguments = std::vector<std::string>;
using nlohmann::json;

class App : public TinyModelTest {
 protected:
  static std::string write(const std::string& name, const std::string& text) {
    std::ofstream(file(name), std::ios::binary) << text;
    return file(name);
  }
  // A copy of the model that the test may spoil.
  static std::string copy_of_tiny(const std::string& name) {
    std::filesystem::copy(tiny(), file(name));
    return file(name);
  }
  static std::string read(const std::string& path) { return read_text_file(path).value(); }

  static json json_of(const Arguments& arguments) {
    const ProgramResult result = run_weir(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    const auto parsed = parse_json(result.out, "stdout");
    EXPECT_TRUE(parsed) << result.out;
    return parsed.value_or(json());
  }
  // The command fails with this code and says so in exactly this line.
  static void expect_error(int exit_code, const Arguments& arguments, const std::string& line) {
    const ProgramResult result = run_weir(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << line;
    EXPECT_EQ(result.err, "weir: " + line + "\n");
    EXPECT_EQ(result.out, "") << line;
  }
  // The same where only a part of the line is promised.
  static void expect_error_with(int exit_code, const Arguments& arguments,
                                const std::string& part) {
    const ProgramResult result = run_weir(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    EXPECT_TRUE(result.err.starts_with("weir: ")) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  }
};

TEST_F(App, EveryCommandHasHelpWithAnExample) {
  std::vector<Arguments> all = {{}, {"model", "new"}, {"model", "show"}};
  for (const CommandEntry& entry : commands()) all.push_back({std::string(entry.name)});
  for (Arguments arguments : all) {
    arguments.emplace_back("--help");
    const ProgramResult help = run_weir(arguments);
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_EQ(help.err, "");
    EXPECT_NE(help.out.find("Examples:\n  weir "), std::string::npos) << help.out;
  }
}

TEST_F(App, ListsEveryStrategyWithItsOptions) {
  const json list = json_of({"strategies", "--json"});
  ASSERT_GE(list["strategies"].size(), 2U);
  EXPECT_EQ(list["strategies"][0]["name"], "single");
  const ProgramResult text = run_weir({"strategies"});
  for (const json& strategy : list["strategies"])
    EXPECT_NE(text.out.find(strategy["name"].get<std::string>() + "\n"), std::string::npos);
}

TEST_F(App, RefusesWrongCommandLines) {
  const std::string help = " (see `weir run --help`)";
  expect_error(2, {"--bogus"},
               "command: found --bogus, allowed one of: devices, model, strategies, plan, "
               "simulate, accuracy, calibrate, bench, claims, run, demo");
  expect_error(2, {"launch"},
               "command: found launch, allowed one of: devices, model, strategies, plan, simulate, "
               "accuracy, calibrate, bench, claims, run, demo");
  expect_error(2, {"model"}, "command: found none, allowed one of: new, show");
  expect_error(2, {"run"}, "--model: found nothing, allowed a value" + help);
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "--bogus", "7"},
               "--bogus: found an unknown option, allowed what weir run has" + help);
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "more"},
               "more: found an unknown argument, allowed what weir run has" + help);
  expect_error(2, {"run", "-m", tiny(), "-m", tiny(), "-p", "x"},
               "--model: found another number of values than the one that is allowed" + help);
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "-n", "0"},
               "--generate: found 0, allowed an integer in 1..2147483648");
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "-n", "99999999999999999999"},
               "--generate: found 99999999999999999999, allowed an integer in 1..2147483648");
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "--temperature", "nan"},
               "--temperature: found nan, allowed a number in 0..1000000");
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "--kv-dtype", "int4"},
               "--kv-dtype: found int4, allowed one of: f32, bf16, f16");
  expect_error(2, {"run", "-m", tiny()},
               "--prompt: found 0 of --prompt and --prompt-file together, allowed 1..4096");
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "--stop", ""},
               "--stop: found an empty text, allowed a longer one");
}

TEST_F(App, RefusesStrategiesThatTheModelCannotHave) {
  const Arguments run = {"run", "-m", tiny(), "-p", "x"};
  const auto with = [&](const Arguments& more) {
    Arguments all = run;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  expect_error_with(2, with({"-s", "magic"}), "--strategy: found magic, allowed one of: single, ");
  expect_error(2, with({"-s", "tp_pp", "--tp", "5"}),
               "--tp: found 5, allowed 1..4 (the model's attention heads)");
  expect_error(2, with({"-s", "tp_pp", "--pp", "3"}),
               "--pp: found 3, allowed 1..2 (the model's layers)");
  expect_error(2, with({"-s", "tp_pp", "--tp", "many"}),
               "--tp: found many, allowed an integer in 1..65536");
  expect_error(2, with({"--tp", "2"}), "--tp: strategy single has no such option, allowed: none");
}

TEST_F(App, RefusesClustersThatCannotRunThePlan) {
  const Arguments run = {"run", "-m", tiny(), "-p", "x", "-s", "tp_pp", "--tp", "4"};
  const auto on = [&](const std::string& cluster) {
    Arguments all = run;
    all.insert(all.end(), {"-c", cluster});
    return all;
  };
  expect_error_with(2, on("local:2"),
                    "--cluster: found local:2 with 2 devices, allowed at least 4 (tp_pp tp=4");
  expect_error_with(2, on("h100-sxm"), "allowed CPU devices of this machine (--cluster local)");
  expect_error_with(2, on("/nowhere.json"), "/nowhere.json");
}

TEST_F(App, RefusesModelsThatAreNotThereOrNotWhole) {
  expect_error_with(2, {"run", "-m", file("nowhere"), "-p", "x"}, "nowhere/config.json");
  expect_error_with(2, {"model", "show", file("nowhere")},
                    "allowed a model folder, a config.json, or a preset: tiny, ");
  const std::string no_tokenizer = copy_of_tiny("no_tokenizer");
  std::filesystem::remove(no_tokenizer + "/tokenizer.json");
  expect_error_with(2, {"run", "-m", no_tokenizer, "-p", "x"}, "tokenizer.json");

  const std::string truncated = copy_of_tiny("truncated");
  const std::string weights = truncated + "/model.safetensors";
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) / 2);
  expect_error_with(2, {"run", "-m", truncated, "-p", "x"}, "model.safetensors");
  std::filesystem::resize_file(weights, 5);
  expect_error_with(2, {"run", "-m", truncated, "-p", "x"}, "model.safetensors");

  const std::string bad_config = copy_of_tiny("bad_config");
  write("bad_config/config.json", R"({"model_type": "llama", "hidden_size": -3)");
  expect_error_with(2, {"run", "-m", bad_config, "-p", "x"}, "config.json: not valid JSON");
  write("bad_config/config.json", R"({"model_type": "llama", "hidden_size": -3})");
  expect_error_with(2, {"run", "-m", bad_config, "-p", "x"}, "hidden_size: found -3");
}

TEST_F(App, RefusesPromptsThatTheModelCannotRead) {
  expect_error(2, {"run", "-m", tiny(), "-p", ""},
               "requests[0].prompt: found 0 tokens, allowed at least 1");
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "--prompt-file", write("empty.txt", "")},
               "requests[1].prompt: found 0 tokens, allowed at least 1");
  expect_error(2, {"run", "-m", tiny(), "--prompt-file", write("long.txt", std::string(8193, 'x'))},
               "requests[0].prompt: found 8193 tokens, allowed 1..8192 (max_position)");
  expect_error(2, {"run", "-m", tiny(), "-p", "four", "-n", "8189"},
               "requests[0].max_new_tokens: found 8189, allowed 0..8188 (max_position 8192, "
               "prompt 4)");
  expect_error_with(2, {"run", "-m", tiny(), "--prompt-file", write("latin1.txt", "caf\xe9 au")},
                    "latin1.txt: ");
  expect_error_with(2, {"run", "-m", tiny(), "--prompt-file", file("nowhere.txt")}, "nowhere.txt");
  expect_error_with(2, {"run", "-m", tiny(), "--prompt-file", tiny()}, "tiny");
}

TEST_F(App, RefusesARunThatWillNotFitIntoMemory) {
  json cluster = json_of({"devices", "-c", "local:1x1", "--json"});
  cluster["device_types"].front()["memory_gib"] = 0.002;
  const std::string small = write("small.json", cluster.dump());
  const auto run = [&](const std::string& num_tokens) {
    return Arguments{"run", "-m", tiny(), "-p", "x", "-c", small, "-n", num_tokens, "--json"};
  };
  EXPECT_EQ(run_weir(run("10")).exit_code, 0);
  expect_error_with(2, run("8000"), "single: no valid plan: memory of device 0");
}

TEST_F(App, RunsAndSaysWhatItMeasured) {
  const ProgramResult result = run_weir({"run", "-m", tiny(), "-p", "Once upon a time", "-n", "8",
                                         "-s", "tp_pp", "--tp", "2", "--check"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  for (const char* part : {"tp_pp tp=2", "ttft", "tpot", "check: agrees with a single device"})
    EXPECT_NE(result.out.find(part), std::string::npos) << result.out;
}

TEST_F(App, RunPrintsNothingButJsonWhenAsked) {
  const json run = json_of({"run",  "-m", tiny(),           "-p", "one",     "-p",    "two words",
                            "-n",   "5",  "--ignore-eos",   "-s", "tp_pp",   "--tp",  "1",
                            "--pp", "2",  "--microbatches", "2",  "--check", "--json"});
  ASSERT_EQ(run["requests"].size(), 2U);
  EXPECT_EQ(run["requests"][1]["prompt_tokens"], 9);
  EXPECT_EQ(run["requests"][1]["tokens"].size(), 5U);
  EXPECT_EQ(run["requests"][1]["finish"], "length");
  EXPECT_EQ(run["check"]["agrees"], true);
  EXPECT_EQ(run["check"]["tokens_compared"], 10);
  EXPECT_EQ(run["devices"].size(), 2U);
  EXPECT_EQ(run["metrics"]["output_tokens"], 10);
}

TEST_F(App, TheSameSeedGivesTheSameTokens) {
  const auto tokens = [](const std::string& seed) {
    return json_of({"run", "-m", tiny(), "-p", "dice", "-n", "20", "--ignore-eos", "--temperature",
                    "1.5", "--top-k", "100", "--top-p", "0.99", "--seed", seed,
                    "--json"})["requests"][0]["tokens"];
  };
  EXPECT_EQ(tokens("7"), tokens("7"));
  EXPECT_NE(tokens("7"), tokens("8"));
}

TEST_F(App, AStopTextEndsARequestAndIsLeftOut) {
  const Arguments run = {"run", "-m", tiny(), "-p", "abc", "-n", "40", "--ignore-eos", "--json"};
  const std::string text = json_of(run)["requests"][0]["text"];
  ASSERT_GT(text.size(), 20U);
  // The second half of some text is surely there.
  const std::string stop = text.substr(text.size() / 2, 6);
  Arguments stopped = run;
  stopped.insert(stopped.end(), {"--stop", stop, "--stop", "never there"});
  const json result = json_of(stopped)["requests"][0];
  EXPECT_EQ(result["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(result["finish"], "stop");
}

TEST_F(App, WritesATrace) {
  const std::string path = file("trace.json");
  (void)json_of({"run", "-m", tiny(), "-p", "x", "-n", "2", "--trace", path, "--json"});
  EXPECT_GT(parse_json(read(path), path).value()["traceEvents"].size(), 10U);
  expect_error_with(
      2,
      {"run", "-m", tiny(), "-p", "x", "-n", "2", "--json", "--trace", file("no/such/folder.json")},
      "no/such/folder.json");
}

TEST_F(App, CtrlCEndsARunWithWhatThereIs) {
  const ProgramResult result = run_weir(
      {"run", "-m", tiny(), "-p", "x", "-n", "8000", "--ignore-eos"}, {.interrupt_after = 20});
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_EQ(result.err, "");
  EXPECT_NE(result.out.find("tpot"), std::string::npos);
}

TEST_F(App, ProgressGoesToStderrAndOnlyWhenAsked) {
  const Arguments run = {"run", "-m", tiny(), "-p", "some words", "-n", "3", "--json"};
  EXPECT_EQ(run_weir(run).err, "");
  Arguments watched = run;
  watched.emplace_back("--progress");
  EXPECT_NE(run_weir(watched).err.find("prompt 10/10 tokens"), std::string::npos);
}

TEST_F(App, RefusesPlacesWhereNothingCanBeWritten) {
  const std::string nowhere = file("no/such/place");
  const std::string allowed = ", allowed a file in an existing folder";
  for (const std::string flag : {"--json", "--dot", "--svg", "--chakra"}) {
    expect_error(2, {"plan", "-m", "tiny", flag, nowhere}, flag + ": found " + nowhere + allowed);
  }
  expect_error(2, {"run", "-m", tiny(), "-p", "x", "--trace", tiny()},
               "--trace: found " + tiny() + allowed);
  expect_error(2, {"demo", "--trace", nowhere}, "--trace: found " + nowhere + allowed);
}

TEST_F(App, PlansAreTablesJsonAndPictures) {
  const Arguments plan = {"plan", "-m", "tiny", "-s", "tp_pp", "--tp", "2", "--pp", "2"};
  const ProgramResult text = run_weir(plan);
  EXPECT_EQ(text.exit_code, 0) << text.err;
  for (const char* part : {"local/cpu3", "all_reduce", "layer 1", "KV cache"})
    EXPECT_NE(text.out.find(part), std::string::npos) << text.out;

  Arguments to_stdout = plan;
  to_stdout.emplace_back("--json");
  const auto read_back = plan_from_json(json_of(to_stdout), "stdout");
  ASSERT_TRUE(read_back) << read_back.error().message;
  EXPECT_EQ(read_back->devices.size(), 4U);

  Arguments to_files = plan;
  to_files.insert(to_files.end(), {"--json", file("plan.json"), "--dot", file("plan.dot"),
                                   "--chakra", file("trace")});
  EXPECT_EQ(run_weir(to_files).exit_code, 0);
  EXPECT_EQ(read(file("plan.json")), run_weir(to_stdout).out);
  EXPECT_TRUE(read(file("plan.dot")).starts_with("digraph"));
  EXPECT_NE(read(file("trace.3.et")).find("0.0.4"), std::string::npos);
  EXPECT_EQ(read(file("trace.groups.json")), "{\n  \"1\": [0, 1],\n  \"2\": [2, 3]\n}\n");
  EXPECT_EQ(run_weir({"plan", "--in", file("plan.json")}).out, text.out);
}

TEST_F(App, PlansReadFromFilesAreChecked) {
  expect_error_with(2, {"plan", "--in", write("broken.json", "{\"format\": 3}")}, "broken.json");
  ASSERT_EQ(run_weir({"plan", "-m", "tiny", "--json", file("sound.json")}).exit_code, 0);
  json plan = parse_json(read(file("sound.json")), "plan").value();
  plan["devices"][0]["compute"].erase(0);
  expect_error_with(2, {"plan", "--in", write("unsound.json", plan.dump())},
                    "unsound.json: no valid plan: ");
  expect_error(2, {"plan", "--in", file("sound.json"), "-m", "tiny"},
               "--model: found tiny with --in, allowed one of them");
  expect_error(2, {"plan"}, "--model: found nothing, allowed a model, or --in with a plan");
}

TEST_F(App, PlansForMachinesThatAreNotHere) {
  const ProgramResult plan =
      run_weir({"plan", "-m", "fa-pool-4l", "-c", "h100-sxm", "-s", "tp_pp", "--tp", "8", "--phase",
                "decode", "--batch", "4", "--prompt-len", "4096"});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_NE(plan.out.find("0..3"), std::string::npos);
  expect_error_with(2, {"plan", "-m", "tiny", "--prompt-len", "8192"},
                    "--prompt-len: found 8192 and --output-len 128, allowed 8192 together");
}

TEST_F(App, WritesModelsAndShowsThem) {
  const json made =
      json_of({"model", "new", "--preset", "fa-pool-4l", "--scale", "0.03125", "--vocab-size",
               "300", "--dtype", "bf16", "--out", file("pool"), "--json"});
  const json shown = json_of({"model", "show", file("pool"), "--json"});
  EXPECT_EQ(shown["parameters"]["total"], made["parameters"]);
  EXPECT_EQ(shown["weight_bytes"], 2 * made["parameters"].get<std::int64_t>());
  expect_error_with(2, {"model", "new", "--preset", "tiny", "--out", file("pool")}, "pool");
  EXPECT_EQ(
      run_weir({"model", "new", "--preset", "tiny", "--out", file("pool"), "--force"}).exit_code,
      0);
  expect_error_with(2, {"model", "new", "--preset", "gigantic", "--out", file("other")},
                    "gigantic");
  expect_error_with(2,
                    {"model", "new", "--preset", "tiny", "--scale", "0.3", "--out", file("other")},
                    "scale: found 0.3");
}

TEST_F(App, ShowsWhatTheNotesClaimBesideTheTrueCount) {
  const ProgramResult text = run_weir({"model", "show", "fa-pool-4l"});
  EXPECT_NE(text.out.find("The source notes claim 13.0 G parameters; these dimensions come to "
                          "1.34 G"),
            std::string::npos)
      << text.out;
  EXPECT_EQ(json_of({"model", "show", "tiny", "--json"})["claimed_parameters"], nullptr);
}

TEST_F(App, DevicesAreAClusterFileForOtherCommands) {
  const json cluster = json_of({"devices", "-c", "local:2x1", "--json"});
  const std::string path = write("machine.json", cluster.dump());
  const json run = json_of({"run", "-m", tiny(), "-p", "x", "-n", "2", "-s", "tp_pp", "--tp", "2",
                            "-c", path, "--json"});
  EXPECT_EQ(run["devices"].size(), 2U);
  const ProgramResult text = run_weir({"devices"});
  for (const char* part : {"memory", "GPUs", "MPI"})
    EXPECT_NE(text.out.find(part), std::string::npos) << text.out;
}

}  // namespace
}  // namespace weir
