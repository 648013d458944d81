#include "spec/workload.h"

#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr IntegerLimits kLengths{.min = 1, .max = kMaxModelPosition};
// A year; in nanoseconds it stays far from overflowing.
constexpr NumberLimits kArrival{.min = 0, .max = 366.0 * 86400};

std::optional<DType> read_dtype(ObjectReader& reader, std::string_view key) {
  const auto name = reader.optional_string(key);
  if (!name) return std::nullopt;
  const auto dtype = parse_dtype(*name);
  if (!dtype) {
    reader.problem(key,
                   fmt::format("found {}, allowed one of: f32, bf16, f16", shown(json(*name))));
  }
  return dtype;
}

// Appends `count` equal requests. Beyond the limit they are only counted.
void read_requests(ObjectReader& reader, Workload& workload, std::int64_t& total) {
  const Request request{.prompt_len = reader.integer("prompt_len", kLengths),
                        .output_len = reader.integer("output_len", kLengths),
                        .arrival = {reader.optional_number("arrival_s", kArrival).value_or(0)}};
  const std::int64_t count =
      reader.optional_integer("count", {.min = 1, .max = kMaxRequests}).value_or(1);
  reader.refuse_unknown_keys();
  total += count;
  if (total <= kMaxRequests) {
    workload.requests.insert(workload.requests.end(), static_cast<std::size_t>(count), request);
  }
}

void put(json& object, const char* key, std::optional<DType> dtype) {
  if (dtype) object[key] = to_string(*dtype);
}

}  // namespace

Workload batch_workload(const BatchShape& shape) {
  CHECK(shape.batch_size >= 1 && shape.batch_size <= kMaxRequests, "batch_size is within limits");
  const Request request{.prompt_len = shape.prompt_len, .output_len = shape.output_len};
  return {
      .name = fmt::format("{} x ({} + {})", shape.batch_size, shape.prompt_len, shape.output_len),
      .requests = std::vector<Request>(static_cast<std::size_t>(shape.batch_size), request)};
}

Result<Workload> workload_from_json(const json& document) {
  std::vector<std::string> problems;
  ObjectReader reader(document, "workload", problems);
  Workload workload{.name = reader.string("name")};
  workload.weight_dtype = read_dtype(reader, "weight_dtype");
  workload.activation_dtype = read_dtype(reader, "activation_dtype");
  workload.kv_dtype = read_dtype(reader, "kv_dtype");
  std::vector<ObjectReader> entries = reader.objects("requests");
  std::int64_t total = 0;
  for (ObjectReader& entry : entries) read_requests(entry, workload, total);
  if (total == 0 || total > kMaxRequests) {
    reader.problem("requests",
                   fmt::format("found {} requests, allowed 1 to {}", total, kMaxRequests));
  }
  reader.refuse_unknown_keys();
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return workload;
}

Result<Workload> load_workload(const std::string& path) {
  const auto document = read_json_file(path);
  if (!document) return tl::unexpected(document.error());
  auto workload = workload_from_json(*document);
  if (!workload) return invalid_input(fmt::format("{}: {}", path, workload.error().message));
  return workload;
}

json workload_to_json(const Workload& workload) {
  json object{{"name", workload.name}, {"requests", json::array()}};
  put(object, "weight_dtype", workload.weight_dtype);
  put(object, "activation_dtype", workload.activation_dtype);
  put(object, "kv_dtype", workload.kv_dtype);
  json& entries = object["requests"];
  const Request* previous = nullptr;
  for (const Request& request : workload.requests) {
    if (previous != nullptr && *previous == request) {
      entries.back()["count"] = entries.back()["count"].get<std::int64_t>() + 1;
    } else {
      entries.push_back({{"prompt_len", request.prompt_len},
                         {"output_len", request.output_len},
                         {"arrival_s", request.arrival.value},
                         {"count", 1}});
    }
    previous = &request;
  }
  return object;
}

Status check_lengths(const Workload& workload, const ModelSpec& model) {
  std::vector<std::string> problems;
  for (std::size_t i = 0; i < workload.requests.size(); ++i) {
    const Request& request = workload.requests[i];
    if (request.prompt_len + request.output_len <= model.max_position) continue;
    problems.push_back(fmt::format(
        "workload.requests[{}]: found {} + {} tokens, allowed at most {}, which is as long as {} "
        "goes",
        i, request.prompt_len, request.output_len, model.max_position,
        model.name.empty() ? "the model" : model.name));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return {};
}

}  // namespace weir
