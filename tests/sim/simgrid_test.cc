// Our event loop against SimGrid's (https://simgrid.org), on small machines (network_scenarios.h).
// What SimGrid says is kept in simgrid_times.json; where SimGrid is installed it is asked again
// (simgrid_times.cc), and WEIR_REWRITE_GOLDENS=1 writes its answers down.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "network_scenarios.h"
#include "sim/activities.h"
#include "sim/step_costs.h"

namespace weir {
namespace {

using nlohmann::json;

// Asked for. Ours are rounded up to nanoseconds, in scenarios of 0.02 to 3 seconds.
constexpr double kSame = 1e-6;

const std::string kFixture = std::string(WEIR_SOURCE_DIR) + "/tests/sim/simgrid_times.json";
const std::string kProgram = std::string(WEIR_BINARY_DIR) + "/simgrid_times";

ScenarioTimes times_here(const Scenario& scenario) {
  ActivityGraph graph;
  std::vector<double> capacities;
  for (const ScenarioLink& link : scenario.links) capacities.push_back(link.bytes_per_s);
  for (const ScenarioActivity& activity : scenario.activities) {
    WorkId work{};
    const auto amount = static_cast<double>(activity.amount);
    if (activity.host) {
      work = graph.add_work(to_sim_time({amount / scenario.hosts[*activity.host].flops_per_s}));
    } else {
      double latency = 0;
      double slowest = std::numeric_limits<double>::infinity();
      std::vector<LinkUse> uses;
      for (const std::uint32_t link : scenario.routes[*activity.route].links) {
        latency += scenario.links[link].latency_s;
        slowest = std::min(slowest, scenario.links[link].bytes_per_s);
        uses.push_back({.link = LinkId{link}, .bytes = amount});
      }
      work = graph.add_work(to_sim_time({latency}), to_sim_time({amount / slowest}), uses);
    }
    graph.add(work, activity.waits);
  }
  const ActivityTimes run = run_by_events(graph, capacities);
  ScenarioTimes times;
  for (const ScenarioHost& host : scenario.hosts)
    times.joules.push_back(host.idle_watts * to_seconds(run.end));
  for (ActivityId id = 0; id < graph.size(); ++id) {
    times.ends.push_back(to_seconds(run.ends[id]));
    const auto host = scenario.activities[id].host;
    if (!host) continue;
    const ScenarioHost& computing = scenario.hosts[*host];
    times.joules[*host] += (computing.busy_watts - computing.idle_watts) *
                           to_seconds(run.ends[id] - start_of(graph, run.ends, id));
  }
  return times;
}

json asked_simgrid(const Scenario& scenario) {
  const std::string command = fmt::format("'{}' {}", kProgram, scenario.name);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(popen(command.c_str(), "r"), pclose);
  EXPECT_NE(out, nullptr) << command;
  std::string text;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, out.get()) != nullptr) text += buffer;
  return json::parse(text, nullptr, false);
}

json fixture() {
  std::ifstream file(kFixture);
  return json::parse(file, nullptr, false);
}

double difference(double ours, double theirs) {
  return ours == theirs ? 0 : std::abs(ours - theirs) / std::max(std::abs(ours), std::abs(theirs));
}

// The worst relative difference of all times and energies.
double difference(const ScenarioTimes& ours, const json& theirs) {
  EXPECT_EQ(ours.ends.size(), theirs["ends"].size());
  EXPECT_EQ(ours.joules.size(), theirs["joules"].size());
  double worst = 0;
  for (std::size_t i = 0; i < ours.ends.size(); ++i)
    worst = std::max(worst, difference(ours.ends[i], theirs["ends"][i].get<double>()));
  for (std::size_t i = 0; i < ours.joules.size(); ++i)
    worst = std::max(worst, difference(ours.joules[i], theirs["joules"][i].get<double>()));
  return worst;
}

void write_fixture() {
  json document = {
      {"made_by",
       "SimGrid 3.32 (Debian 12) through tests/sim/simgrid_times.cc, which states its settings; "
       "WEIR_REWRITE_GOLDENS=1 build/sim_test --gtest_filter='SimGrid.*' writes it again"},
      {"units", "ends: seconds, by activity; joules: by host"},
      {"scenarios", json::object()}};
  for (const Scenario& scenario : network_scenarios()) {
    json times = asked_simgrid(scenario);
    times["what"] = scenario.what;
    document["scenarios"][scenario.name] = std::move(times);
  }
  std::ofstream(kFixture) << document.dump(1) << "\n";
}

bool is_installed() { return std::filesystem::exists(kProgram); }

TEST(SimGrid, SaysTheSameOfEveryScenario) {
  if (std::getenv("WEIR_REWRITE_GOLDENS") != nullptr && is_installed()) write_fixture();
  const json expected = fixture();
  ASSERT_TRUE(expected.is_object()) << kFixture;
  const std::vector<Scenario> scenarios = network_scenarios();
  EXPECT_GE(scenarios.size(), 15U);
  EXPECT_EQ(expected["scenarios"].size(), scenarios.size());
  double worst = 0;
  for (const Scenario& scenario : scenarios) {
    ASSERT_TRUE(expected["scenarios"].contains(scenario.name)) << scenario.name;
    const double found = difference(times_here(scenario), expected["scenarios"][scenario.name]);
    EXPECT_LE(found, kSame) << scenario.name << ": " << scenario.what;
    worst = std::max(worst, found);
  }
  RecordProperty("worst_relative_difference", fmt::format("{:.1e}", worst));
}

TEST(SimGrid, AskedAgainSaysWhatIsWrittenDown) {
  if (!is_installed()) GTEST_SKIP() << "SimGrid was not found (Debian: libsimgrid-dev)";
  const json expected = fixture();
  for (const Scenario& scenario : network_scenarios()) {
    const json again = asked_simgrid(scenario);
    ASSERT_TRUE(again.is_object()) << scenario.name;
    const ScenarioTimes times{.ends = again["ends"].get<std::vector<double>>(),
                              .joules = again["joules"].get<std::vector<double>>()};
    EXPECT_LE(difference(times, expected["scenarios"][scenario.name]), 1e-9) << scenario.name;
    EXPECT_LE(difference(times_here(scenario), again), kSame) << scenario.name;
  }
}

// Nor would any other way to share agree: transfers that do not see each other are far off.
TEST(SimGrid, ScenariosDependOnSharing) {
  int sharing = 0;
  for (const Scenario& scenario : network_scenarios()) {
    const ScenarioTimes together = times_here(scenario);
    Scenario unshared = scenario;
    // Every message over links of its own.
    for (ScenarioActivity& activity : unshared.activities) {
      if (!activity.route) continue;
      ScenarioRoute route = unshared.routes[*activity.route];
      for (std::uint32_t& link : route.links) {
        unshared.links.push_back(unshared.links[link]);
        link = static_cast<std::uint32_t>(unshared.links.size() - 1);
      }
      unshared.routes.push_back(route);
      activity.route = static_cast<std::uint32_t>(unshared.routes.size() - 1);
    }
    const ScenarioTimes apart = times_here(unshared);
    double most = 0;
    for (std::size_t i = 0; i < apart.ends.size(); ++i)
      most = std::max(most, difference(together.ends[i], apart.ends[i]));
    sharing += most > 0.01 ? 1 : 0;
  }
  EXPECT_GE(sharing, 9);
}

}  // namespace
}  // namespace weir
