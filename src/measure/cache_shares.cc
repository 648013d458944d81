#include "measure/cache_shares.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <deque>
#include <vector>

#include "base/dtype.h"
#include "kernel/kernel.h"
#include "kernel/scratch.h"

namespace weir {
namespace {

constexpr std::array kParts{0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.125, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0};
constexpr std::int64_t kIn = 512;

// Out features of a matrix: few, so that sizes are near to what is asked for, and for a device of
// several cores so many that all of them work.
std::int64_t out_features(const DeviceTeams& teams) {
  return teams.cores_per_device() == 1 ? 128 : 1024;
}

// How many matrices of `bytes` each set has, ascending, and then `slow`.
std::vector<std::int64_t> counts_of(std::int64_t bytes, std::int64_t capacity, std::int64_t slow) {
  std::vector<std::int64_t> counts;
  for (const double part : kParts) {
    const auto size = static_cast<std::int64_t>(part * static_cast<double>(capacity));
    const std::int64_t count = std::max<std::int64_t>(1, size / bytes);
    if (count < slow / bytes && (counts.empty() || count > counts.back())) counts.push_back(count);
  }
  counts.push_back(std::max<std::int64_t>(1, slow / bytes));
  return counts;
}

}  // namespace

std::optional<ServedCurve> measure_served(DeviceTeams& teams, CacheLevel level,
                                          std::int64_t capacity, std::int64_t slow) {
  constexpr double kStep = 1.2;
  constexpr double kNothing = 0.05;
  const std::int64_t out = out_features(teams);
  const std::int64_t bytes = kIn * out * size_in_bytes(DType::bf16);  // Of a matrix.
  const std::vector<std::int64_t> counts = counts_of(bytes, capacity, slow);
  const std::vector<double> times = teams.measure([&](Team& team, Stopwatch& watch) {
    const std::vector<std::uint16_t> values(static_cast<std::size_t>(kIn * out), f32_to_bf16(0.5F));
    const kernel::WeightView view{.data = values.data(),
                                  .dtype = DType::bf16,
                                  .out_features = out,
                                  .in_features = kIn,
                                  .row_stride = kIn};
    // A set of each size, for weights are multiplied by how far the whole set is.
    struct Set {
      kernel::Arena arena;
      std::vector<kernel::PackedWeights> matrices;
    };
    std::deque<Set> sets;
    for (const std::int64_t count : counts) {
      Set& set = sets.emplace_back();
      for (std::int64_t i = 0; i < count; ++i) set.matrices.emplace_back(team, view, &set.arena);
    }
    std::vector<float> x(kIn, 1.0F);
    std::vector<float> y(static_cast<std::size_t>(out));
    std::vector<TimedWork> works;
    works.reserve(counts.size());
    for (const Set& set : sets) {
      works.emplace_back([&] {
        for (const kernel::PackedWeights& matrix : set.matrices) {
          kernel::linear(team, {.data = x.data(), .rows = 1, .cols = kIn, .row_stride = kIn},
                         matrix, {}, {.data = y.data(), .rows = 1, .cols = out, .row_stride = out});
        }
      });
    }
    watch.time(works);
  });
  const auto per_matrix = [&](std::size_t i) { return times[i] / static_cast<double>(counts[i]); };
  const double served = per_matrix(0);
  const double beyond = per_matrix(counts.size() - 1);
  if (counts.size() < 2 || beyond < kStep * served) return {};
  ServedCurve curve{
      .level = level, .devices = teams.num_devices(), .shares = {{counts[0] * bytes, 1}}};
  for (std::size_t i = 1; i + 1 < counts.size(); ++i) {
    const double share =
        std::min((beyond - per_matrix(i)) / (beyond - served), curve.shares.back().share);
    curve.shares.push_back({.bytes = counts[i] * bytes, .share = share < kNothing ? 0 : share});
    if (share < kNothing) break;
  }
  if (curve.shares.back().share > 0)
    curve.shares.push_back({.bytes = counts.back() * bytes, .share = 0});
  return curve;
}

}  // namespace weir
