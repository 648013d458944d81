// Whatever is accepted as a timeline can be read back, measured, shown and traced.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "report/metrics_page.h"
#include "report/trace.h"
#include "result/metrics.h"
#include "result/timeline_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace weir;
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const Result<nlohmann::json> document = parse_json(text, "fuzz");
  if (!document) return 0;
  const Result<Timeline> timeline = timeline_from_json(*document);
  if (!timeline) {
    CHECK(timeline.error().message.find('\n') == std::string::npos, "a message of several lines");
    return 0;
  }
  CHECK(timeline_from_json(timeline_to_json(*timeline)) == timeline, "not read back as written");
  const Metrics metrics = compute_metrics(*timeline);
  for (const DeviceMetrics& device : metrics.devices)
    CHECK(device.breakdown.total() == metrics.total_time, "a breakdown that does not add up");
  CHECK(!report_metrics(metrics).empty(), "an empty page");
  CHECK(parse_json(trace_of(*timeline), "trace"), "a trace that is not JSON");
  return 0;
}
