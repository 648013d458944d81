#include <nlohmann/json.hpp>

#include "result/metrics.h"

namespace weir {
namespace {

using nlohmann::json;

json value_or_null(const std::optional<double>& value) { return value ? json(*value) : json(); }

template <class Tag>
json value_or_null(const std::optional<Quantity<Tag, double>>& value) {
  return value ? json(value->value) : json();
}

json to_json(const std::optional<Distribution>& distribution) {
  if (!distribution) return nullptr;
  return {{"count", distribution->count},
          {"mean_s", distribution->mean.value},
          {"p50_s", distribution->p50.value},
          {"p99_s", distribution->p99.value},
          {"max_s", distribution->max.value}};
}

json to_json(const Breakdown& breakdown) {
  json times = json::object();
  for (const TimeClass c : kTimeClasses) times[std::string(to_string(c)) + "_ns"] = breakdown[c].ns;
  return times;
}

json to_json(const WorkDone& work) {
  return {{"tasks", work.tasks},
          {"time_ns", work.time.ns},
          {"flops", work.flops},
          {"bytes", work.bytes},
          {"flops_per_s", value_or_null(work.flops_per_second())},
          {"bytes_per_s", value_or_null(work.bytes_per_second())}};
}

json to_json(const WorkByClass& work) {
  json classes = json::object();
  for (const OpClass c : kOpClasses) classes[to_string(c)] = to_json(work[c]);
  return classes;
}

json to_json(const DeviceMetrics& device) {
  return {{"name", device.name},
          {"utilisation", value_or_null(device.utilisation)},
          {"breakdown", to_json(device.breakdown)},
          {"work", to_json(device.work)},
          {"waiting_for_others_ns", device.waiting_for_others.ns}};
}

}  // namespace

json metrics_to_json(const Metrics& metrics) {
  json devices = json::array();
  for (const DeviceMetrics& device : metrics.devices) devices.push_back(to_json(device));
  json kinds = json::object();
  for (const auto& [kind, work] : metrics.work_by_kind) kinds[to_string(kind)] = to_json(work);
  return {{"total_time_ns", metrics.total_time.ns},
          {"num_devices", metrics.num_devices},
          {"num_requests", metrics.num_requests},
          {"input_tokens", metrics.input_tokens},
          {"output_tokens", metrics.output_tokens},
          {"ttft", to_json(metrics.ttft)},
          {"tpot_s", value_or_null(metrics.tpot)},
          {"itl", to_json(metrics.itl)},
          {"tps", value_or_null(metrics.tps)},
          {"output_tps", value_or_null(metrics.output_tps)},
          {"prefill_steps", to_json(metrics.prefill_steps)},
          {"decode_steps", to_json(metrics.decode_steps)},
          {"utilisation", value_or_null(metrics.utilisation)},
          {"breakdown", metrics.breakdown ? to_json(*metrics.breakdown) : json()},
          {"work", to_json(metrics.work)},
          {"work_by_kind", std::move(kinds)},
          {"devices", std::move(devices)}};
}

}  // namespace weir
