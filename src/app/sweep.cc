#include "app/sweep.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "result/metrics.h"

namespace weir {
namespace {

constexpr std::size_t kMostAxes = 2;
constexpr std::array<std::string_view, 4> kWorkAxes = {"seq", "prompt-len", "output-len", "batch"};

std::string point_text(const std::vector<SweepAxis>& axes,
                       const std::vector<std::int64_t>& values) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < axes.size(); ++i)
    parts.push_back(fmt::format("{}={}", axes[i].name, values[i]));
  return fmt::format("{}", fmt::join(parts, " "));
}

SweepFigures figures_of(const Prediction& prediction) {
  const Metrics metrics = compute_metrics(prediction.generation.timeline);
  SweepFigures figures = {.label = prediction.setup.strategy.label,
                          .num_devices = prediction.num_devices(),
                          .output_tps = metrics.output_tps.value_or(0),
                          .peak_bytes = prediction.peak_bytes(),
                          .shortage = prediction.shortage,
                          .joules_per_token = prediction.generation.joules_per_token()};
  if (metrics.ttft) figures.ttft = metrics.ttft->mean;
  if (metrics.tpot) figures.tpot = *metrics.tpot;
  if (metrics.itl) figures.itl = metrics.itl->mean;
  if (prediction.generation.usd > 0)
    figures.usd_per_million_tokens = prediction.generation.usd_per_million_tokens();
  return figures;
}

Result<SweepPoint> predict_point(const PredictionInput& input, const std::vector<SweepAxis>& axes,
                                 std::vector<std::int64_t> values) {
  SweepPoint point = {.values = std::move(values), .figures = {}, .problem = {}};
  const auto at = input_at(input, axes, point.values);
  const auto prediction =
      at ? predict(*at, Serving::no) : Result<Prediction>(tl::unexpected(at.error()));
  if (prediction) {
    point.figures = figures_of(*prediction);
  } else if (prediction.error().kind == ErrorKind::invalid_input) {
    point.problem = prediction.error().message;
  } else {
    return tl::unexpected(prediction.error());
  }
  return point;
}

// What is wrong with all points: the one reason, or the first of several.
Error nothing_possible(const Sweep& sweep) {
  const SweepPoint& first = sweep.points.front();
  const bool alike = std::ranges::all_of(
      sweep.points, [&](const SweepPoint& point) { return point.problem == first.problem; });
  if (alike) return {.kind = ErrorKind::invalid_input, .message = first.problem};
  return {.kind = ErrorKind::invalid_input,
          .message = fmt::format("--sweep: found no possible point among {}, allowed at least one; "
                                 "{}: {}",
                                 sweep.points.size(), point_text(sweep.axes, first.values),
                                 first.problem)};
}

bool fits(const SweepPoint& point) { return point.figures && !point.figures->shortage; }

}  // namespace

bool is_work_axis(const SweepAxis& axis) {
  return std::ranges::find(kWorkAxes, axis.name) != kWorkAxes.end();
}

std::vector<std::vector<std::size_t>> Sweep::groups() const {
  std::map<std::vector<std::int64_t>, std::vector<std::size_t>> groups;
  for (std::size_t p = 0; p < points.size(); ++p) {
    std::vector<std::int64_t> work;
    for (std::size_t a = 0; a < axes.size(); ++a) {
      if (is_work_axis(axes[a])) work.push_back(points[p].values[a]);
    }
    groups[work].push_back(p);
  }
  std::vector<std::vector<std::size_t>> result;
  result.reserve(groups.size());
  for (auto& [work, members] : groups) result.push_back(std::move(members));
  return result;
}

bool Sweep::compares_setups() const { return !std::ranges::all_of(axes, is_work_axis); }

Result<std::vector<SweepAxis>> parse_sweep(const std::vector<std::string>& texts,
                                           const StrategyChoice& strategy) {
  if (texts.size() > kMostAxes) {
    return invalid_input(
        fmt::format("--sweep: found {} of them, allowed {}", texts.size(), kMostAxes));
  }
  const StrategyEntry* entry = find_strategy(strategy.name);
  // make_strategy names the strategies that there are; any will do for the names of lengths.
  const std::vector<SweepName> names = sweep_names(entry != nullptr ? *entry : strategies()[0]);
  std::vector<SweepAxis> axes;
  std::int64_t points = 1;
  for (const std::string& text : texts) {
    auto axis = parse_sweep_axis(text, names);
    if (!axis) return tl::unexpected(axis.error());
    if (const auto given = strategy.values.find(axis->name); given != strategy.values.end()) {
      return invalid_input(fmt::format("--{}: found {} with --sweep {}, allowed one of them",
                                       axis->name, given->second, axis->name));
    }
    for (const SweepAxis& other : axes) {
      const bool both_prompt = (other.name == "seq" && axis->name == "prompt-len") ||
                               (other.name == "prompt-len" && axis->name == "seq");
      if (other.name != axis->name && !both_prompt) continue;
      return invalid_input(
          fmt::format("--sweep: found {} and {}, allowed one of them", other.name, axis->name));
    }
    points *= std::ssize(axis->values);
    axes.push_back(*std::move(axis));
  }
  if (points > kMostSweepPoints) {
    return invalid_input(
        fmt::format("--sweep: found {} points, allowed at most {}", points, kMostSweepPoints));
  }
  return axes;
}

Result<PredictionInput> input_at(const PredictionInput& input, const std::vector<SweepAxis>& axes,
                                 const std::vector<std::int64_t>& values) {
  PredictionInput at = input;
  std::optional<std::int64_t> seq;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const std::string& name = axes[i].name;
    if (name == "seq") {
      seq = values[i];
    } else if (name == "prompt-len") {
      at.requests.prompt_len = values[i];
    } else if (name == "output-len") {
      at.requests.output_len = values[i];
    } else if (name == "batch") {
      at.requests.batch_size = values[i];
    } else {
      at.setup.strategy.values[name] = std::to_string(values[i]);
      if (name == "pool") at.setup.strategy.values.try_emplace("pool_policy", "fixed");
    }
  }
  if (seq) {
    at.requests.prompt_len = *seq - at.requests.output_len;
    if (at.requests.prompt_len < 1) {
      return invalid_input(fmt::format("seq: found {} with --output-len {}, allowed at least {}",
                                       *seq, at.requests.output_len, at.requests.output_len + 1));
    }
  }
  return at;
}

Result<Sweep> run_sweep(const PredictionInput& input, std::vector<SweepAxis> axes,
                        const SweepProgress& progress) {
  Sweep sweep = {.axes = std::move(axes), .points = {}};
  std::size_t all = 1;
  for (const SweepAxis& axis : sweep.axes) all *= axis.values.size();
  for (std::size_t p = 0; p < all && !sweep.interrupted; ++p) {
    if (!progress(p, all)) {
      sweep.interrupted = true;
      break;
    }
    std::vector<std::int64_t> values(sweep.axes.size());
    std::size_t rest = p;
    for (std::size_t a = sweep.axes.size(); a-- > 0;) {
      const auto& choices = sweep.axes[a].values;
      values[a] = choices[rest % choices.size()];
      rest /= choices.size();
    }
    auto point = predict_point(input, sweep.axes, std::move(values));
    if (!point) return tl::unexpected(point.error());
    sweep.points.push_back(*std::move(point));
  }
  const bool any = std::ranges::any_of(
      sweep.points, [](const SweepPoint& point) { return point.figures.has_value(); });
  if (!any && !sweep.interrupted) return tl::unexpected(nothing_possible(sweep));
  compare_points(sweep);
  return sweep;
}

void compare_points(Sweep& sweep) {
  for (const auto& group : sweep.groups()) {
    const SweepFigures* baseline = nullptr;
    for (const std::size_t p : group) {
      const SweepPoint& point = sweep.points[p];
      if (fits(point) &&
          (baseline == nullptr || point.figures->num_devices < baseline->num_devices))
        baseline = &*point.figures;
    }
    if (baseline == nullptr || group.size() == 1) continue;
    const double time = baseline->tpot.value;
    const auto devices = static_cast<double>(baseline->num_devices);
    for (const std::size_t p : group) {
      if (!fits(sweep.points[p])) continue;
      SweepFigures& figures = *sweep.points[p].figures;
      figures.speed_up = time / figures.tpot.value;
      figures.efficiency = *figures.speed_up * devices / static_cast<double>(figures.num_devices);
    }
  }
}

std::optional<BestPoints> best_of(const Sweep& sweep, const std::vector<std::size_t>& group) {
  std::optional<BestPoints> best;
  for (const std::size_t p : group) {
    if (!fits(sweep.points[p])) continue;
    if (!best) best = {.tpot = p, .ttft = p, .itl = p};
    const SweepFigures& here = *sweep.points[p].figures;
    const auto take = [&](std::size_t& place, auto time) {
      const SweepFigures& there = *sweep.points[place].figures;
      if (std::pair(time(here), here.num_devices) < std::pair(time(there), there.num_devices))
        place = p;
    };
    take(best->tpot, [](const SweepFigures& f) { return f.tpot.value; });
    take(best->ttft, [](const SweepFigures& f) { return f.ttft.value; });
    take(best->itl, [](const SweepFigures& f) { return f.itl.value_or(f.tpot).value; });
  }
  return best;
}

}  // namespace weir
