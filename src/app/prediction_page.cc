#include "app/prediction_page.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "report/format.h"
#include "report/metrics_page.h"
#include "report/table.h"
#include "result/metrics.h"

namespace weir {
namespace {

constexpr std::size_t kDevicesShown = 16;

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

Table memory_table(const GenerationPrediction& prediction,
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

Table cost_table(const GenerationPrediction& prediction) {
  const double seconds = to_seconds(prediction.timeline.end);
  Table table{.columns = {{"energy and price", Align::left}, {""}}, .rows = {}};
  const auto add = [&](std::string what, std::string value) {
    table.rows.push_back({.cells = {std::move(what), std::move(value)}});
  };
  add("energy", fmt::format("{}, {} of it at rest", format_quantity(prediction.joules, "J"),
                            format_share(prediction.resting_joules / prediction.joules)));
  add("mean power", fmt::format("{}, at rest {}", format_quantity(prediction.joules / seconds, "W"),
                                format_quantity(prediction.resting_joules / seconds, "W")));
  add("per output token", format_quantity(prediction.joules_per_token(), "J"));
  add("output tokens/s per watt", fmt::format("{:.4g}", 1 / prediction.joules_per_token()));
  if (prediction.usd > 0) {
    add("per million output tokens",
        fmt::format("{:.2f} USD", prediction.usd_per_million_tokens()));
  }
  return table;
}

Table pipeline_table(const Prediction& prediction, std::int64_t requests) {
  const SteadyState& full = *prediction.pipeline;
  const Seconds drained = {to_seconds(prediction.generation.last_decode.timeline.end)};
  return {
      .columns = {{"decoding at the last length, the pipeline kept full", Align::left}, {""}},
      .rows = {{.cells = {"from token to token", format_duration(full.period)}},
               {.cells = {"where every step waits for all microbatches", format_duration(drained)}},
               {.cells = {"output tokens per second",
                          format_count(static_cast<double>(requests) / full.period.value)}},
               {.cells = {"utilisation", format_share(full.utilisation)}}}};
}

Table serving_table(const ServingPrediction& serving) {
  return {.columns = {{"serving, each request replaced as it ends", Align::left}, {""}},
          .rows = {{.cells = {"tpot", format_duration(serving.tpot)}},
                   {.cells = {"output tokens per second", format_count(serving.output_tps)}}}};
}

}  // namespace

std::string prediction_page(const PredictionInput& input, const Prediction& prediction,
                            const std::vector<FittingChange>& changes) {
  const GenerationPrediction& generation = prediction.generation;
  std::string page;
  if (prediction.shortage) {
    page += fmt::format("does not fit: {}\n{}\n", printable(*prediction.shortage),
                        fitting_changes_text(changes));
  }
  page +=
      fmt::format("{} on {}, {}: {} requests of {} + {} tokens, predicted\n\n",
                  printable(prediction.setup.header.model.name),
                  printable(prediction.setup.cluster.name), prediction.setup.strategy.label,
                  input.requests.batch_size, input.requests.prompt_len, input.requests.output_len);
  page += report_metrics(metrics_of(generation));
  const MetricsPageOptions step = {.max_devices = 0};
  page += fmt::format("\nprefill\n\n{}",
                      report_metrics(compute_metrics(generation.prefill.timeline), step));
  if (input.requests.output_len > 1) {
    page += fmt::format("\nlast decode step\n\n{}",
                        report_metrics(compute_metrics(generation.last_decode.timeline), step));
  }
  page += fmt::format("\n{}\n{}", render(memory_table(generation, prediction.memory)),
                      render(cost_table(generation)));
  if (prediction.serving) page += fmt::format("\n{}", render(serving_table(*prediction.serving)));
  if (prediction.pipeline)
    page += fmt::format("\n{}", render(pipeline_table(prediction, input.requests.batch_size)));
  return page;
}

nlohmann::json prediction_to_json(const PredictionInput& input, const Prediction& prediction,
                                  const std::vector<FittingChange>& changes) {
  const GenerationPrediction& generation = prediction.generation;
  nlohmann::json devices = nlohmann::json::array();
  for (std::size_t d = 0; d < prediction.memory.size(); ++d)
    devices.push_back(memory_to_json(generation.timeline.devices[d], prediction.memory[d]));
  nlohmann::json json = {
      {"model", prediction.setup.header.model.name},
      {"strategy", prediction.setup.strategy.label},
      {"cluster", prediction.setup.cluster.name},
      {"batch", input.requests.batch_size},
      {"prompt_len", input.requests.prompt_len},
      {"output_len", input.requests.output_len},
      {"fits", !prediction.shortage.has_value()},
      {"shortage", nullptr},
      {"fitting_changes", fitting_changes_to_json(changes)},
      {"generation", metrics_to_json(metrics_of(generation))},
      {"prefill", metrics_to_json(compute_metrics(generation.prefill.timeline))},
      {"last_decode", metrics_to_json(compute_metrics(generation.last_decode.timeline))},
      {"memory", devices},
      {"joules", generation.joules},
      {"resting_joules", generation.resting_joules},
      {"joules_per_token", generation.joules_per_token()},
      {"usd_per_million_tokens", nullptr},
      {"simulated_steps", generation.simulated_steps},
      {"links_shared", generation.prefill.links_shared || generation.last_decode.links_shared}};
  if (prediction.shortage) json["shortage"] = *prediction.shortage;
  if (generation.usd > 0) json["usd_per_million_tokens"] = generation.usd_per_million_tokens();
  if (prediction.serving) {
    json["serving"] = {{"tpot_s", prediction.serving->tpot.value},
                       {"output_tps", prediction.serving->output_tps}};
  }
  if (prediction.pipeline) {
    const SteadyState& full = *prediction.pipeline;
    json["full_pipeline"] = {
        {"tpot_s", full.period.value},
        {"output_tps", static_cast<double>(input.requests.batch_size) / full.period.value},
        {"utilisation", full.utilisation},
        {"settled", full.settled}};
  }
  return json;
}

}  // namespace weir
