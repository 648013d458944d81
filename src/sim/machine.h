#pragma once
// A cluster made ready to be asked for times: the models of its devices and its links. Made once,
// used for any number of plans; nothing in it changes.

#include <vector>

#include "base/result.h"
#include "sim/device_model.h"
#include "sim/topology.h"
#include "spec/cluster.h"

namespace weir {

class Machine {
 public:
  // Fails where a device type lacks a figure that its model needs.
  static Result<Machine> make(ClusterSpec cluster);

  [[nodiscard]] const ClusterSpec& cluster() const { return topology_.cluster(); }
  [[nodiscard]] const Topology& topology() const { return topology_; }
  [[nodiscard]] const DeviceModel& model_of(DeviceId device) const {
    return models_[cluster().device(device).type];
  }

 private:
  Machine(Topology topology, std::vector<DeviceModel> models)
      : topology_(std::move(topology)), models_(std::move(models)) {}

  Topology topology_;
  std::vector<DeviceModel> models_;  // By device type.
};

}  // namespace weir
