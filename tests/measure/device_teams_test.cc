#include "measure/device_teams.h"

#include <atomic>
#include <vector>

#include <gtest/gtest.h>

namespace weir {
namespace {

TEST(Median, IsTheMiddleOne) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({5}), 5);
  EXPECT_EQ(median({4, 1, 3, 2}), 3);  // The upper of two.
}

TEST(DeviceTeams, TimesEveryWorkOnEveryDevice) {
  const std::vector<std::vector<int>> cores(3);  // Not pinned.
  DeviceTeams teams(cores, 1e-4);
  std::atomic<int> bodies{0};
  std::atomic<int> goes{0};
  const std::vector<double> times = teams.measure([&](Team& team, Stopwatch& watch) {
    EXPECT_EQ(team.size(), 1);
    ++bodies;
    watch.time([&] { ++goes; });
    watch.time([&] { ++goes; });
  });
  EXPECT_EQ(bodies, 3);
  EXPECT_GT(goes, 3 * 2 * 3 * 3) << "devices, works, turns, samples";
  ASSERT_EQ(times.size(), 2U);
  for (const double time : times) EXPECT_GT(time, 0);
}

TEST(DeviceTeams, HasWorksTakeTheirTurns) {
  const std::vector<std::vector<int>> cores(1);
  const auto begun = [&](double least_seconds) {
    std::vector<int> order;  // The work that each block of goes was of.
    DeviceTeams teams(cores, least_seconds);
    const std::vector<double> times = teams.measure([&](Team&, Stopwatch& watch) {
      std::vector<TimedWork> works;
      for (const int work : {0, 1, 2}) {
        works.emplace_back([&order, work] {
          if (order.empty() || order.back() != work) order.push_back(work);
        });
      }
      watch.time(works);
    });
    EXPECT_EQ(times.size(), 3U);
    return order;
  };
  EXPECT_EQ(begun(1e-4), (std::vector<int>{0, 1, 2, 0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(begun(0), (std::vector<int>{0, 1, 2})) << "quick";
}

TEST(DeviceTeams, GivesADeviceAsManyWorkersAsCores) {
  const std::vector<std::vector<int>> cores = {{0, 0}};
  DeviceTeams teams(cores, 0);
  (void)teams.measure([&](Team& team, Stopwatch&) { EXPECT_EQ(team.size(), 2); });
}

}  // namespace
}  // namespace weir
