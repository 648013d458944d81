#pragma once
// What is asked of a model: requests with their lengths and arrival times, and the dtypes in which
// they are served. Loaded from JSON (docs/workload.md).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/dtype.h"
#include "base/result.h"
#include "base/units.h"
#include "spec/model.h"

namespace weir {

struct Request {
  std::int64_t prompt_len = 1;  // Tokens.
  std::int64_t output_len = 1;  // Tokens generated; the first comes out of the prefill.
  Seconds arrival = {};         // After the start of the run.

  bool operator==(const Request&) const = default;
};

struct Workload {
  std::string name = {};
  std::vector<Request> requests = {};  // At least one, in the order written.
  // nullopt: the model's weight_dtype.
  std::optional<DType> weight_dtype = {};
  std::optional<DType> activation_dtype = {};
  std::optional<DType> kv_dtype = {};

  bool operator==(const Workload&) const = default;
};

inline constexpr std::int64_t kMaxRequests = 1 << 20;

// Equal requests that arrive together. `batch_size` is 1..kMaxRequests.
struct BatchShape {
  std::int64_t batch_size = 1;
  std::int64_t prompt_len = 1;
  std::int64_t output_len = 1;
};
[[nodiscard]] Workload batch_workload(const BatchShape& shape);

// Reads the format of docs/workload.md. The error lists every problem at once.
[[nodiscard]] Result<Workload> workload_from_json(const nlohmann::json& json);
[[nodiscard]] Result<Workload> load_workload(const std::string& path);
// workload_from_json reads it back into an equal workload.
[[nodiscard]] nlohmann::json workload_to_json(const Workload& workload);

// Fails where a request would grow beyond the model's max_position, naming each.
[[nodiscard]] Status check_lengths(const Workload& workload, const ModelSpec& model);

}  // namespace weir
