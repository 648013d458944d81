#include "sim/accuracy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <numeric>
#include <optional>
#include <sstream>

#include <fmt/format.h>

#include "sim/calibration.h"
#include "sim/collectives.h"
#include "sim/csv.h"
#include "sim/device_model.h"

namespace weir {
namespace {

// As the files call the devices, and the catalogue's cluster of them.
struct KnownDevice {
  std::string_view name;
  std::string_view cluster;
};
constexpr std::array kKnownDevices = {
    KnownDevice{"A100-SXM", "a100-sxm-80gb"}, KnownDevice{"A100-80GB", "a100-pcie-80gb"},
    KnownDevice{"H100-SXM", "h100-sxm"}, KnownDevice{"H100-80GB", "h100-sxm"},
    KnownDevice{"H200-SXM", "h200-sxm"}};

struct KnownMachine {
  ClusterSpec cluster;
  DeviceModel model;
};

// One measurement beside what the model and a plain roofline say of it, in seconds.
struct TimeComparison {
  double measured = 0;
  double predicted = 0;
  double roofline = 0;
};

using Key = std::pair<std::string, std::string>;  // What, on which device.
using Comparisons = std::map<Key, std::vector<TimeComparison>>;

double quantile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return std::lerp(values[below], values[above], place - static_cast<double>(below));
}

// Ranks from 0; equal values share the mean of theirs.
std::vector<double> ranks_of(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return values[i]; });
  std::vector<double> ranks(values.size());
  for (std::size_t first = 0, end = 0; first < order.size(); first = end) {
    while (end < order.size() && values[order[end]] == values[order[first]]) ++end;
    const double mean = static_cast<double>(first + end - 1) / 2;
    for (std::size_t i = first; i < end; ++i) ranks[order[i]] = mean;
  }
  return ranks;
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const double n = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n;
  const double mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b);
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

class Accuracy {
 public:
  explicit Accuracy(std::filesystem::path folder) : folder_(std::move(folder)) {}

  Result<AccuracyReport> run() {
    struct File {
      const char* name;
      void (Accuracy::*add)(const CsvTable&, std::size_t);
    };
    static constexpr std::array kFiles = {
        File{"aic_gemm_a100.csv", &Accuracy::add_gemm},
        File{"aic_gemm_h100.csv", &Accuracy::add_gemm},
        File{"aic_gemm_h200.csv", &Accuracy::add_gemm},
        File{"vidur_linear_a100.csv", &Accuracy::add_layer},
        File{"vidur_linear_h100.csv", &Accuracy::add_layer},
        File{"aic_attention_a100.csv", &Accuracy::add_attention},
        File{"aic_attention_h100.csv", &Accuracy::add_attention},
        File{"aic_attention_h200.csv", &Accuracy::add_attention},
        File{"aic_collectives.csv", &Accuracy::add_collective},
    };
    for (const File& file : kFiles) {
      if (!std::filesystem::exists(folder_ / file.name)) {
        report_.absent.emplace_back(file.name);
        continue;
      }
      const auto table = read(file.name);
      if (!table) return tl::unexpected(table.error());
      comparisons_.clear();
      for (std::size_t row = 0; row < table->num_rows(); ++row) (this->*file.add)(*table, row);
      finish(file.name);
    }
    return std::move(report_);
  }

 private:
  Result<CsvTable> read(const std::string& name) const {
    const std::filesystem::path path = folder_ / name;
    std::ifstream stream(path, std::ios::binary);
    std::ostringstream text;
    text << stream.rdbuf();
    if (!stream) return invalid_input(fmt::format("{}: cannot be read", path.string()));
    return CsvTable::parse(text.str(), name);
  }

  const KnownMachine* machine(std::string_view device) {
    const auto found = std::ranges::find(kKnownDevices, device, &KnownDevice::name);
    if (found == kKnownDevices.end()) return nullptr;
    auto place = machines_.find(found->name);
    if (place == machines_.end()) {
      auto cluster = load_cluster(std::string(found->cluster));
      if (!cluster) return nullptr;
      auto model = DeviceModel::make(cluster->device_types[0]);
      if (!model) return nullptr;
      place = machines_
                  .emplace(found->name,
                           KnownMachine{.cluster = *std::move(cluster), .model = *std::move(model)})
                  .first;
    }
    return &place->second;
  }

  void add(const std::string& what, std::string_view on, const TimeComparison& comparison) {
    if (comparison.measured <= 0) {
      ++report_.skipped;
      return;
    }
    comparisons_[{what, std::string(on)}].push_back(comparison);
  }

  TimeComparison compare_gemm(const KnownMachine& machine, const GemmShape& shape,
                              double measured) const {
    const ShapeWork work = work_of(shape);
    const MemoryLevel& memory = machine.model.levels().back();
    return {.measured = measured,
            .predicted = machine.model.gemm(shape, memory).time.value,
            .roofline = roofline(machine.cluster.device_types[0], shape.activation, work.flops,
                                 work.weight_bytes + work.activation_bytes)
                            .value};
  }

  void add_gemm(const CsvTable& table, std::size_t row) {
    const KnownMachine* on = machine(table.text(row, "gpu"));
    const auto m = table.integer(row, "m");
    const auto n = table.integer(row, "n");
    const auto k = table.integer(row, "k");
    const auto time = table.number(row, "time_us");
    const bool modelled = table.text(row, "dtype") == "bfloat16" &&
                          table.text(row, "l2_warm") != "1" && on != nullptr;
    if (!modelled || !m || !n || !k || !time) {
      ++report_.skipped;
      return;
    }
    add("gemm", table.text(row, "gpu"),
        compare_gemm(*on, {.rows = *m, .cols = *n, .depth = *k}, *time * 1e-6));
  }

  // One row is one layer, op by op.
  void add_layer(const CsvTable& table, std::size_t row) {
    const std::string_view device = table.text(row, "device");
    const KnownMachine* on = machine(device);
    std::map<std::string_view, std::int64_t> of;
    for (const std::string_view column :
         {"hidden", "ffn", "q_heads", "kv_heads", "gated", "tp", "tokens"})
      of[column] = table.integer(row, column).value_or(0);
    if (on == nullptr || of["q_heads"] <= 0 || of["tp"] <= 0) {
      ++report_.skipped;
      return;
    }
    const std::int64_t tokens = of["tokens"];
    const std::int64_t hidden = of["hidden"];
    const std::int64_t head_dim = hidden / of["q_heads"];
    const std::int64_t q_width = of["q_heads"] * head_dim / of["tp"];
    const std::int64_t kv_width = of["kv_heads"] * head_dim / of["tp"];
    const std::int64_t ffn = of["ffn"] / of["tp"];
    const auto product = [&](std::string_view column, std::int64_t cols, std::int64_t depth) {
      const GemmShape shape{.rows = tokens, .cols = cols, .depth = depth};
      add("gemm", device, compare_gemm(*on, shape, table.number(row, column).value_or(0) * 1e-6));
    };
    product("attn_pre_proj_us", q_width + 2 * kv_width, hidden);
    product("attn_post_proj_us", hidden, q_width);
    product("mlp_up_proj_us", (1 + of["gated"]) * ffn, hidden);
    product("mlp_down_proj_us", hidden, ffn);
    const auto pass = [&](std::string_view column, std::int64_t elements) {
      const StreamShape shape{.bytes = 2 * tokens * elements, .flops = 0};
      add("elementwise", device,
          {.measured = table.number(row, column).value_or(0) * 1e-6,
           .predicted = on->model.stream(shape, on->model.levels().back()).time.value,
           .roofline = roofline(on->cluster.device_types[0], DType::bf16, 0,
                                static_cast<double>(shape.bytes))
                           .value});
    };
    pass("input_layernorm_us", 2 * hidden);
    pass("post_attention_layernorm_us", 2 * hidden);
    pass("attn_rope_us", 2 * (q_width + kv_width));
    pass("mlp_act_us", (of["gated"] + 2) * ffn);
    pass("add_us", 3 * hidden);
  }

  void add_attention(const CsvTable& table, std::size_t row) {
    const KnownMachine* on = machine(table.text(row, "gpu"));
    std::map<std::string_view, std::optional<std::int64_t>> of;
    bool complete = on != nullptr && table.text(row, "kv_dtype") == "bf16";
    for (const std::string_view column :
         {"q_heads", "kv_heads", "head_dim", "batch", "q_tokens_per_seq", "kv_len"}) {
      of[column] = table.integer(row, column);
      complete = complete && of[column] && *of[column] > 0;
    }
    const auto time = table.number(row, "time_us");
    if (!complete || !time || *of["kv_len"] < *of["q_tokens_per_seq"]) {
      ++report_.skipped;
      return;
    }
    const bool prefill = *of["q_tokens_per_seq"] > 1;
    const AttentionTile tile{.q_len = *of["q_tokens_per_seq"],
                             .past_len = *of["kv_len"] - *of["q_tokens_per_seq"],
                             .key_begin = 0,
                             .key_end = *of["kv_len"],
                             .q_heads = *of["q_heads"],
                             .kv_heads = *of["kv_heads"]};
    AttentionShape shape{.tiles = {}, .head_dim = *of["head_dim"], .value_dim = *of["head_dim"]};
    shape.tiles.assign(static_cast<std::size_t>(*of["batch"]), tile);
    const ShapeWork work = work_of(shape);
    // The same kernel runs again and again: what its decode reads stays in L2 if it fits.
    const MemoryLevel& memory = on->model.levels().back();
    const Residence cache =
        prefill ? memory : on->model.residence_of(static_cast<std::int64_t>(work.weight_bytes));
    double predicted = on->model.attention(shape, cache).time.value;
    if (prefill) {
      // Measured together with the write of new keys and values.
      const DeviceType& type = on->cluster.device_types[0];
      const AttentionConstants& c = calibration_for(type).attention;
      predicted += c.append_passes * work.weight_bytes /
                   (type.memory_bandwidth->value * c.memory_efficiency);
    }
    add(prefill ? "attention prefill" : "attention decode", table.text(row, "gpu"),
        {.measured = *time * 1e-6,
         .predicted = predicted,
         .roofline = roofline(on->cluster.device_types[0], DType::bf16, work.flops,
                              work.weight_bytes + work.activation_bytes)
                         .value});
  }

  void add_collective(const CsvTable& table, std::size_t row) {
    const KnownMachine* on = machine(table.text(row, "gpu"));
    const std::string_view op = table.text(row, "op");
    const auto kind = parse_op_kind(op == "alltoall" ? "all_to_all" : op);
    const auto gpus = table.integer(row, "gpus");
    const auto bytes = table.integer(row, "bytes");
    const auto time = table.number(row, "time_us");
    constexpr std::int64_t kSmallest = 1 << 10;
    constexpr std::int64_t kLargest = std::int64_t{1} << 29;
    if (on == nullptr || !kind || queue_of(*kind) != Queue::comm || !gpus || *gpus < 2 ||
        *gpus > std::ssize(on->cluster.devices) || !bytes || *bytes < kSmallest ||
        *bytes > kLargest || !time) {
      ++report_.skipped;
      return;
    }
    const bool library = table.text(row, "impl") == "NCCL";
    CollectiveShape shape{.kind = *kind, .members = {}, .root = {}, .bytes = *bytes};
    if (*kind == OpKind::all_to_all) shape.bytes *= *gpus;
    for (std::int64_t i = 0; i < *gpus; ++i)
      shape.members.push_back(on->cluster.devices[static_cast<std::size_t>(i)].id);
    const CollectiveOptions options{.custom_all_reduce = !library, .library = true};
    const auto cost = collective_cost(Topology(on->cluster), shape, options);
    if (!cost) {
      ++report_.skipped;
      return;
    }
    const double share = static_cast<double>(*gpus - 1) / static_cast<double>(*gpus);
    const double passes = *kind == OpKind::all_reduce ? 2 : 1;
    const double port = on->cluster.node_types[0].fabrics[0].bandwidth->value;
    add(std::string(op) + (library ? "" : ", custom"), table.text(row, "gpu"),
        {.measured = *time * 1e-6,
         .predicted = cost->total().value,
         .roofline = passes * share * static_cast<double>(*bytes) / port});
  }

  void finish(const std::string& file) {
    for (const auto& [key, comparisons] : comparisons_) {
      std::vector<double> measured;
      std::vector<double> predicted;
      std::vector<double> roofline;
      for (const TimeComparison& comparison : comparisons) {
        measured.push_back(comparison.measured);
        predicted.push_back(comparison.predicted);
        roofline.push_back(comparison.roofline);
      }
      report_.rows.push_back({.what = key.first,
                              .on = key.second,
                              .file = file,
                              .model = summarize_errors(predicted, measured),
                              .roofline = summarize_errors(roofline, measured)});
    }
  }

  std::filesystem::path folder_;
  std::map<std::string_view, KnownMachine> machines_;
  Comparisons comparisons_;  // Of the file at hand.
  AccuracyReport report_;
};

}  // namespace

ErrorSummary summarize_errors(const std::vector<double>& predicted,
                              const std::vector<double>& measured) {
  ErrorSummary summary;
  summary.count = static_cast<std::int64_t>(measured.size());
  if (measured.empty()) return summary;
  std::vector<double> errors;
  std::vector<double> sizes;
  for (std::size_t i = 0; i < measured.size(); ++i) {
    errors.push_back(predicted[i] / measured[i] - 1);
    sizes.push_back(std::abs(errors.back()));
  }
  summary.median = quantile(sizes, 0.5);
  summary.p90 = quantile(sizes, 0.9);
  summary.bias = quantile(errors, 0.5);
  summary.rank_correlation = correlation(ranks_of(predicted), ranks_of(measured));
  return summary;
}

Result<AccuracyReport> measure_accuracy(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder))
    return invalid_input(fmt::format("--data: found {}, allowed a folder", folder.string()));
  return Accuracy(folder).run();
}

}  // namespace weir
