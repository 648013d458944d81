#pragma once
// Several runs of one workload side by side: strategies, cluster sizes, predicted beside measured.

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/units.h"
#include "report/table.h"
#include "result/metrics.h"

namespace weir {

struct RunSummary {
  std::string name;
  Metrics metrics;
  std::optional<Bytes> bytes_moved;   // Between devices in the whole run. Unset: what the tasks of
                                      // the metrics received.
  std::optional<Bytes> peak_memory;   // Of the fullest device.
  std::optional<bool> answers_match;  // Against the reference run; unknown where not compared.
};

struct ComparisonOptions {
  bool breakdown = false;  // A column for every class of time, not only for exposed communication.
};

// One row per run. Speed-ups are against the first one, by TPOT. Columns that no run has anything
// for are left out.
[[nodiscard]] Table comparison_of(std::span<const RunSummary> runs, ComparisonOptions options = {});

}  // namespace weir
