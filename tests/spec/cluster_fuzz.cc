// Any bytes as a cluster file: read or refused, never worse; what is read can be written and read
// back.

#include <cstdint>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "spec/cluster.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace weir;
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto document = parse_json(text, "fuzz");
  if (!document) return 0;
  const auto cluster = cluster_from_json(*document);
  if (!cluster) return 0;
  for (const Device& device : cluster->devices) {
    CHECK(&cluster->device(device.id) == &device, "devices stand in order of their ids");
    static_cast<void>(fabric_between(*cluster, cluster->devices.front().id, device.id));
  }
  const auto again = cluster_from_json(cluster_to_json(*cluster));
  CHECK(again.has_value(), again ? "" : again.error().message);
  CHECK(*again == *cluster, "a cluster that is written reads back equal");
  return 0;
}
