#pragma once
// Metrics of one run as a page for people.

#include <string>

#include "result/metrics.h"

namespace weir {

struct MetricsPageOptions {
  std::size_t max_devices = 16;  // Devices listed one by one; the rest as one line, or all of them.
};

// Latencies and throughput, where the time went, what each device did, and the rates reached.
// Sections without anything to say are left out.
[[nodiscard]] std::string report_metrics(const Metrics& metrics, MetricsPageOptions options = {});

}  // namespace weir
