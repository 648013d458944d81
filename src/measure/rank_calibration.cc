#include "measure/rank_calibration.h"

#include <algorithm>
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
#include "measure/model_on_disk.h"
#include "measure/transfer_times.h"
#include "sim/calibration.h"

namespace weir {
namespace {

using nlohmann::json;

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

// The medians of curves that say the same of different pairs.
std::vector<TransferTime> merged(const std::vector<const std::vector<TransferTime>*>& curves) {
  std::map<std::int64_t, std::vector<double>> by_bytes;
  for (const auto* curve : curves) {
    for (const TransferTime& time : *curve) by_bytes[time.bytes].push_back(time.us);
  }
  std::vector<TransferTime> result;
  result.reserve(by_bytes.size());
  for (auto& [bytes, times] : by_bytes)
    result.push_back({.bytes = bytes, .us = rounded(median(std::move(times)))});
  return result;
}

// With the sizes that only others have told of.
std::vector<TransferTime> completed(std::vector<TransferTime> curve,
                                    const std::vector<TransferTime>& others) {
  for (const TransferTime& time : others) {
    const auto place = std::ranges::lower_bound(curve, time.bytes, {}, &TransferTime::bytes);
    if (place == curve.end() || place->bytes != time.bytes) curve.insert(place, time);
  }
  return curve;
}

// An exchange of all ranks, as one of hosts: what the ranks of the host that sends most of all send
// to other hosts together, at the bytes of each message.
GroupCurve between_hosts(const ClusterSpec& hosts, const GroupCurve& ranks) {
  std::vector<std::int64_t> on_host(hosts.nodes.size());
  for (const Device& device : hosts.devices) ++on_host[device.node];
  std::int64_t pairs = 0;
  for (const std::int64_t count : on_host) pairs = std::max(pairs, count * (ranks.members - count));
  const auto others = static_cast<std::int64_t>(on_host.size()) - 1;
  GroupCurve curve{.members = others + 1, .times = ranks.times};
  for (TransferTime& time : curve.times) time.bytes = time.bytes * pairs / others;
  return curve;
}

// Within a host its fabric, between hosts the cards at both ends.
void put_links(ClusterSpec& hosts, const std::vector<std::vector<TransferTime>>& handovers,
               const GroupTimes& group, const SequenceTimes& sequence) {
  const auto put_collectives = [&](MeasuredTransfers& transfers) {
    transfers.all_reduces = {group.all_reduce};
    transfers.reduce_scatters = {sequence.reduce_scatter};
    transfers.all_gathers = {sequence.all_gather};
  };
  const bool one_host = hosts.nodes.size() == 1;
  std::vector<std::vector<const std::vector<TransferTime>*>> within(hosts.nodes.size());
  std::vector<std::vector<const std::vector<TransferTime>*>> between(hosts.nodes.size());
  for (std::size_t i = 0; i < handovers.size(); ++i) {
    const std::size_t from = hosts.devices[i].node;
    const std::size_t to = hosts.devices[i + 1].node;
    if (from == to) {
      within[from].push_back(&handovers[i]);
    } else {
      for (const std::size_t node : {from, to}) between[node].push_back(&handovers[i]);
    }
  }
  std::vector<const std::vector<TransferTime>*> all;
  for (const auto& curves : between) all.insert(all.end(), curves.begin(), curves.end());
  const std::vector<TransferTime> anywhere = merged(all);
  for (std::size_t node = 0; node < hosts.nodes.size(); ++node) {
    NodeType& type = hosts.node_types[hosts.nodes[node].type];
    MeasuredTransfers transfers{.messages = merged(within[node])};
    if (one_host) transfers.exchanges = {group.exchange};
    if (one_host) put_collectives(transfers);
    if (transfers != MeasuredTransfers{}) put_transfers(transfers, type.fabrics.front());
    if (one_host) continue;
    transfers = {.messages = completed(merged(between[node]), anywhere),
                 .exchanges = {between_hosts(hosts, group.exchange)}};
    if (hosts.nodes.size() == hosts.devices.size()) put_collectives(transfers);
    const LinkCosts link = fit_link(transfers);
    // A file states what a card can do; the simulator takes off what a protocol needs of it.
    type.nics = Nics{
        .owner = NicOwner::node,
        .bandwidth = BytesPerSecond{rounded(link.bandwidth.value) / kNicEfficiency},
        .latency = Seconds{rounded(link.latency.value)},
        .transfers = std::move(transfers),
        .sources = {{"latency_us", kMeasured}, {"gb_per_s", kMeasured}, {"transfers", kMeasured}}};
  }
}

std::vector<ExecDevice> exec_devices(const ClusterSpec& cluster) {
  std::vector<ExecDevice> devices;
  const auto cores = cores_of(cluster);
  for (std::size_t i = 0; i < cores.size(); ++i)
    devices.push_back({.name = cluster.devices[i].name, .cores = cores[i]});
  return devices;
}

}  // namespace

Result<ClusterSpec> calibrate_ranks(Ranks& ranks, ClusterSpec hosts,
                                    const CalibrationOptions& options) {
  CHECK(ranks.size() > 1 && hosts.devices.size() == ranks.size(), "every rank is a device");
  if (auto measured = measure_hosts(ranks, hosts, options); !measured)
    return tl::unexpected(measured.error());
  const TransferRuns runs{.devices = exec_devices(hosts),
                          .ranks = &ranks,
                          .rounds = transfer_rounds(options.least_seconds)};
  options.progress("links between ranks");
  const auto pipeline = measure_pipeline(runs);
  if (!pipeline) return tl::unexpected(pipeline.error());
  options.progress("exchanges of all ranks");
  const auto group = measure_group(runs);
  if (!group) return tl::unexpected(group.error());
  const auto sequence = measure_sequence_parallel(runs);
  if (!sequence) return tl::unexpected(sequence.error());
  put_links(hosts, pipeline->handovers, *group, *sequence);
  for (NodeType& type : hosts.node_types)
    type.host.step_latency = Seconds{rounded(pipeline->step.value)};
  hosts.name = "calibrated";
  list_devices(hosts);
  return hosts;
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
  const auto model = ModelOnDisk::make(transfer_model(ranks.size(), true));
  if (!model) return tl::unexpected(model.error());
  // The pipeline, then the exchanges.
  for (int run = 0; run < 3 * transfer_rounds(least_seconds); ++run) {
    if (auto followed = follow(ranks, model->checkpoint(), model->spec(), device); !followed)
      return followed;
  }
  return {};
}

}  // namespace weir
