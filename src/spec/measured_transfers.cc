#include "spec/measured_transfers.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr double kMicrosecond = 1e-6;
constexpr IntegerLimits kBytes{.min = 1, .max = std::int64_t{1} << 40};
// From a picosecond to ten seconds. None is 0: times are interpolated as logarithms.
constexpr NumberLimits kMeasuredMicroseconds{.min = 1e-6, .max = 1e7};
constexpr IntegerLimits kMembers{.min = 2, .max = 1 << 16};

std::vector<TransferTime> read_times(ObjectReader& reader, std::string_view key) {
  std::vector<TransferTime> times;
  for (ObjectReader& time : reader.objects(key)) {
    const std::int64_t bytes = time.integer("bytes", kBytes);
    times.push_back({.bytes = bytes, .us = time.number("us", kMeasuredMicroseconds)});
    time.refuse_unknown_keys();
  }
  const auto ascend = [](const TransferTime& a, const TransferTime& b) {
    return a.bytes < b.bytes;
  };
  if (std::ranges::adjacent_find(times, std::not_fn(ascend)) != times.end())
    reader.problem(key, "found bytes that do not ascend, allowed ascending ones");
  return times;
}

std::vector<GroupCurve> read_curves(ObjectReader& reader, std::string_view key) {
  std::vector<GroupCurve> curves;
  if (!reader.has(key)) return curves;
  for (ObjectReader& one : reader.objects(key)) {
    GroupCurve& curve = curves.emplace_back();
    curve.members = one.integer("members", kMembers);
    curve.times = read_times(one, "times");
    if (curve.times.empty()) one.problem("times", "found none, allowed at least one");
    one.refuse_unknown_keys();
  }
  const auto ascend = [](const GroupCurve& a, const GroupCurve& b) {
    return a.members < b.members;
  };
  if (std::ranges::adjacent_find(curves, std::not_fn(ascend)) != curves.end())
    reader.problem(key, "found members that do not ascend, allowed ascending ones");
  return curves;
}

json json_of(const std::vector<TransferTime>& times) {
  json list = json::array();
  for (const TransferTime& time : times) list.push_back({{"bytes", time.bytes}, {"us", time.us}});
  return list;
}

json json_of(const std::vector<GroupCurve>& curves) {
  json list = json::array();
  for (const GroupCurve& curve : curves)
    list.push_back({{"members", curve.members}, {"times", json_of(curve.times)}});
  return list;
}

// Curves by number of members, and their keys.
struct CurvesKey {
  const char* key;
  std::vector<GroupCurve> MeasuredTransfers::*curves;
};
constexpr CurvesKey kCurves[] = {{"exchanges", &MeasuredTransfers::exchanges},
                                 {"all_reduces", &MeasuredTransfers::all_reduces},
                                 {"reduce_scatters", &MeasuredTransfers::reduce_scatters},
                                 {"all_gathers", &MeasuredTransfers::all_gathers}};

}  // namespace

Seconds time_at(const std::vector<TransferTime>& times, double bytes) {
  CHECK(!times.empty(), "a curve has at least one time");
  const TransferTime& last = times.back();
  if (bytes >= static_cast<double>(last.bytes))
    return {last.us * kMicrosecond * bytes / static_cast<double>(last.bytes)};
  const auto above = std::ranges::find_if(
      times, [&](const TransferTime& time) { return static_cast<double>(time.bytes) > bytes; });
  if (above == times.begin()) return {above->us * kMicrosecond};
  const TransferTime& below = *std::prev(above);
  const double low = std::log(static_cast<double>(below.bytes));
  const double high = std::log(static_cast<double>(above->bytes));
  const double share = (std::log(bytes) - low) / (high - low);
  return {std::exp(std::lerp(std::log(below.us), std::log(above->us), share)) * kMicrosecond};
}

Seconds exchange_time(const MeasuredTransfers& transfers, std::size_t members, double bytes) {
  CHECK(members > 1, "an exchange has two members at least");
  const double sent = bytes * static_cast<double>(members - 1);
  if (transfers.exchanges.empty()) return time_at(transfers.messages, sent);
  auto curve = std::ranges::find_if(transfers.exchanges, [&](const GroupCurve& one) {
    return std::cmp_greater_equal(one.members, members);
  });
  if (curve == transfers.exchanges.end()) --curve;
  return time_at(curve->times, sent / static_cast<double>(curve->members - 1));
}

std::optional<Seconds> collective_time(const std::vector<GroupCurve>& curves, std::size_t members,
                                       double bytes) {
  for (const GroupCurve& curve : curves) {
    if (std::cmp_equal(curve.members, members)) return time_at(curve.times, bytes);
  }
  return {};
}

Seconds message_time(const MeasuredTransfers& transfers, double bytes) {
  return transfers.messages.empty() ? exchange_time(transfers, 2, bytes)
                                    : time_at(transfers.messages, bytes);
}

MeasuredTransfers read_measured_transfers(ObjectReader reader) {
  MeasuredTransfers transfers;
  if (reader.has("messages")) transfers.messages = read_times(reader, "messages");
  for (const auto& [key, curves] : kCurves) transfers.*curves = read_curves(reader, key);
  if (transfers.messages.empty() && transfers.exchanges.empty())
    reader.problem("exchanges", "found none, allowed at least one curve without messages");
  reader.ignore("messages");
  for (const auto& [key, curves] : kCurves) reader.ignore(key);
  reader.refuse_unknown_keys();
  return transfers;
}

json to_json(const MeasuredTransfers& transfers) {
  json object = json::object();
  if (!transfers.messages.empty()) object["messages"] = json_of(transfers.messages);
  for (const auto& [key, curves] : kCurves) {
    if (!(transfers.*curves).empty()) object[key] = json_of(transfers.*curves);
  }
  return object;
}

}  // namespace weir
