// Plays one scenario (network_scenarios.h) in SimGrid and prints when its activities end, and the
// energy of its hosts, as JSON. Built where SimGrid is installed (Debian: libsimgrid-dev).
// Argument: the scenario's name. SimGrid has one engine per process.

#include <cstdio>
#include <functional>
#include <iterator>
#include <string>

#include <fmt/format.h>
#include <simgrid/plugins/energy.h>
#include <nlohmann/json.hpp>
#include <simgrid/s4u.hpp>

#include "network_scenarios.h"

namespace weir {
namespace {

namespace sg = simgrid::s4u;

// Fluid sharing without the corrections that CM02 can make for TCP.
constexpr const char* kArguments[] = {
    "simgrid_times",
    "--log=root.thresh:error",
    "--cfg=network/model:CM02",
    "--cfg=network/optim:Full",
    "--cfg=cpu/optim:Full",
    "--cfg=network/TCP-gamma:1e30",
    "--cfg=network/bandwidth-factor:1",
    "--cfg=network/latency-factor:1",
    "--cfg=network/weight-S:0",
    "--cfg=network/crosstraffic:0",
};

ScenarioTimes times_in_simgrid(sg::Engine& engine, const Scenario& scenario) {
  sg::NetZone* zone = sg::create_full_zone("zone");
  std::vector<sg::Host*> hosts;
  for (const ScenarioHost& host : scenario.hosts) {
    hosts.push_back(zone->create_host(fmt::format("host{}", hosts.size()), host.flops_per_s));
    hosts.back()->set_property("wattage_per_state", fmt::format("{}:{}:{}", host.idle_watts,
                                                                host.busy_watts, host.busy_watts));
    hosts.back()->seal();
  }
  std::vector<sg::Link*> links;
  for (const ScenarioLink& link : scenario.links) {
    links.push_back(zone->create_link(fmt::format("link{}", links.size()), link.bytes_per_s)
                        ->set_latency(link.latency_s)
                        ->seal());
  }
  for (const ScenarioRoute& route : scenario.routes) {
    std::vector<sg::LinkInRoute> way;
    for (const std::uint32_t link : route.links) way.emplace_back(links[link]);
    zone->add_route(hosts[route.from]->get_netpoint(), hosts[route.to]->get_netpoint(), nullptr,
                    nullptr, way, false);
  }
  zone->seal();

  std::vector<sg::ActivityPtr> activities;
  std::vector<std::function<void(const sg::ActivityPtr&)>> precede;  // By activity.
  for (const ScenarioActivity& activity : scenario.activities) {
    if (activity.host) {
      sg::ExecPtr exec = sg::Exec::init();
      exec->set_flops_amount(static_cast<double>(activity.amount));
      exec->set_host(hosts[*activity.host]);
      activities.push_back(exec);
      precede.push_back([exec](const sg::ActivityPtr& next) { exec->add_successor(next); });
    } else {
      const ScenarioRoute& route = scenario.routes[*activity.route];
      sg::CommPtr comm = sg::Comm::sendto_init(hosts[route.from], hosts[route.to]);
      comm->set_payload_size(static_cast<std::uint64_t>(activity.amount));
      activities.push_back(comm);
      precede.push_back([comm](const sg::ActivityPtr& next) { comm->add_successor(next); });
    }
    for (const std::uint32_t before : activity.waits) precede[before](activities.back());
  }
  for (const sg::ActivityPtr& activity : activities) activity->vetoable_start();
  engine.run();

  ScenarioTimes times;
  for (const sg::ActivityPtr& activity : activities)
    times.ends.push_back(activity->get_finish_time());
  for (const sg::Host* host : hosts) times.joules.push_back(sg_host_get_consumed_energy(host));
  return times;
}

int run(int argc, char** argv) {
  for (const Scenario& scenario : network_scenarios()) {
    if (argc != 2 || scenario.name != argv[1]) continue;
    sg_host_energy_plugin_init();
    std::vector<std::string> texts(std::begin(kArguments), std::end(kArguments));
    std::vector<char*> arguments;
    for (std::string& text : texts) arguments.push_back(text.data());
    auto count = static_cast<int>(arguments.size());
    arguments.push_back(nullptr);
    sg::Engine engine(&count, arguments.data());
    const ScenarioTimes times = times_in_simgrid(engine, scenario);
    const nlohmann::json document = {{"ends", times.ends}, {"joules", times.joules}};
    fmt::print("{}\n", document.dump());
    return 0;
  }
  fmt::print(stderr, "usage: simgrid_times SCENARIO\n");
  return 2;
}

}  // namespace
}  // namespace weir

int main(int argc, char** argv) { return weir::run(argc, argv); }
