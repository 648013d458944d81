#include "measure/cache_shares.h"

#include <algorithm>
#include <thread>

#include "kernel/team.h"
#include "measure/ceilings.h"

namespace weir {

std::vector<ServedCurve> measure_served(std::span<const std::vector<int>> cores, CacheLevel level,
                                        std::int64_t capacity, std::int64_t slow) {
  constexpr double kStep = 1.2;
  constexpr double kNothing = 0.05;
  const auto devices = static_cast<std::int64_t>(cores.size());
  std::vector<std::int64_t> sizes;
  for (const double part : {0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.125, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0}) {
    const auto size = static_cast<std::int64_t>(part * static_cast<double>(capacity));
    if (size < slow) sizes.push_back(size * devices);
  }
  if (sizes.empty()) return {};
  sizes.push_back(slow * devices);
  std::vector<double> rates;
  std::thread([&] {  // Pins the thread that measures.
    const std::vector<int> all = joined(cores);
    Team team(std::max(1, static_cast<int>(all.size())), all);
    team.pin_caller();
    rates = read_bytes_per_s(team, sizes);
  })
      .join();
  const double served = 1 / rates.front();
  const double beyond = 1 / rates.back();
  if (beyond < kStep * served) return {};
  ServedCurve curve{.level = level, .devices = devices, .shares = {{sizes.front() / devices, 1}}};
  for (std::size_t i = 1; i + 1 < sizes.size(); ++i) {
    const double share =
        std::min((beyond - 1 / rates[i]) / (beyond - served), curve.shares.back().share);
    curve.shares.push_back({.bytes = sizes[i] / devices, .share = share < kNothing ? 0 : share});
    if (share < kNothing) break;
  }
  if (curve.shares.back().share > 0) curve.shares.push_back({.bytes = slow, .share = 0});
  return {curve};
}

}  // namespace weir
