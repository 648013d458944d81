// Any bytes as a workload file: read or refused, never worse; what is read can be written and read
// back.

#include <cstdint>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "spec/workload.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace weir;
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto document = parse_json(text, "fuzz");
  if (!document) return 0;
  const auto workload = workload_from_json(*document);
  if (!workload) return 0;
  static_cast<void>(check_lengths(*workload, ModelSpec{.name = "fuzz", .max_position = 4096}));
  const auto again = workload_from_json(workload_to_json(*workload));
  CHECK(again.has_value(), again ? "" : again.error().message);
  CHECK(*again == *workload, "a workload that is written reads back equal");
  return 0;
}
