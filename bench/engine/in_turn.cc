#include "bench/engine/in_turn.h"

#include "measure/device_teams.h"

namespace weir::bench {
namespace {

constexpr std::size_t kLeastRounds = 2;
constexpr std::size_t kMostRounds = 5;
constexpr double kEnoughSeconds = 6;
constexpr double kMostSeconds = 25;
constexpr double kLongRun = 4;  // Seconds, beside which setting up does not count.

struct Times {
  std::vector<double> prefills;
  std::vector<double> decodes;  // Medians.
};

}  // namespace

Result<Runs> make_runs(const ModelOnDisk& model, std::span<const Split> splits) {
  Runs runs;
  for (const Split& split : splits) {
    auto run = ModelRun::make(model, split);
    if (!run) return tl::unexpected(run.error());
    runs.push_back(*std::move(run));
  }
  return runs;
}

Result<std::vector<TurnTimes>> run_in_turn(Runs& runs, const Prompts& prompts) {
  std::vector<Times> times(runs.size());
  double total = 0;
  const auto enough = [&] {
    const std::size_t rounds = times.front().prefills.size();
    if (rounds == 0) return false;
    return rounds >= kMostRounds || total > kMostSeconds ||
           (rounds >= kLeastRounds && total > kEnoughSeconds);
  };
  for (bool warm = false; !enough();) {
    double round = 0;
    std::vector<RunTimes> results;
    for (const auto& run : runs) {
      auto result = run->run(prompts);
      if (!result) return tl::unexpected(result.error());
      round += result->prefill;
      for (const double step : result->decode_steps) round += step;
      results.push_back(*std::move(result));
    }
    const bool counts = warm || round > kLongRun;
    warm = true;
    if (!counts) continue;
    total += round;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      times[i].prefills.push_back(results[i].prefill);
      if (!results[i].decode_steps.empty())
        times[i].decodes.push_back(median(std::move(results[i].decode_steps)));
    }
  }
  std::vector<TurnTimes> summaries;
  for (const Times& one : times) {
    summaries.push_back({.prefill = summary_of(one.prefills),
                         .decode_step = one.decodes.empty() ? Summary{} : summary_of(one.decodes)});
  }
  return summaries;
}

}  // namespace weir::bench
