#include "app/serving_accuracy.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "engine/plan_cache.h"
#include "plan/work.h"
#include "sim/csv.h"
#include "sim/generation.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

// What the models' config.json files say, by the names that the data has for them.
struct ServedModel {
  std::string_view name;
  std::int64_t num_layers;
  std::int64_t hidden_size;
  std::int64_t intermediate_size;
  std::int64_t num_q_heads;
  std::int64_t num_kv_heads;
  std::int64_t vocab_size;
};
constexpr std::array kServedModels = {
    ServedModel{"Llama-3.1-8B", 32, 4096, 14336, 32, 8, 128256},
    ServedModel{"Llama-3.1-8B-Instruct", 32, 4096, 14336, 32, 8, 128256},
    ServedModel{"Llama-3.1-70B", 80, 8192, 28672, 64, 8, 128256},
    ServedModel{"Llama-3.1-70B-Instruct", 80, 8192, 28672, 64, 8, 128256},
};

struct ServedDevice {
  std::string_view name;
  std::string_view cluster;
  std::string_view file;
};
constexpr std::array kServedDevices = {
    ServedDevice{"A100-SXM", "a100-sxm-80gb", "aic_e2e_a100.csv"},
    ServedDevice{"H100-SXM", "h100-sxm", "aic_e2e_h100.csv"},
    ServedDevice{"H200-SXM", "h200-sxm", "aic_e2e_h200.csv"},
};

Result<ModelSpec> model_of(const ServedModel& model) {
  return model_from_config({{"architectures", {"LlamaForCausalLM"}},
                            {"model_type", "llama"},
                            {"num_hidden_layers", model.num_layers},
                            {"hidden_size", model.hidden_size},
                            {"intermediate_size", model.intermediate_size},
                            {"num_attention_heads", model.num_q_heads},
                            {"num_key_value_heads", model.num_kv_heads},
                            {"vocab_size", model.vocab_size},
                            {"max_position_embeddings", 131072},
                            {"rms_norm_eps", 1e-5},
                            {"rope_theta", 500000.0},
                            {"torch_dtype", "bfloat16"},
                            {"hidden_act", "silu"},
                            {"tie_word_embeddings", false}},
                           std::string(model.name));
}

// A model on `tp` devices of a cluster.
class Server {
 public:
  static Result<std::unique_ptr<Server>> make(const ServedModel& served, std::int64_t tp,
                                              const Machine& machine) {
    auto model = model_of(served);
    if (!model) return tl::unexpected(model.error());
    auto named = make_strategy("tp_pp", {{"tp", fmt::format("{}", tp)}}, *model);
    if (!named) return tl::unexpected(named.error());
    PlanHeader header{.model = *std::move(model),
                      .strategy = named->label,
                      .activation_dtype = DType::bf16,
                      .kv_dtype = DType::bf16,
                      .logits = LogitsWanted::last,
                      .limits = {},
                      .devices = {}};
    for (std::int64_t i = 0; i < tp; ++i) {
      const Device& device = machine.cluster().device(static_cast<DeviceId>(i));
      header.devices.push_back({.name = device.name, .memory_bytes = {}});
    }
    return std::make_unique<Server>(*std::move(named), std::move(header), machine);
  }

  Server(NamedStrategy strategy, PlanHeader header, const Machine& machine)
      : strategy_(std::move(strategy)),
        plans_(*strategy_.strategy, std::move(header)),
        machine_(machine) {}

  Result<double> tpot(const ServingShape& shape) {
    const auto prediction = simulate_serving(
        [&](const StepLengths& lengths) { return plan_of(lengths, shape); }, machine_, shape);
    if (!prediction) return tl::unexpected(prediction.error());
    return prediction->tpot.value;
  }

  // Of a decode step, each op at the first device's peaks and nothing between them.
  Result<double> roofline_tpot(const ServingShape& shape) {
    const StepLengths lengths(static_cast<std::size_t>(shape.concurrency),
                              {.q_len = 1, .kv_len = shape.prompt_len + shape.output_len / 2});
    const auto plan = plan_of(lengths, shape);
    if (!plan) return tl::unexpected(plan.error());
    const DeviceType& type = machine_.cluster().type_of(DeviceId{0});
    double seconds = 0;
    for (const Node& node : (**plan)->nodes) {
      const auto work = work_of((*plan)->plan(), node, DeviceId{0}, lengths);
      seconds += roofline(type, DType::bf16, static_cast<double>(work.flops),
                          static_cast<double>(work.bytes()))
                     .value;
    }
    return seconds;
  }

 private:
  Result<const ValidPlan*> plan_of(const StepLengths& lengths, const ServingShape& shape) {
    const std::int64_t longest = shape.prompt_len + shape.output_len;
    PlanRequest request;
    for (const RequestLengths& one : lengths) {
      request.shape.push_back(
          {.past_len = one.kv_len - one.q_len, .q_len = one.q_len, .max_len = longest});
      request.limits.push_back({.q_len = one.q_len, .kv_len = longest});
    }
    return plans_.find(request);
  }

  NamedStrategy strategy_;
  PlanCache plans_;
  const Machine& machine_;
};

class ServingAccuracy {
 public:
  ServingAccuracy(const Machine& machine, AccuracyReport& report)
      : machine_(machine), report_(report) {}

  Status add(const CsvTable& table, std::size_t row) {
    const auto served =
        std::ranges::find(kServedModels, table.text(row, "model"), &ServedModel::name);
    const auto prompt = table.integer(row, "isl");
    const auto output = table.integer(row, "osl");
    const auto concurrency = table.integer(row, "concurrency");
    const auto tp = table.integer(row, "tp");
    const auto tpot_ms = table.number(row, "tpot_ms");
    const bool modelled = served != kServedModels.end() && table.text(row, "weights").empty() &&
                          table.text(row, "mode") == "agg" &&
                          table.integer(row, "pp").value_or(1) == 1 && prompt && output &&
                          concurrency && *concurrency <= kMostConcurrency && tp && tpot_ms &&
                          *tpot_ms > 0 && *tp >= 1 && *tp <= std::ssize(machine_.cluster().devices);
    if (!modelled) {
      ++report_.skipped;
      return {};
    }
    auto place = servers_.find({served->name, *tp});
    if (place == servers_.end()) {
      auto server = Server::make(*served, *tp, machine_);
      if (!server) return tl::unexpected(server.error());
      place = servers_.emplace(std::pair(served->name, *tp), *std::move(server)).first;
    }
    const ServingShape shape{
        .prompt_len = *prompt, .output_len = *output, .concurrency = *concurrency};
    const auto predicted = place->second->tpot(shape);
    if (!predicted) return tl::unexpected(predicted.error());
    const auto floor = place->second->roofline_tpot(shape);
    if (!floor) return tl::unexpected(floor.error());
    predicted_.push_back(*predicted);
    roofline_.push_back(*floor);
    measured_.push_back(*tpot_ms * 1e-3);
    return {};
  }

  void finish(const ServedDevice& device) {
    if (measured_.empty()) return;
    report_.rows.push_back({.what = "tpot served",
                            .on = std::string(device.name),
                            .file = std::string(device.file),
                            .model = summarize_errors(predicted_, measured_),
                            .roofline = summarize_errors(roofline_, measured_)});
  }

 private:
  static constexpr std::int64_t kMostConcurrency = 4096;

  const Machine& machine_;
  AccuracyReport& report_;
  std::map<std::pair<std::string_view, std::int64_t>, std::unique_ptr<Server>> servers_;
  std::vector<double> predicted_;
  std::vector<double> roofline_;
  std::vector<double> measured_;
};

}  // namespace

Status add_serving_accuracy(const std::filesystem::path& folder, AccuracyReport& report) {
  for (const ServedDevice& device : kServedDevices) {
    const std::string path = (folder / device.file).string();
    if (!std::filesystem::exists(path)) continue;
    const auto text = read_text_file(path);
    if (!text) return tl::unexpected(text.error());
    const auto table = CsvTable::parse(*text, device.file);
    if (!table) return tl::unexpected(table.error());
    auto cluster = load_cluster(std::string(device.cluster));
    if (!cluster) return tl::unexpected(cluster.error());
    const auto machine = Machine::make(*std::move(cluster));
    if (!machine) return tl::unexpected(machine.error());
    ServingAccuracy accuracy(*machine, report);
    for (std::size_t row = 0; row < table->num_rows(); ++row) {
      if (auto status = accuracy.add(*table, row); !status) return status;
    }
    accuracy.finish(device);
  }
  return {};
}

}  // namespace weir
