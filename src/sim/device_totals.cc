#include "sim/device_totals.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace weir {
namespace {

SimTime rounded(double ns) { return {std::llround(ns)}; }

}  // namespace

void DeviceTotals::add(std::span<const DeviceMetrics> step, double times) {
  devices_.resize(step.size());
  for (std::size_t d = 0; d < step.size(); ++d) {
    const DeviceMetrics& device = step[d];
    Totals& totals = devices_[d];
    totals.name = device.name;
    for (std::size_t c = 0; c < totals.ns.size(); ++c)
      totals.ns[c] += times * static_cast<double>(device.breakdown.times[c].ns);
    totals.waiting_ns += times * static_cast<double>(device.waiting_for_others.ns);
    for (std::size_t c = 0; c < totals.work.size(); ++c) {
      const WorkDone& done = device.work.work[c];
      Totals::Work& work = totals.work[c];
      work.tasks += times * static_cast<double>(done.tasks);
      work.ns += times * static_cast<double>(done.time.ns);
      work.flops += times * done.flops;
      work.bytes += times * done.bytes;
    }
  }
}

std::vector<DeviceMetrics> DeviceTotals::over(SimTime total) const {
  std::vector<DeviceMetrics> devices;
  for (const Totals& totals : devices_) {
    DeviceMetrics device;
    device.name = totals.name;
    SimTime left = total;
    for (const TimeClass c : kTimeClasses) {
      if (c == TimeClass::resource_management) continue;
      // Rounding may want some nanoseconds more than there are.
      device.breakdown[c] = std::min(left, rounded(totals.ns[static_cast<std::size_t>(c)]));
      left = left - device.breakdown[c];
    }
    device.breakdown[TimeClass::resource_management] = left;
    device.waiting_for_others = rounded(totals.waiting_ns);
    for (std::size_t c = 0; c < totals.work.size(); ++c) {
      const Totals::Work& work = totals.work[c];
      device.work.work[c] = {.tasks = std::llround(work.tasks),
                             .time = rounded(work.ns),
                             .flops = work.flops,
                             .bytes = work.bytes};
    }
    if (total > SimTime{})
      device.utilisation = to_seconds(device.breakdown.compute()) / to_seconds(total);
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace weir
