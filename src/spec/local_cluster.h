#pragma once
// This machine as a cluster of one node whose devices are groups of CPU cores: cores, caches,
// memory and NUMA as hwloc sees them, within the limits that affinity and control groups put on
// this process. Peaks and bandwidths are unknown until they are measured.

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "spec/cluster.h"

namespace weir {

struct LocalOptions {
  std::optional<std::int64_t> num_devices = {};       // nullopt: as many as the cores fill.
  std::optional<std::int64_t> cores_per_device = {};  // nullopt: the cores shared out, at least 1.
};

// Devices take the cores in turn, each one hardware thread per core; when the cores run out, they
// are taken anew from the first, so devices may outnumber cores (they then share them). Memory and
// caches are shared out among the devices that use them. Fails when a device wants more cores than
// there are, or more than kMaxDevices are wanted.
[[nodiscard]] Result<ClusterSpec> local_cluster(const LocalOptions& options = {});

}  // namespace weir
