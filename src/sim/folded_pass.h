#pragma once
// The static pass (schedule.h) over a folded plan: every phase of the step in its order, one device
// for all that are alike. fold.h uses it.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/units.h"
#include "result/metrics.h"
#include "sim/fold.h"
#include "sim/step_costs.h"

namespace weir {

// The arguments outlive it. run() first, once.
class FoldedPass {
 public:
  FoldedPass(const FoldedPlan& folded, const Machine& machine, const StepCosts& costs,
             bool record_spans);

  void run();

  [[nodiscard]] SimTime end() const { return end_; }
  // Whether communications of different nodes are at work on one link at one time.
  [[nodiscard]] bool shares_links() const;
  // By device: at rest over the step, and of its tasks.
  [[nodiscard]] std::vector<double> joules() const;
  // By device, as compute_metrics; needs recorded spans.
  [[nodiscard]] std::vector<DeviceMetrics> devices() const;

 private:
  // What the devices of one colour do in a node.
  struct Task {
    std::uint32_t colour = 0;
    std::uint32_t part = 0;        // Of a communication.
    std::uint32_t cell = 0;        // Where its end is written.
    std::uint32_t first_read = 0;  // Into reads_, up to that of the next task.
    SimTime time;
  };
  struct Op {
    std::uint32_t first_task = 0;  // Into tasks_, up to that of the next op.
    std::uint32_t num_parts = 0;   // Communication only.
    std::uint32_t node_class = 0;
    bool is_comm = false;
    bool watched = false;  // Its flows use links that other nodes may use.
  };
  struct Span {
    SimTime start;
    SimTime ready;
    SimTime end;
  };
  struct NodeUse {
    std::uint32_t node_class = 0;
    SimTime begin;
    SimTime end;
  };
  struct CommTimes {
    SimTime waiting;  // Behind compute or not; the others not.
    SimTime exposed_waiting;
    SimTime exposed;
  };

  void colour_devices();
  bool refine_colours();
  void add_ops();
  void add_op(NodeId id);
  void join_parts(const Op& op, const NodeClass& cost, const std::vector<DeviceId>& members);
  [[nodiscard]] std::uint32_t cell_of(NodeId node, std::uint32_t colour) const {
    return folded_.slots()[index_of(node)] * num_colours_ + colour;
  }
  void play(std::uint32_t phase);
  // Plays phases that come `times` times on end.
  void repeat(std::span<const std::uint32_t> period, std::size_t times);
  void take_over_ends(std::uint32_t phase);
  void compute(const Op& op, std::uint32_t end_task);
  void communicate(const Op& op, std::uint32_t end_task);
  [[nodiscard]] SimTime arrival(std::uint32_t task, SimTime free) const;
  void finish(const Task& task, std::size_t queue, SimTime start, SimTime ready);
  [[nodiscard]] std::vector<LinkId> shared_links(const NodeClass& node_class) const;
  [[nodiscard]] CommTimes comm_times_of(std::uint32_t colour) const;
  void add_work(std::vector<DeviceMetrics>& devices) const;

  const FoldedPlan& folded_;
  const Plan& plan_;
  const Machine& machine_;
  const StepCosts& costs_;
  bool record_spans_;
  std::vector<std::int64_t> times_done_;  // By node of the folded plan.

  std::vector<std::uint32_t> colour_of_;  // By device.
  std::uint32_t num_colours_ = 1;
  std::vector<DeviceId> representative_;  // By colour: the first device of it.

  std::vector<Op> ops_;  // By node, and one more.
  std::vector<Task> tasks_;
  std::vector<std::uint32_t> reads_;  // Cells.

  std::vector<SimTime> cells_;                           // Ends of tasks, by slot and colour.
  std::array<std::vector<SimTime>, 2> free_at_;          // By queue, then colour.
  std::vector<SimTime> last_arrival_;                    // Of the communication at hand, by part,
  std::vector<SimTime> arrivals_;                        // and by task.
  std::array<std::vector<std::vector<Span>>, 2> spans_;  // By queue, then colour.
  std::vector<NodeUse> uses_;
  SimTime end_;
};

}  // namespace weir
