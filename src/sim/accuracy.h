#pragma once
// The models held against measurements of kernels and collectives. Nothing here is known to the
// models: the data is read from a folder, and every row becomes one prediction.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace weir {

// Relative errors |predicted / measured - 1| of a set.
struct ErrorSummary {
  std::int64_t count = 0;
  double median = 0;
  double p90 = 0;
  double bias = 0;              // Median of predicted / measured - 1.
  double rank_correlation = 0;  // Spearman's.
};
// `predicted` and `measured` are equally long; measured times are positive.
[[nodiscard]] ErrorSummary summarize_errors(const std::vector<double>& predicted,
                                            const std::vector<double>& measured);

struct AccuracyRow {
  std::string what;  // "gemm", "attention decode", "all_reduce"
  std::string on;    // "H100-SXM"
  std::string file;
  ErrorSummary model;
  ErrorSummary roofline;  // count 0 where there is none.
};

struct AccuracyReport {
  std::vector<AccuracyRow> rows;
  std::vector<std::string> absent;  // Files of the format that the folder lacks.
  std::int64_t skipped = 0;         // Rows of devices, dtypes or operations that are not modelled.
};

// Reads what there is of aic_gemm_*, vidur_linear_*, aic_attention_*, aic_collectives in `folder`.
// Fails where a file cannot be read or is not of its format.
[[nodiscard]] Result<AccuracyReport> measure_accuracy(const std::filesystem::path& folder);

}  // namespace weir
