#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/setup.h"
#include "base/temporary_folder.h"
#include "checkpoint/preset.h"
#include "measure/calibrate.h"
#include "measure/strategy_bench.h"
#include "report/format.h"
#include "report/table.h"

namespace weir {
namespace {

constexpr std::int64_t kMostSteps = 4096;
constexpr std::int64_t kMostRepetitions = 1000;

// Memory-bound in decode and arithmetic-bound in prefill, as large models are, on a few cores.
constexpr std::string_view kDefaultPreset = "fa-pool-4l";
constexpr PresetOptions kDefaultModel{
    .scale = 0.25, .dtype = DType::bf16, .vocab_size = 8192, .max_position = 65536};

// "tp_pp tp=1 pp=2"
Result<StrategyChoice> parse_strategy(const std::string& text) {
  std::istringstream words(text);
  StrategyChoice choice;
  words >> choice.name;
  for (std::string word; words >> word;) {
    const std::size_t equals = word.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return invalid_input(
          fmt::format("--strategy: found \"{}\" in \"{}\", allowed NAME OPTION=VALUE ...",
                      printable(word), printable(text)));
    }
    choice.values[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return choice;
}

const std::vector<std::string>& default_strategies() {
  static const std::vector<std::string> kStrategies = {
      "single",
      "tp_pp tp=2",
      "tp_pp tp=1 pp=2",
      "attention_pool tp=1 pool=1 pool_policy=fixed threshold=512",
      "context_parallel cp=2",
      "two_level head_groups=2 dim_slices=1",
      "cache_fit devices=2 capacity_kib=131072",
  };
  return kStrategies;
}

struct StrategyResult {
  std::string label;
  std::vector<BenchPoint> points;
};

class BenchCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_text(app,
             {.name = "-m,--model",
              .help = "a model folder (default: random weights, 84 M parameters in bf16)"},
             model_);
    add_text(app,
             {.name = "-c,--cluster",
              .help = "a cluster file from `weir calibrate` (default: calibrates first)"},
             cluster_);
    add_texts(app,
              {.name = "-s,--strategy",
               .help = "NAME OPTION=VALUE ..., repeatable (default: seven on two devices)"},
              strategies_);
    add_texts(app, {.name = "--length", .help = "of the prompt, repeatable (default 128..2048)"},
              lengths_);
    add_integer(app, {.name = "--decode-steps", .help = "after each prompt (default 16)"},
                {.min = 1, .max = kMostSteps}, options_.decode_steps);
    add_integer(app, {.name = "--repetitions", .help = "of which the median counts (default 5)"},
                {.min = 1, .max = kMostRepetitions}, options_.repetitions);
    add_dtype(app, {.name = "--kv-dtype", .help = "of the KV cache (default f32)"}, kv_dtype_);
    add_switch(app, {.name = "--progress", .help = "progress on stderr even if it is no terminal"},
               progress_);
    add_switch(app, {.name = "--json", .help = "machine-readable on stdout"}, json_);
    add_examples(app,
                 "  weir calibrate --out here.json && weir bench -c here.json\n"
                 "  weir bench -c here.json -m MODEL -s 'tp_pp tp=2' -s single --length 4096");
  }

  Result<ExitCode> run() override {
    if (auto read = read_lengths(); !read) return tl::unexpected(read.error());
    ProgressLine line(progress_ ? ProgressLine::Shown::always : ProgressLine::Shown::on_terminal);
    const auto temporary = TemporaryFolder::make("bench");
    if (!temporary) return tl::unexpected(temporary.error());
    line.show("model");
    const auto folder = model_folder(temporary->path());
    if (!folder) return tl::unexpected(folder.error());
    const auto model = load_model_spec(*folder);
    if (!model) return tl::unexpected(model.error());
    if (auto fits = check_lengths(*model); !fits) return tl::unexpected(fits.error());
    const auto checkpoint = Checkpoint::open(*folder, *model);
    if (!checkpoint) return tl::unexpected(checkpoint.error());
    const auto cluster_file = calibrated(temporary->path(), line);
    if (!cluster_file) return tl::unexpected(cluster_file.error());

    std::vector<StrategyResult> results;
    for (const std::string& text : strategies_.empty() ? default_strategies() : strategies_) {
      if (interrupted()) return ExitCode::interrupted;
      line.show(text);
      auto result = bench(text, *cluster_file, *model, *checkpoint);
      if (!result) return tl::unexpected(result.error());
      results.push_back(*std::move(result));
    }
    line.clear();
    if (json_) {
      print_json(to_json(*model, results));
    } else {
      print(report(*model, results));
    }
    return ExitCode::success;
  }

 private:
  Status read_lengths() {
    constexpr std::array<std::int64_t, 5> kDefaultLengths{128, 256, 512, 1024, 2048};
    if (lengths_.empty()) options_.lengths.assign(kDefaultLengths.begin(), kDefaultLengths.end());
    for (const std::string& text : lengths_) {
      std::int64_t value = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc{} || end != text.data() + text.size() || value < 1 ||
          value > kMaxPrefillChunk) {
        return invalid_input(fmt::format("--length: found {}, allowed an integer in 1..{}",
                                         printable(text), kMaxPrefillChunk));
      }
      options_.lengths.push_back(value);
    }
    return {};
  }

  Status check_lengths(const ModelSpec& model) const {
    const std::int64_t longest =
        *std::ranges::max_element(options_.lengths) + options_.decode_steps + 1;
    if (longest <= model.max_position) return {};
    return invalid_input(fmt::format(
        "--length: found {} with {} decode steps, allowed {} together (max_position)",
        longest - options_.decode_steps - 1, options_.decode_steps, model.max_position));
  }

  Result<std::string> model_folder(const std::string& temporary) const {
    if (model_) return *model_;
    std::string folder = temporary + "/model";
    if (auto written = write_preset_model(folder, kDefaultPreset, kDefaultModel); !written)
      return tl::unexpected(written.error());
    return folder;
  }

  // Path of a cluster file.
  Result<std::string> calibrated(const std::string& temporary, ProgressLine& line) const {
    if (cluster_) return *cluster_;
    auto cluster = calibrate({.devices = {}, .progress = [&](std::string_view next) {
                                line.show(fmt::format("calibrating: {}", next));
                              }});
    if (!cluster) return tl::unexpected(cluster.error());
    std::string path = temporary + "/cluster.json";
    if (auto written = write_cluster_file(path, *cluster); !written)
      return tl::unexpected(written.error());
    return path;
  }

  Result<StrategyResult> bench(const std::string& text, const std::string& cluster_file,
                               const ModelSpec& model, const Checkpoint& checkpoint) const {
    auto choice = parse_strategy(text);
    if (!choice) return tl::unexpected(choice.error());
    const auto setup = set_up(
        model, {.strategy = *std::move(choice), .cluster = cluster_file, .kv_dtype = kv_dtype_});
    if (!setup) return tl::unexpected(setup.error());
    auto devices = local_devices(*setup);
    if (!devices) return tl::unexpected(devices.error());
    const auto machine = Machine::make(setup->cluster);
    if (!machine) {
      return invalid_input(
          fmt::format("--cluster: {}: {}", printable(cluster_file), machine.error().message));
    }
    auto executor = Executor::make(checkpoint, model, {.devices = *std::move(devices)});
    if (!executor) return tl::unexpected(executor.error());
    auto points =
        bench_strategy(**executor, *setup->strategy.strategy, setup->header, *machine, options_);
    if (!points) return tl::unexpected(points.error());
    return StrategyResult{.label = setup->strategy.label, .points = *std::move(points)};
  }

  struct Errors {
    double median = 0;
    double worst = 0;
    double bias = 0;
    std::size_t count = 0;
  };
  static Errors errors_of(const std::vector<StrategyResult>& results) {
    std::vector<double> errors;
    Errors sum;
    for (const StrategyResult& result : results) {
      for (const BenchPoint& point : result.points) {
        errors.push_back(std::abs(point.error()));
        sum.bias += point.error();
        sum.worst = std::max(sum.worst, errors.back());
      }
    }
    sum.count = errors.size();
    sum.bias /= static_cast<double>(errors.size());
    std::ranges::sort(errors);
    sum.median = errors[errors.size() / 2];
    return sum;
  }

  static std::string_view name_of(BenchPhase phase) {
    return phase == BenchPhase::prefill ? "prefill" : "decode";
  }

  std::string report(const ModelSpec& model, const std::vector<StrategyResult>& results) const {
    Table table{.columns = {{"strategy", Align::left},
                            {"phase", Align::left},
                            {"prompt"},
                            {"measured"},
                            {"predicted"},
                            {"off"}},
                .rows = {}};
    // Two columns for each class.
    for (const OpClass c : kOpClasses) {
      table.columns.push_back({std::string(to_string(c))});
      table.columns.push_back({"predicted"});
    }
    for (const StrategyResult& result : results) {
      for (const BenchPoint& point : result.points) {
        std::vector<std::string> cells = {result.label,
                                          std::string(name_of(point.phase)),
                                          std::to_string(point.length),
                                          format_duration(Seconds{point.measured.step}),
                                          format_duration(Seconds{point.predicted.step}),
                                          fmt::format("{:+.1f}%", 100 * point.error())};
        for (std::size_t c = 0; c < kOpClasses.size(); ++c) {
          cells.push_back(format_duration(Seconds{point.measured.work[c]}));
          cells.push_back(format_duration(Seconds{point.predicted.work[c]}));
        }
        table.rows.push_back({.cells = std::move(cells)});
      }
    }
    const Errors errors = errors_of(results);
    return fmt::format(
        "{}: a step of one request, medians; work of tasks by class is the mean over devices\n\n"
        "{}\n{} comparisons: median error {}, worst {}, bias {:+.1f}%\n",
        printable(model.name), render(table), errors.count, format_share(errors.median),
        format_share(errors.worst), 100 * errors.bias);
  }

  static nlohmann::json times_to_json(const PhaseTimes& times) {
    nlohmann::json json = {{"step_s", times.step}};
    for (std::size_t c = 0; c < kOpClasses.size(); ++c)
      json[fmt::format("{}_s", to_string(kOpClasses[c]))] = times.work[c];
    return json;
  }

  static nlohmann::json to_json(const ModelSpec& model,
                                const std::vector<StrategyResult>& results) {
    auto points = nlohmann::json::array();
    for (const StrategyResult& result : results) {
      for (const BenchPoint& point : result.points) {
        points.push_back({{"strategy", result.label},
                          {"phase", name_of(point.phase)},
                          {"prompt_len", point.length},
                          {"measured", times_to_json(point.measured)},
                          {"predicted", times_to_json(point.predicted)},
                          {"error", point.error()}});
      }
    }
    const Errors errors = errors_of(results);
    return {{"model", model.name},
            {"points", std::move(points)},
            {"median_error", errors.median},
            {"worst_error", errors.worst},
            {"bias", errors.bias}};
  }

  std::optional<std::string> model_;
  std::optional<std::string> cluster_;
  std::vector<std::string> strategies_;
  std::vector<std::string> lengths_;
  StrategyBenchOptions options_;
  std::optional<DType> kv_dtype_;
  bool progress_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_bench_command() { return std::make_unique<BenchCommand>(); }

}  // namespace weir
