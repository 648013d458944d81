#include "app/rank_setup.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/output.h"
#include "app/version.h"
#include "base/check.h"
#include "spec/local_cluster.h"

namespace weir {
namespace {

// The ranks of one host, ascending.
struct HostShare {
  std::size_t count = 1;
  std::vector<int> cpus;  // That any of them may use.
};

void send_json(Ranks& ranks, std::size_t to, const nlohmann::json& document) {
  const std::string text = document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  ranks.send(to, std::as_bytes(std::span(text)));
}

nlohmann::json receive_json(Ranks& ranks, std::size_t from) {
  const std::vector<std::byte> bytes = ranks.receive(from);
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  nlohmann::json document = nlohmann::json::parse(text, text + bytes.size(), nullptr, false);
  CHECK(document.is_object(), "ranks send each other JSON before a run");
  return document;
}

// Of this process, one bit each.
cpu_set_t affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  (void)sched_getaffinity(0, sizeof(set), &set);
  return set;
}

std::vector<int> usable_cpus() {
  const cpu_set_t set = affinity();
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// How many there would be if nobody had bound this process: the system leaves out of a request for
// all of them what its control group may not use.
int cpus_without_binding() {
  const cpu_set_t before = affinity();
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0) return CPU_COUNT(&before);
  const cpu_set_t unbound = affinity();
  (void)sched_setaffinity(0, sizeof(before), &before);
  return CPU_COUNT(&unbound);
}

// A launcher may have bound each rank to a part of its host. The host's ranks share out what they
// have together, just as the devices of one process do; note_binding says where that is not all.
void use_cpus(const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  // Refused by a control group: then the binding stays, and with it fewer cores.
  (void)sched_setaffinity(0, sizeof(set), &set);
}

// Of the file that this program is: FNV-1a, by words. Builds of one version may differ in what they
// make of a message.
std::string build_of_this_program() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  std::uint64_t hash = 0xcbf29ce484222325;
  std::array<std::uint64_t, 4096> words{};
  do {
    words.fill(0);
    file.read(reinterpret_cast<char*>(words.data()), sizeof(words));
    for (const std::uint64_t word : words) hash = (hash ^ word) * 0x100000001b3;
  } while (file);
  return fmt::format("{:016x}", hash);
}

// What a rank says when it is there.
nlohmann::json greeting() {
  return {{"version", kVersion},
          {"build", build_of_this_program()},
          {"cpus", usable_cpus()},
          {"cpus_without_binding", cpus_without_binding()}};
}

// What it says when it knows its share of the host.
nlohmann::json readiness(const RankIdentity& own, const HostShare& share,
                         std::optional<std::int64_t> threads_per_device) {
  if (!own) return {{"error", own.error().message}};
  use_cpus(share.cpus);
  const auto cluster = local_cluster({.num_devices = static_cast<std::int64_t>(share.count),
                                      .cores_per_device = threads_per_device});
  if (!cluster) return {{"error", cluster.error().message}};
  return {{"identity", *own}, {"cluster", cluster_to_json(*cluster)}};
}

Status named(const Ranks& ranks, std::size_t rank, const std::string& problem) {
  return run_failed(fmt::format("rank {} on host {}: {}", rank, ranks.host(rank), problem));
}

std::vector<HostShare> shares_of(const Ranks& ranks, const std::vector<nlohmann::json>& greetings) {
  std::map<std::string, std::set<int>> cpus;
  std::map<std::string, std::size_t> counts;
  std::vector<HostShare> shares(ranks.size());
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    ++counts[ranks.host(rank)];
    const auto own = greetings[rank].at("cpus").get<std::vector<int>>();
    cpus[ranks.host(rank)].insert(own.begin(), own.end());
  }
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto& together = cpus[ranks.host(rank)];
    shares[rank].count = counts[ranks.host(rank)];
    shares[rank].cpus.assign(together.begin(), together.end());
  }
  return shares;
}

// A launcher that leaves a host's ranks a part of its cores need not have been meant to: Open MPI
// binds each of one or two ranks to a core.
void note_binding(const Ranks& ranks, const std::vector<nlohmann::json>& greetings,
                  const std::vector<HostShare>& shares) {
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    if (rank > 0 && ranks.host(rank) == ranks.host(rank - 1)) continue;
    const auto unbound = greetings[rank].at("cpus_without_binding").get<std::size_t>();
    if (shares[rank].cpus.size() >= unbound) continue;
    print_note(
        fmt::format("the launcher has left {} of {} cores to the ranks on host {} (mpirun "
                    "--bind-to none, or srun -c CORES, leaves more)",
                    shares[rank].cpus.size(), unbound, ranks.host(rank)));
  }
}

// The command first: others differ because of it.
std::optional<std::string> difference_of(const nlohmann::json& identity,
                                         const nlohmann::json& of_rank_0) {
  std::vector<std::string> names = {"command"};
  for (const auto& [name, value] : of_rank_0.items()) names.push_back(name);
  for (const std::string& name : names) {
    const nlohmann::json found = identity.value(name, nlohmann::json());
    const nlohmann::json wanted = of_rank_0.value(name, nlohmann::json());
    if (found == wanted) continue;
    if (wanted.is_object())
      return fmt::format("found another {0} than rank 0, allowed one {0}", name);
    return fmt::format("{}: found {}, allowed {}, that of rank 0", name, found.dump(),
                       wanted.dump());
  }
  return std::nullopt;
}

// One node per host, in the order of their ranks, with a device for each.
Result<ClusterSpec> join_hosts(const Ranks& ranks, const std::vector<nlohmann::json>& answers) {
  std::vector<ClusterSpec> hosts;
  std::set<std::string> seen;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const std::string& host = ranks.host(rank);
    if (rank > 0 && host == ranks.host(rank - 1)) continue;
    if (!seen.insert(host).second) {
      return invalid_input(fmt::format(
          "ranks: found rank {} on host {} apart from that host's others, allowed ranks of a host "
          "in a row (mpirun --map-by slot, srun -m block)",
          rank, host));
    }
    auto cluster = cluster_from_json(answers[rank].at("cluster"));
    if (!cluster) return tl::unexpected(cluster.error());
    hosts.push_back(*std::move(cluster));
    for (NodeType& node : hosts.back().node_types) node.name = host;
    for (DeviceType& type : hosts.back().device_types) type.name = "cores of " + host;
  }
  if (hosts.size() == 1) return cluster_from_json(answers[0].at("cluster"));
  ClusterSpec joined{.name = "ranks"};
  for (ClusterSpec& host : hosts) {
    const std::size_t first_type = joined.device_types.size();
    for (NodeType& node : host.node_types) {
      for (DeviceGroup& group : node.devices) group.type += first_type;
      joined.node_types.push_back(std::move(node));
    }
    std::ranges::move(host.device_types, std::back_inserter(joined.device_types));
  }
  list_devices(joined);
  return joined;
}

}  // namespace

Result<RankModel> open_rank_model(const std::string& folder) {
  auto model = load_model_spec(folder);
  if (!model) return tl::unexpected(model.error());
  auto checkpoint = Checkpoint::open(folder, *model);
  if (!checkpoint) return tl::unexpected(checkpoint.error());
  return RankModel{.model = *std::move(model), .checkpoint = *std::move(checkpoint)};
}

RankIdentity identity_of(std::string_view command, const RankModel& own) {
  return nlohmann::json{
      {"command", command},
      {"model", {{"config", config_of(own.model)}, {"weights", own.checkpoint.fingerprint()}}}};
}

RankIdentity identity_of(std::string_view command, const Result<RankModel>& own) {
  if (!own) return tl::unexpected(own.error());
  return identity_of(command, *own);
}

std::vector<ExecDevice> rank_devices(const ClusterSpec& cluster) {
  std::vector<ExecDevice> devices;
  for (const Device& device : cluster.devices) {
    ExecDevice& exec = devices.emplace_back(ExecDevice{.name = device.name, .cores = {}});
    for (const std::int64_t cpu : device.cpus) exec.cores.push_back(static_cast<int>(cpu));
  }
  return devices;
}

Status check_placement(const Ranks& ranks, const ClusterSpec& cluster) {
  if (cluster.devices.size() != ranks.size()) {
    return invalid_input(fmt::format("ranks: found {}, allowed {}, one per device of --cluster",
                                     ranks.size(), cluster.devices.size()));
  }
  for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
    const bool with_last = ranks.host(rank) == ranks.host(rank - 1);
    const bool wanted = cluster.devices[rank].node == cluster.devices[rank - 1].node;
    if (with_last == wanted) continue;
    return invalid_input(
        fmt::format("ranks: found rank {} on host {} {} rank {}, allowed {}, as --cluster has "
                    "device {} on node "
                    "{}",
                    rank, ranks.host(rank), with_last ? "with" : "apart from", rank - 1,
                    wanted ? "the same host" : "another host", cluster.devices[rank].name,
                    cluster.nodes[cluster.devices[rank].node].name));
  }
  return {};
}

RankRounds::~RankRounds() {
  if (ranks_ == nullptr) return;
  for (std::size_t rank = 1; rank < ranks_->size(); ++rank)
    send_json(*ranks_, rank, {{"go", false}});
}

void RankRounds::next() {
  if (ranks_ == nullptr) return;
  for (std::size_t rank = 1; rank < ranks_->size(); ++rank)
    send_json(*ranks_, rank, {{"go", true}});
}

bool await_round(Ranks& ranks) { return receive_json(ranks, 0).at("go").get<bool>(); }

RankLeader::~RankLeader() {
  if (told_) return;
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank) send_json(ranks_, rank, {{"go", false}});
}

Status RankLeader::gather(const RankIdentity& own, std::optional<std::int64_t> threads_per_device) {
  std::vector<nlohmann::json> greetings = {greeting()};
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank)
    greetings.push_back(receive_json(ranks_, rank));
  // Of another version nothing more is understood.
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank) {
    const nlohmann::json& version = greetings[rank].at("version");
    if (version != kVersion) {
      return named(
          ranks_, rank,
          fmt::format("found weir {}, allowed {}, that of rank 0", version.dump(), kVersion));
    }
    if (greetings[rank].at("build") == greetings[0].at("build")) continue;
    return named(ranks_, rank,
                 fmt::format("found another build of weir {} than rank 0, allowed one build on all "
                             "hosts",
                             kVersion));
  }
  const std::vector<HostShare> shares = shares_of(ranks_, greetings);
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank) {
    send_json(ranks_, rank,
              {{"go", true}, {"count", shares[rank].count}, {"cpus", shares[rank].cpus}});
  }
  std::vector<nlohmann::json> answers = {readiness(own, shares[0], threads_per_device)};
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank)
    answers.push_back(receive_json(ranks_, rank));
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (answers[rank].contains("error"))
      return named(ranks_, rank, answers[rank].at("error").get<std::string>());
    const auto difference = difference_of(answers[rank].at("identity"), answers[0].at("identity"));
    if (difference) return named(ranks_, rank, *difference);
  }
  auto machine = join_hosts(ranks_, answers);
  if (!machine) return tl::unexpected(machine.error());
  machine_ = *std::move(machine);
  note_binding(ranks_, greetings, shares);
  return {};
}

void RankLeader::go(const std::vector<ExecDevice>& devices) {
  told_ = true;
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank) {
    send_json(ranks_, rank,
              {{"go", true}, {"name", devices[rank].name}, {"cores", devices[rank].cores}});
  }
}

std::optional<ExecDevice> await_go(Ranks& ranks, const RankIdentity& own,
                                   std::optional<std::int64_t> threads_per_device) {
  send_json(ranks, 0, greeting());
  nlohmann::json told = receive_json(ranks, 0);
  if (!told.at("go").get<bool>()) return std::nullopt;
  const HostShare share = {.count = told.at("count").get<std::size_t>(),
                           .cpus = told.at("cpus").get<std::vector<int>>()};
  send_json(ranks, 0, readiness(own, share, threads_per_device));
  told = receive_json(ranks, 0);
  if (!told.at("go").get<bool>()) return std::nullopt;
  return ExecDevice{.name = told.at("name").get<std::string>(),
                    .cores = told.at("cores").get<std::vector<int>>()};
}

}  // namespace weir
