#pragma once
// What devices did in many steps of which few were simulated: each simulated step counts as often
// as steps were taken to be like it, a step between two of them in part for either.

#include <array>
#include <span>
#include <string>
#include <vector>

#include "base/units.h"
#include "result/metrics.h"

namespace weir {

class DeviceTotals {
 public:
  // One entry per device, the same in all calls.
  void add(std::span<const DeviceMetrics> step, double times);

  // Over a run of `total`, which must not be shorter than the steps: what is left of it is resource
  // management. Breakdowns add up to it. Empty where nothing was added.
  [[nodiscard]] std::vector<DeviceMetrics> over(SimTime total) const;

 private:
  struct Totals {
    std::string name;
    std::array<double, kTimeClasses.size()> ns{};
    double waiting_ns = 0;
    struct Work {
      double tasks = 0;
      double ns = 0;
      double flops = 0;
      double bytes = 0;
    };
    std::array<Work, kOpClasses.size()> work{};
  };
  std::vector<Totals> devices_;
};

}  // namespace weir
