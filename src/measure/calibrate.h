#pragma once
// This machine as a cluster whose figures are measured: what the simulator needs to predict runs on
// it.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "measure/device_teams.h"
#include "spec/local_cluster.h"

namespace weir {

struct CalibrationOptions {
  LocalOptions devices = {};
  double least_seconds = kUsualSeconds;  // Of one timing; there are some 900.
  std::function<void(std::string_view)> progress = [](std::string_view) {};  // What is next.
};

// Takes one to two minutes; other programs on the machine disturb it.
[[nodiscard]] Result<ClusterSpec> calibrate(const CalibrationOptions& options);
// The same for a cluster of one node, the one that this process runs on; the options' devices are
// not looked at.
[[nodiscard]] Status calibrate_node(ClusterSpec& cluster, const CalibrationOptions& options);

// The source of a measured figure, and its three digits: what comes back on the next run.
inline constexpr const char* kMeasured = "weir calibrate, on this machine";
[[nodiscard]] double rounded(double value);

// What was measured between a node's devices, and the latency and rate that it comes to.
void put_transfers(const MeasuredTransfers& transfers, Fabric& fabric);

// The devices of a cluster of one node of CPU devices as groups of cores.
[[nodiscard]] std::vector<std::vector<int>> cores_of(const ClusterSpec& cluster);

}  // namespace weir
