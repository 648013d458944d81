#include "measure/rank_calibration.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "exec/follower.h"
#include "measure/device_teams.h"
#include "measure/executor_costs.h"
#include "measure/thin_run.h"
#include "sim/calibration.h"
#include "sim/collectives.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr double kNanosecond = 1e-9;
constexpr std::int64_t kHidden = 512;
// 2 MB: at 1 Gbit/s four times as much takes four times as long and says the same.
constexpr std::int64_t kMostTokens = 1024;
constexpr int kRepetitions = 5;

std::int64_t bytes_of_tokens(std::int64_t tokens) {
  return tokens * kHidden * static_cast<std::int64_t>(sizeof(float));
}

// Both runs need a layer for each stage and a head for each device.
ModelSpec link_model(const Ranks& ranks) {
  const auto count = static_cast<std::int64_t>(ranks.size());
  return thin_model({.hidden_size = kHidden,
                     .num_layers = std::max<std::int64_t>(count, 4),
                     .num_heads = std::max<std::int64_t>(count, 2)});
}

void send_text(Ranks& ranks, std::size_t to, const std::string& text) {
  ranks.send(to, std::as_bytes(std::span(text)));
}

std::string receive_text(Ranks& ranks, std::size_t from) {
  const auto bytes = ranks.receive(from);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// One host of several as a cluster of its own.
ClusterSpec host_alone(const ClusterSpec& hosts, std::size_t node) {
  ClusterSpec alone{.name = "host", .node_types = {hosts.node_types[node]}};
  DeviceGroup& group = alone.node_types[0].devices.front();
  alone.device_types = {hosts.device_types[group.type]};
  group.type = 0;
  list_devices(alone);
  return alone;
}

// Puts back what has been measured.
void put_host(ClusterSpec& hosts, std::size_t node, const ClusterSpec& alone) {
  const std::size_t type = hosts.node_types[node].devices.front().type;
  hosts.node_types[node] = alone.node_types[0];
  hosts.node_types[node].devices.front().type = type;
  hosts.device_types[type] = alone.device_types[0];
}

struct HostTurn {
  std::size_t node = 0;
  std::size_t rank = 0;  // The first one on it.
};

// Who measures together: hosts of different kernels.
std::vector<std::vector<HostTurn>> turns_of(const Ranks& ranks, const ClusterSpec& hosts) {
  std::vector<std::vector<HostTurn>> turns;
  std::map<std::string, std::size_t> hosts_of_kernel;
  for (const Device& device : hosts.devices) {
    if (device.place != 0) continue;
    const std::size_t rank = index_of(device.id);
    const std::size_t turn = hosts_of_kernel[ranks.kernel(rank)]++;
    if (turns.size() <= turn) turns.resize(turn + 1);
    turns[turn].push_back({.node = device.node, .rank = rank});
  }
  return turns;
}

Status measure_hosts(Ranks& ranks, ClusterSpec& hosts, const CalibrationOptions& options) {
  std::set<std::size_t> leaders;
  for (const auto& turn : turns_of(ranks, hosts)) {
    for (const HostTurn& host : turn) {
      leaders.insert(host.rank);
      if (host.rank != 0)
        send_text(ranks, host.rank, cluster_to_json(host_alone(hosts, host.node)).dump());
    }
    for (const HostTurn& host : turn) {
      if (host.rank != 0) continue;
      ClusterSpec alone = host_alone(hosts, host.node);
      if (auto measured = calibrate_node(alone, options); !measured) return measured;
      put_host(hosts, host.node, alone);
    }
    for (const HostTurn& host : turn) {
      if (host.rank == 0) continue;
      options.progress(fmt::format("waiting for host {}", ranks.host(host.rank)));
      const auto alone = cluster_from_json(json::parse(receive_text(ranks, host.rank)));
      if (!alone) return tl::unexpected(alone.error());
      put_host(hosts, host.node, *alone);
    }
  }
  for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
    if (!leaders.contains(rank)) send_text(ranks, rank, "");
  }
  return {};
}

using TimesByBytes = std::map<std::int64_t, double>;  // Seconds.

// What a communication takes from when all are there, as the mean of those who receive.
double duration_of(const std::vector<TaskRecord>& members) {
  double sum = 0;
  int receivers = 0;
  for (const TaskRecord& task : members) {
    if (task.bytes == 0) continue;
    sum += static_cast<double>(task.end.ns - task.ready.ns) * kNanosecond;
    ++receivers;
  }
  CHECK(receivers > 0, "somebody receives");
  return sum / receivers;
}

// The communications of a run's first step by their node.
std::map<NodeId, std::vector<TaskRecord>> communications(const Timeline& timeline) {
  std::map<NodeId, std::vector<TaskRecord>> nodes;
  for (const TaskRecord& task : timeline.tasks) {
    if (task.step == 0 && class_of(task.kind) == OpClass::communication)
      nodes[task.node].push_back(task);
  }
  return nodes;
}

struct PipelineTimes {
  std::vector<TimesByBytes> handovers;  // From rank i to rank i + 1.
  Seconds step;                         // Between two steps.
};

// Each rank a stage: what a handover takes says what its link does, and nobody else sends.
Result<PipelineTimes> measure_pipeline(Ranks& ranks, const std::vector<ExecDevice>& devices) {
  const auto run = ThinRun::make(
      link_model(ranks), {{"tp", "1"}, {"pp", std::to_string(ranks.size())}}, devices, &ranks);
  if (!run) return tl::unexpected(run.error());
  PipelineTimes times{.handovers = std::vector<TimesByBytes>(ranks.size() - 1), .step = {}};
  for (std::int64_t tokens = 1; tokens <= kMostTokens; tokens *= 4) {
    std::vector<std::vector<double>> durations(ranks.size() - 1);
    for (int repetition = 0; repetition <= kRepetitions; ++repetition) {
      const auto timeline = (*run)->run(tokens, 1);
      if (!timeline) return tl::unexpected(timeline.error());
      if (repetition == 0) continue;  // Sets up what the others find.
      for (const auto& [node, members] : communications(*timeline)) {
        if (members.size() != 2) continue;
        const bool in_order = index_of(members[0].device) < index_of(members[1].device);
        const TaskRecord& sender = members[in_order ? 0 : 1];
        const TaskRecord& receiver = members[in_order ? 1 : 0];
        // Of what has travelled before the receiver looked, only the rest would be seen.
        if (receiver.start <= sender.start)
          durations[index_of(sender.device)].push_back(duration_of(members));
      }
    }
    for (std::size_t i = 0; i < durations.size(); ++i) {
      if (!durations[i].empty())
        times.handovers[i][bytes_of_tokens(tokens)] = median(std::move(durations[i]));
    }
  }
  constexpr std::int64_t kSteps = 64;
  const auto timeline = (*run)->run(16, kSteps);
  if (!timeline) return tl::unexpected(timeline.error());
  times.step = {between_steps(*timeline)};
  return times;
}

Result<TimesByBytes> measure_all_reduce(Ranks& ranks, const std::vector<ExecDevice>& devices) {
  const auto run =
      ThinRun::make(link_model(ranks), {{"tp", std::to_string(ranks.size())}}, devices, &ranks);
  if (!run) return tl::unexpected(run.error());
  TimesByBytes times;
  for (std::int64_t tokens = 1; tokens <= kMostTokens; tokens *= 4) {
    std::vector<double> durations;
    for (int repetition = 0; repetition <= kRepetitions; ++repetition) {
      const auto timeline = (*run)->run(tokens, 1);
      if (!timeline) return tl::unexpected(timeline.error());
      if (repetition == 0) continue;
      for (const auto& [node, members] : communications(*timeline)) {
        if (members.front().kind == OpKind::all_reduce) durations.push_back(duration_of(members));
      }
    }
    times[bytes_of_tokens(tokens)] = median(std::move(durations));
  }
  return times;
}

// Over all devices of the cluster, one for each size.
Result<std::vector<CommCost>> predict_all_reduces(const ClusterSpec& cluster,
                                                  const TimesByBytes& sizes) {
  const Topology topology(cluster);
  CollectiveShape shape;
  shape.kind = OpKind::all_reduce;
  for (const Device& device : cluster.devices) shape.members.push_back(device.id);
  std::vector<CommCost> costs;
  for (const auto& [bytes, time] : sizes) {
    shape.bytes = bytes;
    auto cost = collective_cost(topology, shape);
    if (!cost) return tl::unexpected(cost.error());
    costs.push_back(*std::move(cost));
  }
  return costs;
}

// What the all-reduces say of the slowest links that they use: between hosts the cards, on one host
// its fabric. A cluster on which these take a second for each message and each byte tells how many
// of both there are.
Result<std::vector<LinkObservation>> observe(ClusterSpec probe, const TimesByBytes& all_reduces) {
  const bool one_host = probe.nodes.size() == 1;
  for (NodeType& type : probe.node_types) {
    Fabric& fabric = type.fabrics.front();
    fabric.latency = Seconds{one_host ? 1.0 : 0.0};
    fabric.bandwidth = BytesPerSecond{one_host ? 1.0 : 1e30};
    type.nics = Nics{.owner = NicOwner::node,
                     .bandwidth = BytesPerSecond{1 / kNicEfficiency},
                     .latency = Seconds{1}};
  }
  const auto counts = predict_all_reduces(probe, all_reduces);
  if (!counts) return tl::unexpected(counts.error());
  std::vector<LinkObservation> observations;
  for (std::size_t i = 0; const auto& [bytes, time] : all_reduces) {
    const CommCost& cost = (*counts)[i++];
    observations.push_back(
        {.messages = cost.latency.value, .bytes = cost.transfer.value, .seconds = time});
  }
  return observations;
}

void append(std::vector<LinkObservation>& observations, const TimesByBytes& handovers) {
  for (const auto& [bytes, time] : handovers)
    observations.push_back({.messages = 1, .bytes = static_cast<double>(bytes), .seconds = time});
}

LinkCosts rounded_fit(const std::vector<LinkObservation>& observations) {
  const LinkCosts link = fit_link(observations);
  return {.latency = {rounded(link.latency.value)}, .bandwidth = {rounded(link.bandwidth.value)}};
}

// Within a host its fabric, between hosts the cards at both ends.
Status put_links(ClusterSpec& hosts, const std::vector<TimesByBytes>& handovers,
                 const TimesByBytes& all_reduces) {
  const auto together = observe(hosts, all_reduces);
  if (!together) return tl::unexpected(together.error());
  std::vector<std::vector<LinkObservation>> within(hosts.nodes.size());
  std::vector<std::vector<LinkObservation>> between(hosts.nodes.size());
  for (std::size_t i = 0; i < handovers.size(); ++i) {
    const std::size_t from = hosts.devices[i].node;
    const std::size_t to = hosts.devices[i + 1].node;
    if (from == to) {
      append(within[from], handovers[i]);
      continue;
    }
    // As many of the one kind as of the other: links are used in both ways.
    for (const std::size_t node : {from, to}) {
      append(between[node], handovers[i]);
      std::ranges::copy(*together, std::back_inserter(between[node]));
    }
  }
  if (hosts.nodes.size() == 1) std::ranges::copy(*together, std::back_inserter(within[0]));
  for (std::size_t node = 0; node < hosts.nodes.size(); ++node) {
    NodeType& type = hosts.node_types[hosts.nodes[node].type];
    const Sources sources = {{"latency_us", kMeasured}, {"gb_per_s", kMeasured}};
    if (!within[node].empty()) {
      const LinkCosts link = rounded_fit(within[node]);
      Fabric& fabric = type.fabrics.front();
      fabric.latency = link.latency;
      fabric.bandwidth = link.bandwidth;
      fabric.sources = sources;
    }
    if (hosts.nodes.size() > 1) {
      const LinkCosts link = rounded_fit(between[node]);
      // A file states what a card can do; the simulator takes off what a protocol needs of it.
      type.nics = Nics{.owner = NicOwner::node,
                       .bandwidth = BytesPerSecond{link.bandwidth.value / kNicEfficiency},
                       .latency = link.latency,
                       .sources = sources};
    }
  }
  return {};
}

Result<std::vector<AllReduceCheck>> held_against(const ClusterSpec& cluster,
                                                 const TimesByBytes& times) {
  const auto costs = predict_all_reduces(cluster, times);
  if (!costs) return tl::unexpected(costs.error());
  std::vector<AllReduceCheck> checks;
  for (std::size_t i = 0; const auto& [bytes, time] : times)
    checks.push_back({.bytes = bytes, .measured = time, .predicted = (*costs)[i++].total().value});
  return checks;
}

std::vector<ExecDevice> exec_devices(const ClusterSpec& cluster) {
  std::vector<ExecDevice> devices;
  const auto cores = cores_of(cluster);
  for (std::size_t i = 0; i < cores.size(); ++i)
    devices.push_back({.name = cluster.devices[i].name, .cores = cores[i]});
  return devices;
}

}  // namespace

Result<RankCalibration> calibrate_ranks(Ranks& ranks, ClusterSpec hosts,
                                        const CalibrationOptions& options) {
  CHECK(ranks.size() > 1 && hosts.devices.size() == ranks.size(), "every rank is a device");
  if (auto measured = measure_hosts(ranks, hosts, options); !measured)
    return tl::unexpected(measured.error());
  const std::vector<ExecDevice> devices = exec_devices(hosts);
  options.progress("links between ranks");
  const auto pipeline = measure_pipeline(ranks, devices);
  if (!pipeline) return tl::unexpected(pipeline.error());
  options.progress("all-reduces over all ranks");
  const auto times = measure_all_reduce(ranks, devices);
  if (!times) return tl::unexpected(times.error());
  if (auto put = put_links(hosts, pipeline->handovers, *times); !put)
    return tl::unexpected(put.error());
  for (NodeType& type : hosts.node_types)
    type.host.step_latency = Seconds{rounded(pipeline->step.value)};
  hosts.name = "calibrated";
  list_devices(hosts);
  auto checks = held_against(hosts, *times);
  if (!checks) return tl::unexpected(checks.error());
  return RankCalibration{.cluster = std::move(hosts), .all_reduces = *std::move(checks)};
}

Status follow_calibration(Ranks& ranks, const ExecDevice& device, double least_seconds) {
  const std::string text = receive_text(ranks, 0);
  if (!text.empty()) {
    auto alone = cluster_from_json(json::parse(text));
    if (!alone) return tl::unexpected(alone.error());
    if (auto measured = calibrate_node(
            *alone, {.least_seconds = least_seconds, .progress = [](std::string_view) {}});
        !measured)
      return measured;
    send_text(ranks, 0, cluster_to_json(*alone).dump());
  }
  const auto model = ModelOnDisk::make(link_model(ranks));
  if (!model) return tl::unexpected(model.error());
  // The pipeline, then the all-reduces.
  for (int run = 0; run < 2; ++run) {
    if (auto followed = follow(ranks, model->checkpoint(), model->spec(), device); !followed)
      return followed;
  }
  return {};
}

}  // namespace weir
