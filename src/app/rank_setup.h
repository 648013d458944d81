#pragma once
// Before ranks run anything together: is every rank the same program with the same model, and which
// cores of which host is each? Rank 0 asks, compares and decides; the others answer and are told.
//
//   rank 0:  RankLeader::gather --> set_up with its machine() --> go or stop
//   others:  await_go

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "checkpoint/checkpoint.h"
#include "comm/ranks.h"
#include "exec/executor.h"
#include "spec/cluster.h"
#include "spec/model.h"

namespace weir {

// What this rank has to run with, or why it has not.
struct RankModel {
  ModelSpec model;
  Checkpoint checkpoint;
};
[[nodiscard]] Result<RankModel> open_rank_model(const std::string& folder);

// What all ranks must have alike, by name, or why this one cannot take part.
using RankIdentity = Result<nlohmann::json>;
[[nodiscard]] RankIdentity identity_of(std::string_view command, const RankModel& own);
[[nodiscard]] RankIdentity identity_of(std::string_view command, const Result<RankModel>& own);

// The devices of a cluster of CPU devices, as a rank runs each.
[[nodiscard]] std::vector<ExecDevice> rank_devices(const ClusterSpec& cluster);

// A cluster file is for ranks that are spread over hosts as its devices are over nodes: then rank i
// is device i of what `weir plan` shows for that file.
[[nodiscard]] Status check_placement(const Ranks& ranks, const ClusterSpec& cluster);

// What rank 0 does again and again on all ranks, such as running one strategy after the other.
class RankRounds {
 public:
  explicit RankRounds(Ranks* ranks) : ranks_(ranks) {}  // nullptr: there is nobody else.
  RankRounds(const RankRounds&) = delete;
  RankRounds& operator=(const RankRounds&) = delete;
  ~RankRounds();  // There is no more.
  void next();

 private:
  Ranks* ranks_;
};
// On the others: is there another round?
[[nodiscard]] bool await_round(Ranks& ranks);

class RankLeader {
 public:
  explicit RankLeader(Ranks& ranks) : ranks_(ranks) {}
  RankLeader(const RankLeader&) = delete;
  RankLeader& operator=(const RankLeader&) = delete;
  // Ranks that have not been told to go are told to stop.
  ~RankLeader();

  // Ends with an error that names rank and host where one of them cannot take part.
  [[nodiscard]] Status gather(const RankIdentity& own,
                              std::optional<std::int64_t> threads_per_device);
  // The hosts' cores, one device per rank: on one host, what `local` would be with so many devices.
  [[nodiscard]] const ClusterSpec& machine() const { return machine_; }
  // One device per rank. From here on the others follow an executor.
  void go(const std::vector<ExecDevice>& devices);

 private:
  Ranks& ranks_;
  ClusterSpec machine_;
  bool told_ = false;
};

// On the other ranks: what this one's device is; nullopt where the run ends before it begins.
[[nodiscard]] std::optional<ExecDevice> await_go(Ranks& ranks, const RankIdentity& own,
                                                 std::optional<std::int64_t> threads_per_device);

}  // namespace weir
