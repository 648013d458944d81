#include "spec/measured_kernels.h"

#include <algorithm>
#include <array>
#include <functional>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 3> kLevels{"l2", "l3", "memory"};
constexpr std::array<std::string_view, 8> kStreams{"copy", "add",      "norm",      "rotate",
                                                   "silu", "gelu_erf", "gelu_tanh", "append"};
constexpr std::array<std::string_view, 3> kDTypes{"f32", "bf16", "f16"};
constexpr std::array<DType, 3> kDTypeValues{DType::f32, DType::bf16, DType::f16};

// A value takes between nothing and a tenth of a second.
constexpr NumberLimits kPicoseconds{.min = 0, .max = 1e11};
constexpr IntegerLimits kDevices{.min = 1, .max = 1 << 16};
constexpr IntegerLimits kSetBytes{.min = 1, .max = std::int64_t{1} << 50};
constexpr NumberLimits kShare{.min = 0, .max = 1};
constexpr IntegerLimits kRows{.min = 1, .max = std::int64_t{1} << 31};

// Each next one has more rows, so that a cost can be looked up between two.
template <class Cost>
void check_rows(ObjectReader& reader, const std::vector<Cost>& costs) {
  if (costs.empty()) reader.problem("costs", "found none, allowed at least one");
  for (std::size_t i = 1; i < costs.size(); ++i) {
    if (costs[i].rows > costs[i - 1].rows) continue;
    reader.problem("costs", "found rows that do not ascend, allowed ascending ones");
    return;
  }
}

LinearCurve read_linear(ObjectReader reader) {
  LinearCurve curve;
  curve.weight = kDTypeValues[reader.choice("dtype", kDTypes)];
  curve.level = static_cast<CacheLevel>(reader.choice("level", kLevels));
  curve.devices = reader.integer("devices", kDevices);
  for (ObjectReader& cost : reader.objects("costs")) {
    const std::int64_t rows = cost.integer("rows", kRows);
    curve.costs.push_back(
        {.rows = rows, .ps_per_weight = cost.number("ps_per_weight", kPicoseconds)});
    cost.refuse_unknown_keys();
  }
  check_rows(reader, curve.costs);
  reader.refuse_unknown_keys();
  return curve;
}

AttentionCurve read_attention(ObjectReader reader) {
  AttentionCurve curve;
  curve.kv = kDTypeValues[reader.choice("dtype", kDTypes)];
  curve.level = static_cast<CacheLevel>(reader.choice("level", kLevels));
  curve.devices = reader.integer("devices", kDevices);
  for (ObjectReader& cost : reader.objects("costs")) {
    const std::int64_t rows = cost.integer("rows", kRows);
    const double per_key = cost.number("ps_per_key", kPicoseconds);
    const double per_value = cost.number("ps_per_value", kPicoseconds);
    const double to_begin = cost.number("ps_to_begin", kPicoseconds);
    curve.costs.push_back(
        {.rows = rows, .ps_per_key = per_key, .ps_per_value = per_value, .ps_to_begin = to_begin});
    cost.refuse_unknown_keys();
  }
  check_rows(reader, curve.costs);
  reader.refuse_unknown_keys();
  return curve;
}

ServedCurve read_served(ObjectReader reader) {
  ServedCurve curve;
  curve.level = static_cast<CacheLevel>(reader.choice("level", kLevels));
  curve.devices = reader.integer("devices", kDevices);
  for (ObjectReader& share : reader.objects("shares")) {
    const std::int64_t bytes = share.integer("bytes", kSetBytes);
    curve.shares.push_back({.bytes = bytes, .share = share.number("share", kShare)});
    share.refuse_unknown_keys();
  }
  if (curve.shares.empty()) reader.problem("shares", "found none, allowed at least one");
  if (std::ranges::adjacent_find(curve.shares, std::ranges::greater_equal{}, &ServedShare::bytes) !=
      curve.shares.end())
    reader.problem("shares", "found bytes that do not ascend, allowed ascending ones");
  reader.refuse_unknown_keys();
  return curve;
}

}  // namespace

std::string_view to_string(CacheLevel level) { return kLevels[static_cast<std::size_t>(level)]; }
std::string_view to_string(StreamKind kind) { return kStreams[static_cast<std::size_t>(kind)]; }

MeasuredKernels read_measured_kernels(ObjectReader reader) {
  MeasuredKernels kernels;
  for (ObjectReader& curve : reader.objects("linear")) kernels.linear.push_back(read_linear(curve));
  for (ObjectReader& curve : reader.objects("attention"))
    kernels.attention.push_back(read_attention(curve));
  for (ObjectReader& cost : reader.objects("stream")) {
    StreamCost& stream = kernels.stream.emplace_back();
    stream.kind = static_cast<StreamKind>(cost.choice("kind", kStreams));
    stream.level = static_cast<CacheLevel>(cost.choice("level", kLevels));
    stream.devices = cost.integer("devices", kDevices);
    stream.ps_per_byte = cost.number("ps_per_byte", kPicoseconds);
    cost.refuse_unknown_keys();
  }
  if (reader.has("served")) {
    for (ObjectReader& curve : reader.objects("served"))
      kernels.served.push_back(read_served(curve));
  }
  if (kernels.linear.empty()) reader.problem("linear", "found none, allowed at least one curve");
  if (kernels.attention.empty())
    reader.problem("attention", "found none, allowed at least one curve");
  if (kernels.stream.empty()) reader.problem("stream", "found none, allowed at least one cost");
  reader.refuse_unknown_keys();
  return kernels;
}

json to_json(const MeasuredKernels& kernels) {
  json linear = json::array();
  for (const LinearCurve& curve : kernels.linear) {
    json costs = json::array();
    for (const LinearCost& cost : curve.costs)
      costs.push_back({{"rows", cost.rows}, {"ps_per_weight", cost.ps_per_weight}});
    linear.push_back({{"dtype", to_string(curve.weight)},
                      {"level", to_string(curve.level)},
                      {"devices", curve.devices},
                      {"costs", std::move(costs)}});
  }
  json attention = json::array();
  for (const AttentionCurve& curve : kernels.attention) {
    json costs = json::array();
    for (const AttentionCost& cost : curve.costs) {
      costs.push_back({{"rows", cost.rows},
                       {"ps_per_key", cost.ps_per_key},
                       {"ps_per_value", cost.ps_per_value},
                       {"ps_to_begin", cost.ps_to_begin}});
    }
    attention.push_back({{"dtype", to_string(curve.kv)},
                         {"level", to_string(curve.level)},
                         {"devices", curve.devices},
                         {"costs", std::move(costs)}});
  }
  json stream = json::array();
  for (const StreamCost& cost : kernels.stream) {
    stream.push_back({{"kind", to_string(cost.kind)},
                      {"level", to_string(cost.level)},
                      {"devices", cost.devices},
                      {"ps_per_byte", cost.ps_per_byte}});
  }
  json all{{"linear", std::move(linear)},
           {"attention", std::move(attention)},
           {"stream", std::move(stream)}};
  for (const ServedCurve& curve : kernels.served) {
    json shares = json::array();
    for (const ServedShare& share : curve.shares)
      shares.push_back({{"bytes", share.bytes}, {"share", share.share}});
    all["served"].push_back({{"level", to_string(curve.level)},
                             {"devices", curve.devices},
                             {"shares", std::move(shares)}});
  }
  return all;
}

}  // namespace weir
