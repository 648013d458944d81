#include "plan/plan_json.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "plan/plan_json_bound.h"

namespace weir {
namespace {

// Keys keep the order in which they are written here; it is the order of the text.
using Json = nlohmann::ordered_json;

Json json_of(Bound bound) {
  if (bound.index == 0 && bound.parts == 1) return bound.offset;
  return text_of(bound);
}

void write_box(const Box& box, Json& json) {
  for (const Axis axis : kAllAxes) {
    const Range& range = box[axis];
    if (range == Range::all()) continue;
    json[to_string(axis)] = Json::array({json_of(range.begin), json_of(range.end)});
  }
}

Json json_of(const Piece& piece) {
  Json json = {{"device", index_of(piece.device)}};
  write_box(piece.box, json);
  if (piece.over != Box{}) write_box(piece.over, json["over"]);
  return json;
}

template <class Id>
Json json_of(const std::vector<Id>& ids) {
  Json json = Json::array();
  for (const Id id : ids) json.push_back(index_of(id));
  return json;
}

Json json_of(const Layout& layout, std::size_t id) {
  Json pieces = Json::array();
  for (const Piece& piece : layout.pieces) pieces.push_back(json_of(piece));
  return {{"id", id}, {"kind", to_string(layout.kind)}, {"pieces", std::move(pieces)}};
}

Json json_of(const PlanDevice& device, std::size_t id) {
  Json json = {{"id", id}, {"name", device.name}};
  if (device.memory_bytes) json["memory_bytes"] = *device.memory_bytes;
  json["compute"] = json_of(device.compute);
  json["comm"] = json_of(device.comm);
  return json;
}

Json json_of(const std::vector<DeviceId>& group, std::size_t id) {
  return {{"id", id}, {"devices", json_of(group)}};
}

Json json_of(const RequestLengths& lengths, std::size_t id) {
  return {{"id", id}, {"q_len", lengths.q_len}, {"kv_len", lengths.kv_len}};
}

Json json_of(const Value& value, std::size_t id) {
  return {{"id", id},
          {"role", to_string(value.role)},
          {"layer", value.layer},
          {"microbatch", value.microbatch},
          {"layout", index_of(value.layout)},
          {"dtype", to_string(value.dtype)},
          {"rows", to_string(value.rows)}};
}

Json json_of(const Node& node, std::size_t id) {
  return {{"id", id},
          {"kind", to_string(node.kind)},
          {"layer", node.layer},
          {"microbatch", node.microbatch},
          {"devices", index_of(node.devices)},
          {"inputs", json_of(node.inputs)},
          {"outputs", json_of(node.outputs)}};
}

template <class Row>
Json table_of(const std::vector<Row>& rows) {
  Json table = Json::array();
  for (std::size_t i = 0; i < rows.size(); ++i) table.push_back(json_of(rows[i], i));
  return table;
}

Json document_of(const Plan& plan) {
  Json microbatches = Json::array();
  for (const Interval& requests : plan.microbatches)
    microbatches.push_back(Json::array({requests.begin, requests.end}));
  return {{"format", kPlanFormat},
          {"version", kPlanFormatVersion},
          {"model", {{"name", plan.model.name}, {"config", config_of(plan.model)}}},
          {"strategy", plan.strategy},
          {"activation_dtype", to_string(plan.activation_dtype)},
          {"kv_dtype", to_string(plan.kv_dtype)},
          {"logits", to_string(plan.logits)},
          {"limits", table_of(plan.limits)},
          {"microbatches", std::move(microbatches)},
          {"devices", table_of(plan.devices)},
          {"groups", table_of(plan.groups)},
          {"layouts", table_of(plan.layouts)},
          {"values", table_of(plan.values)},
          {"nodes", table_of(plan.nodes)}};
}

std::string scalar_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// All on one line, with a space after each comma and colon.
void write_inline(const Json& json, std::string& text) {
  if (!json.is_structured()) {
    text += scalar_text(json);
    return;
  }
  text += json.is_array() ? '[' : '{';
  bool first = true;
  for (const auto& [key, item] : json.items()) {
    if (!first) text += ", ";
    first = false;
    if (json.is_object()) text += scalar_text(Json(key)) + ": ";
    write_inline(item, text);
  }
  text += json.is_array() ? ']' : '}';
}

// A top-level table has one row per line; everything else is one line.
void write_field(const Json& json, std::string& text) {
  if (!json.is_array() || json.empty()) {
    write_inline(json, text);
    return;
  }
  text += '[';
  for (std::size_t i = 0; i < json.size(); ++i) {
    text += i == 0 ? "\n    " : ",\n    ";
    write_inline(json[i], text);
  }
  text += "\n  ]";
}

}  // namespace

nlohmann::json plan_to_json(const Plan& plan) { return document_of(plan); }

std::string plan_to_json_text(const Plan& plan) {
  const Json document = document_of(plan);
  std::string text = "{";
  bool first = true;
  for (const auto& [key, field] : document.items()) {
    text += fmt::format("{}\n  \"{}\": ", first ? "" : ",", key);
    first = false;
    write_field(field, text);
  }
  return text + "\n}\n";
}

}  // namespace weir
