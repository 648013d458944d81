// Partitions that fit a cache: one device against two with half the layers each, at the size where
// only the halves fit, and over all sizes beside the simulator's prediction.

#include <fmt/format.h>
#include <array>
#include <cmath>
#include <fstream>
#include <thread>

#include "bench/engine/in_turn.h"
#include "bench/engine/picture.h"
#include "bench/engine/sections.h"
#include "measure/calibrate.h"
#include "measure/ceilings.h"
#include "measure/strategy_bench.h"
#include "report/table.h"

namespace weir::bench {
namespace {

constexpr double kMib = 1 << 20;
constexpr DType kCommon = DType::bf16;  // What most models come in.
constexpr std::int64_t kContext = 16;   // Tokens before decoding: next to no cache to read.

// Two layers of about so many bytes each; the vocabulary is as small as it may be.
ModelSpec two_layers(std::int64_t layer_bytes, DType dtype) {
  constexpr std::int64_t kWidthStep = 64;
  constexpr std::int64_t kFfnStep = 16;
  const std::int64_t parameters = layer_bytes / size_in_bytes(dtype);
  // Four times as wide an FFN, gated: 4 H^2 + 3 * 4 H^2.
  const auto width = static_cast<std::int64_t>(std::sqrt(static_cast<double>(parameters) / 16));
  const std::int64_t hidden = std::max(kWidthStep, width / kWidthStep * kWidthStep);
  const std::int64_t ffn = (parameters - 4 * hidden * hidden) / (3 * hidden) / kFfnStep * kFfnStep;
  ModelSpec model = model_of("two-layers", {.num_layers = 2,
                                            .hidden_size = hidden,
                                            .num_heads = hidden / 32,
                                            .intermediate_size = std::max(kFfnStep, ffn),
                                            .vocab_size = 258});
  model.weight_dtype = dtype;
  return model;
}

double rate_from(const std::vector<int>& core, std::int64_t bytes) {
  double rate = 0;
  std::thread([&] {
    Team team(1, core);
    team.pin_caller();
    rate = read_bytes_per_s(team, bytes);
  }).join();
  return rate;
}

// A capacity of the cache of which one layer fits and two do not.
OptionValues partitions_of(const ModelSpec& model, std::int64_t microbatches) {
  const std::int64_t layer =
      count_parameters(model).per_layer() * size_in_bytes(model.weight_dtype);
  return {{"devices", "2"},
          {"capacity_kib", std::to_string(layer * 3 / 2 / 1024)},
          {"microbatches", std::to_string(microbatches)}};
}

struct Level {
  std::string name;
  std::int64_t bytes = 0;  // That one device has to itself.
};

// How decoding was split at one level of the caches, in the order of its table.
constexpr std::array<std::string_view, 5> kSplitNames = {
    "one device", "two partitions, one after the other", "two partitions, 2 microbatches of a step",
    "two partitions, 2 steps in flight", "`tp` 2"};
constexpr std::size_t kOneDevice = 0;
constexpr std::size_t kTwoPartitions = 1;
constexpr std::size_t kInFlight = 3;
constexpr std::size_t kTensorParallel = 4;
// Requests at once.
constexpr std::array<std::int64_t, 3> kCounts = {2, 4, 8};

struct LevelFigures {
  std::int64_t weight_bytes = 0;
  std::vector<TurnTimes> one = {};                                  // [split], of one request.
  std::array<std::vector<TurnTimes>, kCounts.size()> several = {};  // [split], of kCounts requests.
  double near = 0;  // Bytes per second, read over and over from half of the weights.
  double far = 0;   // From all of them.
};

Result<LevelFigures> measure_at(const Level& level, DType dtype, const std::vector<int>& core) {
  // Few, many times: keys and values stay small beside the weights.
  constexpr std::int64_t kSteps = 32;
  constexpr int kTimes = 12;
  constexpr double kFill = 0.7;  // Of the cache by a partition's weights; the rest is in use too.
  const auto model = ModelOnDisk::make(
      two_layers(static_cast<std::int64_t>(kFill * static_cast<double>(level.bytes)), dtype));
  if (!model) return tl::unexpected(model.error());
  const std::array<Split, kSplitNames.size()> splits = {
      Split{.strategy = "single"},
      Split{.strategy = "cache_fit", .options = partitions_of(model->spec(), 1)},
      Split{.strategy = "cache_fit", .options = partitions_of(model->spec(), 2)},
      Split{.strategy = "cache_fit", .options = partitions_of(model->spec(), 1), .in_flight = 2},
      Split{.strategy = "tp_pp", .options = {{"tp", "2"}}}};
  auto runs = make_runs(*model, splits);
  if (!runs) return tl::unexpected(runs.error());
  const auto times_of = [&](std::int64_t count) {
    return run_in_turn(*runs,
                       {.length = kContext, .count = count, .output_len = kSteps, .times = kTimes});
  };
  LevelFigures figures{.weight_bytes = decode_weight_bytes(model->spec())};
  auto one = times_of(1);
  if (!one) return tl::unexpected(one.error());
  figures.one = *std::move(one);
  for (std::size_t i = 0; i < kCounts.size(); ++i) {
    auto times = times_of(kCounts[i]);
    if (!times) return tl::unexpected(times.error());
    figures.several[i] = *std::move(times);
  }
  figures.near = rate_from(core, figures.weight_bytes / 2);
  figures.far = rate_from(core, figures.weight_bytes);
  return figures;
}

Table table_of(const LevelFigures& figures) {
  Table table{.columns = {{"", Align::left}, {"TPOT of one request, us"}}, .rows = {}};
  for (const std::int64_t count : kCounts)
    table.columns.push_back({fmt::format("{} requests, tokens/s", count)});
  for (std::size_t i = 0; i < kSplitNames.size(); ++i) {
    const Summary& step = figures.one[i].decode_step;
    std::vector<std::string> cells = {
        std::string(kSplitNames[i]),
        to_string(Summary{step.median * kMicro, step.least * kMicro, step.most * kMicro})};
    for (std::size_t j = 0; j < kCounts.size(); ++j) {
      cells.push_back(
          to_string(rate_of(static_cast<double>(kCounts[j]), figures.several[j][i].decode_step)));
    }
    table.rows.push_back({.cells = std::move(cells)});
  }
  return table;
}

// Throughput of steps in flight against that of `tp` 2, by requests.
std::string in_flight_ratios(const LevelFigures& figures) {
  std::string text;
  for (std::size_t j = 0; j < kCounts.size(); ++j) {
    const std::vector<TurnTimes>& times = figures.several[j];
    text +=
        fmt::format("{}{:.2f}x with {}", j == 0 ? "" : ", ",
                    times[kTensorParallel].decode_step.median / times[kInFlight].decode_step.median,
                    kCounts[j]);
  }
  return text;
}

Result<std::string> compare_at(const Level& level, DType dtype, const std::vector<int>& core) {
  const auto figures = measure_at(level, dtype, core);
  if (!figures) return tl::unexpected(figures.error());
  return fmt::format(
      "#### {0}, {7}\n\nWeights of {1:.2f} MiB in two layers ({7}): a half fits the {0} of a core "
      "({2:.2f} "
      "MiB), the whole does not. A core reads {3:.0f} GB/s over and over from a set as large as "
      "the "
      "half and {4:.0f} GB/s from one as large as the whole: {5:.2f}x is what reading alone can "
      "bring. TPOT is {6:.2f}x better with two partitions; with a step in flight on either, their "
      "throughput against `tp` 2 is {8} requests.\n\n{9}\n",
      level.name, static_cast<double>(figures->weight_bytes) / kMib,
      static_cast<double>(level.bytes) / kMib, figures->near / kGiga, figures->far / kGiga,
      figures->near / figures->far,
      figures->one[kOneDevice].decode_step.median / figures->one[kTwoPartitions].decode_step.median,
      to_string(dtype), in_flight_ratios(*figures), render_markdown(table_of(*figures)));
}

struct SweepPoint {
  double bytes = 0;
  std::array<PhaseTimes, 2> measured;  // Of one device, of two partitions.
  std::array<PhaseTimes, 2> predicted;
};

Result<SweepPoint> sweep_point(std::int64_t layer_bytes, const Machine& machine) {
  const auto model = ModelOnDisk::make(two_layers(layer_bytes, kCommon));
  if (!model) return tl::unexpected(model.error());
  const std::array<Split, 2> splits = {
      Split{.strategy = "single"},
      Split{.strategy = "cache_fit", .options = partitions_of(model->spec(), 1)}};
  SweepPoint point{.bytes = static_cast<double>(decode_weight_bytes(model->spec())),
                   .measured = {},
                   .predicted = {}};
  for (std::size_t i = 0; i < splits.size(); ++i) {
    const auto run = ModelRun::make(*model, splits[i]);
    if (!run) return tl::unexpected(run.error());
    const auto points =
        bench_strategy((*run)->executor(), (*run)->strategy(), (*run)->header(), machine,
                       {.lengths = {kContext}, .decode_steps = 64, .repetitions = 3});
    if (!points) return tl::unexpected(points.error());
    point.measured[i] = points->back().measured;
    point.predicted[i] = points->back().predicted;
  }
  return point;
}

Status write_picture(const std::string& path, const std::vector<SweepPoint>& points,
                     std::span<const Level> levels) {
  Chart chart{.title = "Weights read per second of decoding, by size of the model",
              .x_title = "weights of the model, MiB (two layers)",
              .y_title = "GB/s",
              .x = {},
              .lines = {{.name = "one device, measured", .colour = "#1f77b4", .values = {}},
                        {.name = "one device, predicted",
                         .colour = "#1f77b4",
                         .dashed = true,
                         .values = {}},
                        {.name = "two partitions, measured", .colour = "#d62728", .values = {}},
                        {.name = "two partitions, predicted",
                         .colour = "#d62728",
                         .dashed = true,
                         .values = {}}},
              .marks = {}};
  for (const SweepPoint& point : points) {
    chart.x.push_back(point.bytes / kMib);
    for (std::size_t i = 0; i < 2; ++i) {
      chart.lines[2 * i].values.push_back(point.bytes / point.measured[i].step / kGiga);
      chart.lines[2 * i + 1].values.push_back(point.bytes / point.predicted[i].step / kGiga);
    }
  }
  for (const Level& level : levels)
    chart.marks.push_back({.name = level.name, .x = static_cast<double>(level.bytes) / kMib});
  std::ofstream file(path);
  file << draw(chart);
  file.close();
  if (!file) return run_failed(fmt::format("{} cannot be written", path));
  return {};
}

Result<std::string> sweep(const ClusterSpec& cluster, std::span<const Level> levels,
                          std::int64_t largest, const SectionOptions& options) {
  const auto machine = Machine::make(cluster);
  if (!machine) return tl::unexpected(machine.error());
  std::vector<SweepPoint> points;
  Table table{.columns = {{"weights, MiB"},
                          {"one device, us"},
                          {"in linear layers"},
                          {"predicted"},
                          {"two partitions, us"},
                          {"in linear layers"},
                          {"predicted"},
                          {"gain"}},
              .rows = {}};
  constexpr auto kLinear = static_cast<std::size_t>(OpClass::linear);
  // Two sizes to each doubling.
  const double smallest = static_cast<double>(levels.front().bytes) / 8;
  for (int half_doublings = 0;; ++half_doublings) {
    const double layer = smallest * std::exp2(half_doublings / 2.0);
    if (2 * layer > static_cast<double>(largest)) break;
    options.progress(fmt::format("cache fit: layers of {:.2f} MiB", layer / kMib));
    const auto point = sweep_point(static_cast<std::int64_t>(layer), *machine);
    if (!point) return tl::unexpected(point.error());
    points.push_back(*point);
    std::vector<std::string> cells = {fmt::format("{:.2f}", point->bytes / kMib)};
    for (std::size_t i = 0; i < 2; ++i) {
      cells.push_back(fmt::format("{:.1f}", point->measured[i].step * kMicro));
      // Means over devices, which run one after the other.
      cells.push_back(fmt::format(
          "{:.1f}", point->measured[i].work[kLinear] * static_cast<double>(i + 1) * kMicro));
      cells.push_back(fmt::format("{:.1f}", point->predicted[i].step * kMicro));
    }
    cells.push_back(fmt::format("{:.2f}x", point->measured[0].step / point->measured[1].step));
    table.rows.push_back({.cells = std::move(cells)});
  }
  const std::string picture = "cache-fit.svg";
  if (auto drawn = write_picture(options.pictures + "/" + picture, points, levels); !drawn)
    return tl::unexpected(drawn.error());
  return fmt::format(
      "#### Sizes\n\nTPOT of two layers ({}) by the size of their weights, on one device of one "
      "core "
      "and as two partitions one after the other, beside what the simulator says with a cluster "
      "file "
      "from `weir calibrate` of the same run.\n\n![weights per second by size]({})\n\n{}\n",
      to_string(kCommon), picture, render_markdown(table));
}

}  // namespace

Result<std::string> cache_fit_section(const SectionOptions& options) {
  options.progress("cache fit: calibrating");
  const auto cluster = calibrate({.devices = {.num_devices = {}, .cores_per_device = 1}});
  if (!cluster) return tl::unexpected(cluster.error());
  if (cluster->devices.size() < 2) return std::string("Needs two cores.\n");
  const auto alone = local_cluster({.num_devices = 1, .cores_per_device = 1});
  if (!alone) return tl::unexpected(alone.error());
  const DeviceType& type = alone->device_types.front();
  if (!type.l2 || !type.l3) return std::string("The sizes of the caches are not known.\n");
  const std::array<Level, 2> levels = {Level{.name = "L2", .bytes = type.l2->value},
                                       Level{.name = "L3", .bytes = type.l3->value}};
  const std::vector<int> core = cores_of(*cluster).front();
  std::string text;
  for (const DType dtype : {kCommon, DType::f16, DType::f32}) {
    options.progress(fmt::format("cache fit: L2, {}", to_string(dtype)));
    auto at_l2 = compare_at(levels[0], dtype, core);
    if (!at_l2) return at_l2;
    text += *at_l2;
  }
  // A device's share is less than the whole where it is not the only one.
  if (cluster->device_types.front().l3 == type.l3) {
    options.progress("cache fit: L3");
    auto at_l3 = compare_at(levels[1], kCommon, core);
    if (!at_l3) return at_l3;
    text += *at_l3;
  } else {
    text += fmt::format(
        "#### L3\n\nThe cores share one L3 of {:.0f} MiB: two partitions have to fit it together, "
        "as "
        "the whole would. There is nothing to gain, and the sizes below show the step.\n\n",
        static_cast<double>(type.l3->value) / kMib);
  }
  auto sizes = sweep(*cluster, levels, 3 * type.l3->value, options);
  if (!sizes) return sizes;
  return text + *sizes;
}

}  // namespace weir::bench
