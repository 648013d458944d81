#pragma once
// A plan as Chakra execution traces (MLCommons, schema 0.0.4): what other simulators, ASTRA-sim
// first of all, read. One trace per device; docs/plan-format.md says what becomes of each op. A
// trace has FLOPs and bytes, so it is of a plan whose lengths are bound.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "plan/validate.h"

namespace weir {

// Keeps the plan; `lengths` are its requests within its limits.
class ChakraTraces {
 public:
  ChakraTraces(ValidPlan plan, StepLengths lengths);

  // The file of one rank, by convention PREFIX.<rank>.et: a GlobalMetadata, then Nodes, inputs
  // before readers, each behind its length.
  [[nodiscard]] std::string of(DeviceId rank) const;
  // The process groups of all ranks as JSON, {"1": [0, 1, ...], ...}: what ASTRA-sim calls its
  // communicator group configuration.
  [[nodiscard]] std::string groups_json() const;

 private:
  class Rank;  // Writes one.

  struct Collective {
    std::vector<DeviceId> members;
    std::uint32_t group = 0;  // Name of the process group, from 1.
    std::int64_t bytes = 0;   // That each member puts in.
  };
  struct Message {
    DeviceId from{};
    DeviceId to{};  // The same, of copies only: what a device copies to itself.
    std::int64_t bytes = 0;
  };
  // What a communication node comes to; none of these where it moves nothing at these lengths.
  struct Movement {
    std::vector<Collective> collectives;
    std::vector<Message> messages;
  };

  void add_collectives(NodeId id);
  void add_messages(NodeId id);

  ValidPlan plan_;
  StepLengths lengths_;
  std::vector<Movement> movements_;      // By node.
  std::vector<std::uint32_t> position_;  // By node, in the topological order.
  std::map<std::vector<DeviceId>, std::uint32_t> groups_;
};

}  // namespace weir
