#pragma once
// Small machines and what happens on them, stated so that any simulator can play them: hosts that
// compute, one-directional links, and activities that wait for each other. They are played by our
// event loop (network_scenarios.cc) and by SimGrid (simgrid_times.cc).
//
// Where transfers meet on a link, their routes have the same latency: SimGrid's CM02 gives shares
// in inverse proportion to it (as TCP does), we give equal ones.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weir {

struct ScenarioHost {
  double flops_per_s = 1e9;
  double idle_watts = 0;
  double busy_watts = 0;  // Computing.
};

struct ScenarioLink {
  double bytes_per_s = 0;
  double latency_s = 0;  // Whole nanoseconds.
};

struct ScenarioRoute {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::vector<std::uint32_t> links;
};

// A computation on a host, or a message over a route. A host computes one thing at a time: waits
// see to that.
struct ScenarioActivity {
  std::optional<std::uint32_t> host;
  std::optional<std::uint32_t> route;
  std::int64_t amount = 0;           // FLOPs or bytes.
  std::vector<std::uint32_t> waits;  // Earlier activities.
};

struct Scenario {
  std::string name;
  std::string what;
  std::vector<ScenarioHost> hosts;
  std::vector<ScenarioLink> links;
  std::vector<ScenarioRoute> routes;  // At most one from a host to another.
  std::vector<ScenarioActivity> activities;
};

struct ScenarioTimes {
  std::vector<double> ends;    // Seconds, by activity.
  std::vector<double> joules;  // By host, until the last end.
};

[[nodiscard]] std::vector<Scenario> network_scenarios();

}  // namespace weir
