#pragma once
// One prediction for every point of one or two swept axes, and what the points say together: strong
// scaling, and the best of them for each length.
//
// Axes of lengths (seq, prompt-len, output-len, batch) change the work; all others change how it is
// done. Points with the same work are compared with each other:
//   speed_up    generation time of the baseline / generation time of the point; the baseline is the
//               point with the fewest devices that fits, the first of equals
//   efficiency  speed_up / (devices / devices of the baseline)

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/predict.h"
#include "app/sweep_axis.h"

namespace weir {

// True of seq, prompt-len, output-len and batch.
[[nodiscard]] bool is_work_axis(const SweepAxis& axis);

struct SweepFigures {
  std::string label = {};  // Of the strategy.
  std::int64_t num_devices = 1;
  Seconds ttft = {};
  Seconds tpot = {};                // Generation time / output tokens of a request.
  std::optional<Seconds> itl = {};  // Mean; nullopt for a single token.
  double output_tps = 0;
  std::int64_t peak_bytes = 0;
  std::optional<std::string> shortage = {};  // nullopt where it fits.
  double joules_per_token = 0;
  std::optional<double> usd_per_million_tokens = {};
  // nullopt for what does not fit, or has nothing to be compared with.
  std::optional<double> speed_up = {};
  std::optional<double> efficiency = {};
};

struct SweepPoint {
  std::vector<std::int64_t> values;     // One per axis.
  std::optional<SweepFigures> figures;  // nullopt where the point is impossible:
  std::string problem;                  // why.
};

// Indices of points.
struct BestPoints {
  std::size_t tpot = 0;
  std::size_t ttft = 0;
  std::size_t itl = 0;  // As tpot for a single token.
};

struct Sweep {
  std::vector<SweepAxis> axes;
  std::vector<SweepPoint> points;  // The last axis is the fastest.
  bool interrupted = false;        // Points are missing at the end.

  // Points of equal work, in their order, by their values on the axes of lengths.
  [[nodiscard]] std::vector<std::vector<std::size_t>> groups() const;
  [[nodiscard]] bool compares_setups() const;  // Has an axis that is none of lengths.
};

// Reads axes, each written as app/sweep_axis.h says, for the strategy of `input`. Fails as
// parse_sweep_axis does, on more than two, on two that say the same, on a flag of the strategy that
// is swept as well, and on more points than kMostSweepPoints.
[[nodiscard]] Result<std::vector<SweepAxis>> parse_sweep(const std::vector<std::string>& texts,
                                                         const StrategyChoice& strategy);

// The input at a point. A pool that is swept has the policy `fixed` where no other is asked for, so
// that its size is the one swept. Fails where seq leaves no prompt.
[[nodiscard]] Result<PredictionInput> input_at(const PredictionInput& input,
                                               const std::vector<SweepAxis>& axes,
                                               const std::vector<std::int64_t>& values);

// `progress` is told the points done and all points before each; returning false ends the sweep.
using SweepProgress = std::function<bool(std::size_t done, std::size_t all)>;
// Impossible points are kept with their reason. Fails where no point is possible.
[[nodiscard]] Result<Sweep> run_sweep(const PredictionInput& input, std::vector<SweepAxis> axes,
                                      const SweepProgress& progress);

// Fills in speed_up and efficiency.
void compare_points(Sweep& sweep);
// Of a group's points that fit: the fastest, of equals the one with the fewest devices. nullopt
// where none fits.
[[nodiscard]] std::optional<BestPoints> best_of(const Sweep& sweep,
                                                const std::vector<std::size_t>& group);

}  // namespace weir
