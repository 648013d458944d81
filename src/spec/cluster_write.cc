#include <array>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "spec/cluster.h"
#include "spec/cluster_units.h"

namespace weir {
namespace {

using nlohmann::json;

// The number that reading turns back into exactly `value`. Scaling there and back rounds twice, so
// the quotient's neighbours are tried as well.
template <class Scale>
double unscale(double value, double guess, Scale scale) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double candidate :
       {guess, std::nextafter(guess, kInfinity), std::nextafter(guess, -kInfinity)}) {
    if (scale(candidate) == value) return candidate;
  }
  return guess;
}

void put(json& object, const char* key, std::optional<Bytes> amount, double unit) {
  if (amount) object[key] = static_cast<double>(amount->value) / unit;
}

void put(json& object, const char* key, std::optional<BytesPerSecond> rate) {
  if (!rate) return;
  object[key] = unscale(rate->value, rate->value / kGigabytesPerSecond,
                        [](double x) { return x * kGigabytesPerSecond; });
}

void put(json& object, const char* key, std::optional<Seconds> latency) {
  if (!latency) return;
  object[key] = unscale(latency->value, latency->value * kMicrosecondsPerSecond,
                        [](double x) { return x / kMicrosecondsPerSecond; });
}

void put(json& object, const char* key, std::optional<FlopsPerSecond> rate) {
  if (!rate) return;
  object[key] =
      unscale(rate->value, rate->value / kTeraflops, [](double x) { return x * kTeraflops; });
}

void put(json& object, const char* key, std::optional<double> number) {
  if (number) object[key] = *number;
}

void put(json& object, const char* key, std::optional<std::int64_t> count) {
  if (count) object[key] = *count;
}

void put(json& object, const char* key, const PeakFlops& flops) {
  if (flops == PeakFlops{}) return;
  json rates = json::object();
  put(rates, "f32", flops.f32);
  put(rates, "bf16", flops.bf16);
  put(rates, "f16", flops.f16);
  object[key] = std::move(rates);
}

void put(json& object, const Sources& sources) {
  if (!sources.empty()) object["sources"] = sources;
}

json json_of(const DeviceType& type) {
  json object{{"kind", to_string(type.kind)}};
  put(object, "memory_gib", type.memory, kGib);
  put(object, "memory_gb_per_s", type.memory_bandwidth);
  put(object, "l1_kib", type.l1, kKib);
  put(object, "shared_memory_kib", type.shared_memory, kKib);
  put(object, "l2_mib", type.l2, kMib);
  put(object, "l2_gb_per_s", type.l2_bandwidth);
  put(object, "l3_mib", type.l3, kMib);
  put(object, "l3_gb_per_s", type.l3_bandwidth);
  put(object, "l3_devices", type.l3_devices);
  put(object, "matrix_tflops", type.matrix_flops);
  put(object, "vector_tflops", type.vector_flops);
  put(object, "num_cores", type.num_cores);
  put(object, "clock_ghz", type.clock_ghz);
  put(object, "launch_latency_us", type.launch_latency);
  put(object, "idle_watts", type.idle_watts);
  put(object, "max_watts", type.max_watts);
  put(object, "usd_per_hour", type.usd_per_hour);
  if (type.kernels) object["kernels"] = to_json(*type.kernels);
  put(object, type.sources);
  return object;
}

json json_of(const DeviceGroup& group, const std::vector<DeviceType>& types) {
  json object{{"type", types.at(group.type).name}, {"count", group.count}};
  if (!group.cpus.empty()) object["cpus"] = group.cpus;
  if (!group.numa_nodes.empty()) object["numa_nodes"] = group.numa_nodes;
  return object;
}

json json_of(const Fabric& fabric) {
  json object{{"kind", to_string(fabric.kind)}};
  put(object, "gb_per_s", fabric.bandwidth);
  put(object, "latency_us", fabric.latency);
  put(object, "shared_gb_per_s", fabric.shared_bandwidth);
  put(object, "group_size", fabric.group_size);
  if (fabric.transfers) object["transfers"] = to_json(*fabric.transfers);
  put(object, fabric.sources);
  return object;
}

json json_of(const Nics& nics) {
  json object{{"per", to_string(nics.owner)}, {"count", nics.count}};
  put(object, "gb_per_s", nics.bandwidth);
  put(object, "latency_us", nics.latency);
  if (nics.transfers) object["transfers"] = to_json(*nics.transfers);
  put(object, nics.sources);
  return object;
}

json json_of(const Host& host) {
  json object = json::object();
  put(object, "memory_gib", host.memory, kGib);
  put(object, "memory_gb_per_s", host.memory_bandwidth);
  put(object, "num_cores", host.num_cores);
  put(object, "device_gb_per_s", host.device_bandwidth);
  put(object, "device_latency_us", host.device_latency);
  put(object, "step_latency_us", host.step_latency);
  put(object, "short_step_latency_us", host.short_step_latency);
  put(object, "short_step_us", host.short_step);
  put(object, host.sources);
  return object;
}

json json_of(const NodeType& node, const std::vector<DeviceType>& types) {
  json object{{"name", node.name}, {"count", node.count}, {"devices", json::array()}};
  for (const DeviceGroup& group : node.devices) object["devices"].push_back(json_of(group, types));
  for (const Fabric& fabric : node.fabrics) object["fabrics"].push_back(json_of(fabric));
  if (node.nics) object["nics"] = json_of(*node.nics);
  if (node.host != Host{}) object["host"] = json_of(node.host);
  return object;
}

json json_of(const Network& network) {
  json object{{"oversubscription", network.oversubscription}};
  put(object, "nodes_per_leaf", network.nodes_per_leaf);
  put(object, "core_latency_us", network.core_latency);
  put(object, network.sources);
  return object;
}

}  // namespace

json cluster_to_json(const ClusterSpec& cluster) {
  json object{{"name", cluster.name},
              {"device_types", json::object()},
              {"node_types", json::array()},
              {"network", json_of(cluster.network)}};
  for (const DeviceType& type : cluster.device_types) {
    object["device_types"][type.name] = json_of(type);
  }
  for (const NodeType& node : cluster.node_types) {
    object["node_types"].push_back(json_of(node, cluster.device_types));
  }
  return object;
}

}  // namespace weir
