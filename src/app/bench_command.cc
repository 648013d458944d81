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
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/rank_session.h"
#include "app/rank_setup.h"
#include "app/setup.h"
#include "base/temporary_folder.h"
#include "checkpoint/preset.h"
#include "exec/follower.h"
#include "measure/calibrate.h"
#include "measure/ceilings.h"
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
    add_examples(
        app,
        "  weir calibrate --out here.json && weir bench -c here.json\n"
        "  mpirun -n 2 weir calibrate --out ranks.json && mpirun -n 2 weir bench -c ranks.json\n"
        "  weir bench -c here.json -m MODEL -s 'tp_pp tp=2' -s single --length 4096");
  }

  Result<ExitCode> run() override {
    if (auto read = read_lengths(); !read) return refuse(read.error());
    return take_role({.lead = [this](Ranks* ranks) { return lead(ranks); },
                      .obey = [this](Ranks& ranks) { return obey(ranks); }});
  }

 private:
  // What every rank has for itself.
  struct Subject {
    TemporaryFolder temporary;
    RankModel own;
  };
  [[nodiscard]] Result<Subject> open_subject() const {
    auto temporary = TemporaryFolder::make("bench");
    if (!temporary) return tl::unexpected(temporary.error());
    const auto folder = model_folder(temporary->path());
    if (!folder) return tl::unexpected(folder.error());
    auto own = open_rank_model(*folder);
    if (!own) return tl::unexpected(own.error());
    if (auto fits = check_lengths(own->model); !fits) return tl::unexpected(fits.error());
    return Subject{.temporary = *std::move(temporary), .own = *std::move(own)};
  }
  static RankIdentity identity(const Result<Subject>& subject) {
    if (!subject) return tl::unexpected(subject.error());
    return identity_of("bench", subject->own);
  }

  // The whole bench; with ranks, rank 0's part of it.
  Result<ExitCode> lead(Ranks* ranks) {
    ProgressLine line(progress_ ? ProgressLine::Shown::always : ProgressLine::Shown::on_terminal);
    line.show("model");
    const auto subject = open_subject();
    if (ranks != nullptr) {
      if (auto agreed = agree(*ranks, identity(subject)); !agreed)
        return tl::unexpected(agreed.error());
    }
    if (!subject) return tl::unexpected(subject.error());
    const auto cluster_file = calibrated(subject->temporary.path(), line);
    if (!cluster_file) return tl::unexpected(cluster_file.error());

    // What other hosts do cannot be seen from here.
    std::optional<MemoryWatch> memory;
    if (ranks == nullptr) {
      const auto cluster = load_cluster(*cluster_file);
      if (!cluster) return tl::unexpected(cluster.error());
      memory.emplace(cores_of(*cluster));
      options_.memory_now = [&] { return memory->rates(); };
    }

    std::vector<StrategyResult> results;
    RankRounds rounds(ranks);
    for (const std::string& text : chosen_strategies(ranks)) {
      if (interrupted()) return ExitCode::interrupted;
      line.show(text);
      auto result = bench(text, *cluster_file, subject->own, ranks, rounds);
      if (!result) return tl::unexpected(result.error());
      results.push_back(*std::move(result));
    }
    line.clear();
    if (json_) {
      print_json(to_json(subject->own.model, results));
    } else {
      print(report(subject->own.model, results));
    }
    return ExitCode::success;
  }

  // The part of any other rank, which says nothing: strategy after strategy.
  Result<ExitCode> obey(Ranks& ranks) {
    const auto subject = open_subject();
    const auto device = await_go(ranks, identity(subject), std::nullopt);
    if (!device) return ExitCode::success;
    while (await_round(ranks)) {
      const Status followed = follow(ranks, subject->own.checkpoint, subject->own.model, *device);
      if (!followed) await_end(ranks, followed.error());
    }
    return ExitCode::success;
  }

  // Ranks have a cluster file, and are spread as it says.
  [[nodiscard]] Status agree(Ranks& ranks, const RankIdentity& own) const {
    RankLeader leader(ranks);
    if (auto all = leader.gather(own, std::nullopt); !all) return all;
    if (!cluster_)
      return invalid_input(
          "--cluster: found none, allowed a file that `weir calibrate` has written on these ranks");
    const auto cluster = load_cluster(*cluster_);
    if (!cluster) return tl::unexpected(cluster.error());
    if (auto placed = check_placement(ranks, *cluster); !placed) return placed;
    leader.go(rank_devices(*cluster));
    return {};
  }

  // Those of two devices are for one process; ranks are as many as they are.
  [[nodiscard]] std::vector<std::string> chosen_strategies(const Ranks* ranks) const {
    if (!strategies_.empty()) return strategies_;
    if (ranks == nullptr) return default_strategies();
    const std::size_t count = ranks->size();
    return {fmt::format("context_parallel cp={}", count), fmt::format("tp_pp tp={}", count),
            fmt::format("attention_pool tp=1 pool={} pool_policy=fixed threshold=512", count - 1)};
  }

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
                               const RankModel& subject, Ranks* ranks, RankRounds& rounds) const {
    auto choice = parse_strategy(text);
    if (!choice) return tl::unexpected(choice.error());
    const auto setup =
        set_up(subject.model,
               {.strategy = *std::move(choice), .cluster = cluster_file, .kv_dtype = kv_dtype_});
    if (!setup) return tl::unexpected(setup.error());
    auto devices = ranks == nullptr ? local_devices(*setup)
                                    : Result<std::vector<ExecDevice>>(rank_devices(setup->cluster));
    if (!devices) return tl::unexpected(devices.error());
    const auto machine = Machine::make(setup->cluster);
    if (!machine) {
      return invalid_input(
          fmt::format("--cluster: {}: {}", printable(cluster_file), machine.error().message));
    }
    rounds.next();
    auto points =
        bench_on({.devices = *std::move(devices), .ranks = ranks}, subject, *setup, *machine);
    if (!points && ranks != nullptr) end_all(*ranks, points.error());
    if (!points) return tl::unexpected(points.error());
    return StrategyResult{.label = setup->strategy.label, .points = *std::move(points)};
  }

  [[nodiscard]] Result<std::vector<BenchPoint>> bench_on(ExecutorOptions options,
                                                         const RankModel& subject,
                                                         const Setup& setup,
                                                         const Machine& machine) const {
    auto executor = Executor::make(subject.checkpoint, subject.model, std::move(options));
    if (!executor) return tl::unexpected(executor.error());
    return bench_strategy(**executor, *setup.strategy.strategy, setup.header, machine, options_);
  }

  struct Errors {
    double median = 0;
    double worst = 0;
    double bias = 0;
    std::size_t count = 0;
  };
  static Errors errors_of(const std::vector<double>& signed_errors) {
    if (signed_errors.empty()) return {};
    std::vector<double> errors;
    Errors sum{.count = signed_errors.size()};
    for (const double error : signed_errors) {
      errors.push_back(std::abs(error));
      sum.bias += error / static_cast<double>(sum.count);
    }
    std::ranges::sort(errors);
    sum.worst = errors.back();
    sum.median = errors[errors.size() / 2];
    return sum;
  }
  // Of the points where the machine was as calibrated, or of the others.
  static Errors step_errors(const std::vector<StrategyResult>& results, bool as_calibrated) {
    std::vector<double> errors;
    for (const StrategyResult& result : results) {
      for (const BenchPoint& point : result.points) {
        if (point.other_memory.has_value() != as_calibrated) errors.push_back(point.error());
      }
    }
    return errors_of(errors);
  }
  // Of the points that have any.
  static Errors communication_errors(const std::vector<StrategyResult>& results) {
    constexpr auto kPlace = static_cast<std::size_t>(OpClass::communication);
    std::vector<double> errors;
    for (const StrategyResult& result : results) {
      for (const BenchPoint& point : result.points) {
        if (point.measured.work[kPlace] > 0)
          errors.push_back(point.predicted.work[kPlace] / point.measured.work[kPlace] - 1);
      }
    }
    return errors_of(errors);
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
        const std::string mark = point.other_memory ? "*" : "";
        std::vector<std::string> cells = {result.label,
                                          std::string(name_of(point.phase)) + mark,
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
    const auto line = [](std::string_view what, const Errors& errors) {
      return fmt::format("{} {}: median error {}, worst {}, bias {:+.1f}%\n", errors.count, what,
                         format_share(errors.median), format_share(errors.worst),
                         100 * errors.bias);
    };
    const Errors communication = communication_errors(results);
    const Errors otherwise = step_errors(results, false);
    return fmt::format(
        "{}: a step of one request, medians; work of tasks by class is the mean over devices\n\n"
        "{}\n{}{}{}",
        printable(model.name), render(table), line("comparisons", step_errors(results, true)),
        otherwise.count == 0
            ? ""
            : line("more (*) while the devices read memory at another rate than when calibrated",
                   otherwise),
        communication.count == 0 ? "" : line("of communication", communication));
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
                          {"error", point.error()},
                          {"other_memory", nullptr}});
        if (point.other_memory) {
          points.back()["other_memory"] = {{"alone_bytes_per_s", point.other_memory->alone},
                                           {"together_bytes_per_s", point.other_memory->together}};
        }
      }
    }
    const Errors errors = step_errors(results, true);
    return {{"model", model.name},
            {"points", std::move(points)},
            {"median_error", errors.median},
            {"worst_error", errors.worst},
            {"bias", errors.bias},
            {"other_memory_median_error", step_errors(results, false).median},
            {"communication_median_error", communication_errors(results).median}};
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
