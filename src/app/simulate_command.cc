#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/model_source.h"
#include "app/output.h"
#include "app/setup.h"
#include "engine/plan_cache.h"
#include "report/format.h"
#include "report/metrics_page.h"
#include "report/table.h"
#include "report/trace.h"
#include "result/metrics.h"
#include "sim/generation.h"
#include "sim/memory_trace.h"

namespace weir {
namespace {

constexpr std::int64_t kMostRequests = 4096;
constexpr std::int64_t kLongest = std::int64_t{1} << 31;
constexpr std::int64_t kMostOutput = std::int64_t{1} << 20;
constexpr std::size_t kDevicesShown = 16;

struct SimulateCommandOptions {
  std::string model;
  SetupOptions setup;
  std::int64_t batch_size = 1;
  std::int64_t prompt_len = 1024;
  std::int64_t output_len = 128;
  double step_overhead_us = 0;
  std::optional<std::string> trace;
  bool nccl_only = false;
  bool json = false;
};

// A step whose plan is kept, so that what it holds can be followed.
struct PlannedStep {
  const ValidPlan* plan = nullptr;
  StepLengths lengths;
};

nlohmann::json memory_to_json(const std::string& device, const DeviceMemory& memory) {
  return {{"device", device},
          {"weights", memory.weights},
          {"kv_cache", memory.kv_cache},
          {"activations", memory.activations},
          {"attention", memory.attention},
          {"comm_buffers", memory.comm_buffers},
          {"total", memory.total()}};
}

std::string bytes_cell(std::int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

class SimulateCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_text(app,
             {.name = "-m,--model",
              .help = "a model folder, a config.json or a preset: " + preset_names(),
              .required = true},
             options_.model);
    add_setup_flags(app, options_.setup);
    add_dtype(app,
              {.name = "--activation-dtype",
               .help = "of activations (default f32 on CPUs, the model's dtype on GPUs)"},
              options_.setup.activation_dtype);
    add_integer(app, {.name = "--batch", .help = "requests (default 1)"},
                {.min = 1, .max = kMostRequests}, options_.batch_size);
    add_integer(app, {.name = "--prompt-len", .help = "tokens of each prompt (default 1024)"},
                {.min = 1, .max = kLongest}, options_.prompt_len);
    add_integer(app, {.name = "--output-len", .help = "tokens generated for each (default 128)"},
                {.min = 1, .max = kMostOutput}, options_.output_len);
    add_number(app,
               {.name = "--step-overhead-us",
                .help = "scheduling and sampling on the host before each step (default 0)"},
               {.min = 0, .max = 1e9}, options_.step_overhead_us);
    add_switch(app,
               {.name = "--nccl-only",
                .help = "no custom all_reduce kernels as serving engines have them"},
               options_.nccl_only);
    add_text(app,
             {.name = "--trace", .help = "write the last decode step here, for ui.perfetto.dev"},
             options_.trace);
    add_switch(app, {.name = "--json", .help = "machine-readable, on stdout"}, options_.json);
    add_examples(app,
                 "  weir simulate -m fa-pool-4l -c h100-sxm -s tp_pp --tp 8 --prompt-len 4096\n"
                 "  weir simulate -m fa-pool-4l -c a100-sxm-80gb:2 -s tp_pp --tp 8 --pp 2 --json");
  }

  Result<ExitCode> run() override {
    const auto model = load_model(options_.model);
    if (!model) return tl::unexpected(model.error());
    if (longest() > model->max_position) {
      return invalid_input(
          fmt::format("--prompt-len: found {} and --output-len {}, allowed {} together "
                      "(max_position)",
                      options_.prompt_len, options_.output_len, model->max_position));
    }
    auto setup = set_up(*model, options_.setup);
    if (!setup) return tl::unexpected(setup.error());
    const auto machine = Machine::make(setup->cluster);
    if (!machine) {
      return invalid_input(
          fmt::format("--cluster: {}: {}", options_.setup.cluster, machine.error().message));
    }
    // What does not fit is simulated all the same, and said so first.
    PlanHeader header = setup->header;
    for (PlanHeader::Device& device : header.devices) device.memory_bytes = {};
    PlanCache plans(*setup->strategy.strategy, std::move(header));

    GenerationSimOptions options;
    options.step.collectives.custom_all_reduce = !options_.nccl_only;
    options.between_steps = to_sim_time_us(options_.step_overhead_us);
    const GenerationShape shape{
        .prompt_lens = std::vector<std::int64_t>(static_cast<std::size_t>(options_.batch_size),
                                                 options_.prompt_len),
        .output_len = options_.output_len};
    const auto prediction = simulate_generation(plan_of(plans), *machine, shape, options);
    if (!prediction) return tl::unexpected(prediction.error());
    const auto serving = simulate_serving(plan_of(plans), *machine,
                                          {.prompt_len = options_.prompt_len,
                                           .output_len = options_.output_len,
                                           .concurrency = options_.batch_size},
                                          options);
    if (!serving) return tl::unexpected(serving.error());
    if (options_.trace) {
      if (auto status = write_trace(prediction->last_decode.timeline, *options_.trace); !status)
        return tl::unexpected(status.error());
    }
    const std::vector<DeviceMemory> memory = peak_memory(*prediction);
    const std::optional<std::string> shortage = shortage_of(*setup, memory);
    if (options_.json) {
      nlohmann::json json = to_json(*setup, *prediction, memory, shortage);
      json["serving"] = {{"tpot_s", serving->tpot.value}, {"output_tps", serving->output_tps}};
      print_json(json);
    } else {
      print_page(*setup, *prediction, memory, shortage);
      print("\n");
      print(render(serving_table(*serving)));
    }
    return ExitCode::success;
  }

 private:
  [[nodiscard]] std::int64_t longest() const { return options_.prompt_len + options_.output_len; }

  static SimTime to_sim_time_us(double us) { return {static_cast<std::int64_t>(us * 1e3)}; }

  // Decode plans serve all lengths up to the longest.
  PlanOf plan_of(PlanCache& plans) {
    return [this, &plans](const StepLengths& lengths) -> Result<const ValidPlan*> {
      PlanRequest request;
      for (const RequestLengths& one : lengths) {
        request.shape.push_back(
            {.past_len = one.kv_len - one.q_len, .q_len = one.q_len, .max_len = longest()});
        const bool prefill = one.kv_len == one.q_len;
        request.limits.push_back({.q_len = one.q_len, .kv_len = prefill ? one.kv_len : longest()});
      }
      auto plan = plans.find(request);
      if (plan) {
        PlannedStep& step = lengths[0].q_len == lengths[0].kv_len ? prefill_ : decode_;
        // Samples come in no order of lengths; the longest holds most.
        if (step.plan == nullptr || step.lengths[0].kv_len < lengths[0].kv_len)
          step = {.plan = *plan, .lengths = lengths};
      }
      return plan;
    };
  }

  // The larger of the prefill's and the last decode step's peak, by device.
  std::vector<DeviceMemory> peak_memory(const GenerationPrediction& prediction) const {
    std::vector<DeviceMemory> peaks(prediction.timeline.devices.size());
    const auto take = [&](const PlannedStep& step, const SimulatedStep& simulated) {
      if (step.plan == nullptr) return;
      const MemoryTrace trace =
          trace_memory(simulated.timeline, 0, step.plan->plan(), step.lengths);
      for (std::size_t d = 0; d < peaks.size(); ++d) {
        const DeviceMemory& peak = trace.peak(static_cast<DeviceId>(d)).memory;
        if (peak.total() > peaks[d].total()) peaks[d] = peak;
      }
    };
    take(prefill_, prediction.prefill);
    if (decode_.plan != nullptr) take(decode_, prediction.last_decode);
    return peaks;
  }

  std::optional<std::string> shortage_of(const Setup& setup,
                                         const std::vector<DeviceMemory>& memory) const {
    const PlannedStep& step = decode_.plan != nullptr ? decode_ : prefill_;
    Plan plan = step.plan->plan();
    for (std::size_t d = 0; d < plan.devices.size(); ++d)
      plan.devices[d].memory_bytes = setup.header.devices[d].memory_bytes;
    const auto shortage = find_shortage(plan, step.lengths, memory);
    if (!shortage) return std::nullopt;
    return describe(plan, *shortage);
  }

  nlohmann::json to_json(const Setup& setup, const GenerationPrediction& prediction,
                         const std::vector<DeviceMemory>& memory,
                         const std::optional<std::string>& shortage) const {
    nlohmann::json devices = nlohmann::json::array();
    for (std::size_t d = 0; d < memory.size(); ++d)
      devices.push_back(memory_to_json(prediction.timeline.devices[d], memory[d]));
    nlohmann::json json = {
        {"model", setup.header.model.name},
        {"strategy", setup.strategy.label},
        {"cluster", setup.cluster.name},
        {"batch", options_.batch_size},
        {"prompt_len", options_.prompt_len},
        {"output_len", options_.output_len},
        {"fits", !shortage.has_value()},
        {"shortage", nullptr},
        {"generation", metrics_to_json(compute_metrics(prediction.timeline))},
        {"prefill", metrics_to_json(compute_metrics(prediction.prefill.timeline))},
        {"last_decode", metrics_to_json(compute_metrics(prediction.last_decode.timeline))},
        {"memory", devices},
        {"joules", prediction.joules},
        {"joules_per_token", prediction.joules_per_token()},
        {"usd_per_million_tokens", nullptr},
        {"simulated_steps", prediction.simulated_steps},
        {"links_shared", prediction.prefill.links_shared || prediction.last_decode.links_shared}};
    if (shortage) json["shortage"] = *shortage;
    if (prediction.usd > 0) json["usd_per_million_tokens"] = prediction.usd_per_million_tokens();
    return json;
  }

  void print_page(const Setup& setup, const GenerationPrediction& prediction,
                  const std::vector<DeviceMemory>& memory,
                  const std::optional<std::string>& shortage) const {
    if (shortage) print(fmt::format("does not fit: {}\n\n", *shortage));
    print(fmt::format("{} on {}, {}: {} requests of {} + {} tokens, predicted\n\n",
                      printable(setup.header.model.name), printable(setup.cluster.name),
                      setup.strategy.label, options_.batch_size, options_.prompt_len,
                      options_.output_len));
    print(report_metrics(compute_metrics(prediction.timeline)));
    print("\nprefill\n\n");
    print(report_metrics(compute_metrics(prediction.prefill.timeline)));
    if (options_.output_len > 1) {
      print("\nlast decode step\n\n");
      print(report_metrics(compute_metrics(prediction.last_decode.timeline)));
    }
    print("\n");
    print(render(memory_table(prediction, memory)));
    print("\n");
    print(render(cost_table(prediction)));
  }

  static Table memory_table(const GenerationPrediction& prediction,
                            const std::vector<DeviceMemory>& memory) {
    Table table{.columns = {{"peak memory", Align::left},
                            {"weights"},
                            {"KV cache"},
                            {"activations"},
                            {"attention"},
                            {"comm buffers"},
                            {"total"}},
                .rows = {}};
    for (std::size_t d = 0; d < std::min(memory.size(), kDevicesShown); ++d) {
      const DeviceMemory& m = memory[d];
      table.rows.push_back(
          {.cells = {prediction.timeline.devices[d], bytes_cell(m.weights), bytes_cell(m.kv_cache),
                     bytes_cell(m.activations), bytes_cell(m.attention), bytes_cell(m.comm_buffers),
                     bytes_cell(m.total())}});
    }
    if (memory.size() > kDevicesShown) {
      table.rows.push_back({.cells = {fmt::format("and {} more", memory.size() - kDevicesShown)}});
    }
    return table;
  }

  static Table cost_table(const GenerationPrediction& prediction) {
    const double seconds = to_seconds(prediction.timeline.end);
    Table table{.columns = {{"energy and price", Align::left}, {""}}, .rows = {}};
    const auto add = [&](std::string what, std::string value) {
      table.rows.push_back({.cells = {std::move(what), std::move(value)}});
    };
    add("mean power", format_quantity(prediction.joules / seconds, "W"));
    add("per output token", format_quantity(prediction.joules_per_token(), "J"));
    if (prediction.usd > 0) {
      add("per million output tokens",
          fmt::format("{:.2f} USD", prediction.usd_per_million_tokens()));
    }
    return table;
  }

  static Table serving_table(const ServingPrediction& serving) {
    return {.columns = {{"serving, each request replaced as it ends", Align::left}, {""}},
            .rows = {{.cells = {"tpot", format_duration(serving.tpot)}},
                     {.cells = {"output tokens per second", format_count(serving.output_tps)}}}};
  }

  SimulateCommandOptions options_;
  PlannedStep prefill_;
  PlannedStep decode_;
};

}  // namespace

std::unique_ptr<Command> make_simulate_command() { return std::make_unique<SimulateCommand>(); }

}  // namespace weir
