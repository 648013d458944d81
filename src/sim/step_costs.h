#pragma once
// What the tasks of a plan cost on a machine, for given lengths. Nodes that differ only in their
// layer cost the same, so each kind of node is looked at once.

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "plan/validate.h"
#include "sim/collectives.h"
#include "sim/machine.h"

namespace weir {

// A member's part of a node: a compute task, or what a communication delivers to it.
struct TaskCost {
  SimTime time;  // Of compute; of communication the time after all members are there, if links are
                 // not shared with other nodes.
  double joules = 0;
  std::int64_t flops = 0;
  std::int64_t bytes = 0;  // As TaskRecord::bytes.
};

// One transfer of a communication node: a whole collective of one group, or one message.
struct Flow {
  SimTime latency;
  SimTime transfer;  // 0: over with the latency.
  std::vector<LinkUse> uses;
  std::vector<std::uint32_t> members;  // Who is done only when it is: places in the node's group.
};

// Nodes that cost the same.
//
// A communication falls into parts that have nothing to do with each other: the groups of a
// collective, or members that messages join, directly or through others. A part begins when all of
// its members have arrived. Compute tasks are parts of their own.
struct NodeClass {
  NodeId example{};
  std::vector<TaskCost> tasks;  // By place in the node's group.
  SimTime longest;              // Of these.
  std::vector<Flow> flows;      // Communication only.
  // Each member's own part of a communication, what it copies to itself: nothing is over sooner.
  std::vector<SimTime> local;
  std::vector<std::uint32_t> part;        // Communication: by place in the node's group,
  std::vector<std::uint32_t> part_sizes;  // and how many members each part has.
  bool uses_shared_links = false;
};

// Some 13 days: no step, and so no task, is simulated that takes as long, so sums of times do not
// overflow.
inline constexpr SimTime kLongestStep{std::int64_t{1} << 50};

class StepCosts {
 public:
  // `lengths` are within the plan's limits; device i of the plan is device i of the cluster. Fails
  // where members of a communication are not joined, and where the step may take kLongestStep.
  // `layer_repeats`: as the plan was validated with.
  static Result<StepCosts> make(const ValidPlan& plan, const Machine& machine,
                                const StepLengths& lengths, const CollectiveOptions& options,
                                std::span<const std::int64_t> layer_repeats = {});

  [[nodiscard]] const NodeClass& of(NodeId node) const {
    return classes_[class_of_[index_of(node)]];
  }
  [[nodiscard]] std::span<const NodeClass> classes() const { return classes_; }
  [[nodiscard]] std::uint32_t class_index(NodeId node) const { return class_of_[index_of(node)]; }

 private:
  StepCosts() = default;
  [[nodiscard]] Status check_length(const Plan& plan, const Machine& machine,
                                    std::span<const std::int64_t> layer_repeats) const;
  std::vector<NodeClass> classes_;
  std::vector<std::uint32_t> class_of_;  // By node.
};

// A cost as simulated time: rounded up, never negative, never longer than kLongestStep.
[[nodiscard]] SimTime to_sim_time(Seconds cost);

// The groups of a collective node and what each holds together, in bytes.
[[nodiscard]] std::vector<CollectiveShape> collectives_of(const Plan& plan, NodeId node,
                                                          const StepLengths& lengths);

}  // namespace weir
