#include "sim/machine.h"

#include <string>
#include <utility>

namespace weir {

Result<Machine> Machine::make(ClusterSpec cluster) {
  std::vector<DeviceModel> models;
  std::vector<std::string> problems;
  for (const DeviceType& type : cluster.device_types) {
    auto model = DeviceModel::make(type);
    if (model) {
      models.push_back(*std::move(model));
    } else {
      problems.push_back(model.error().message);
    }
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return Machine(Topology(std::move(cluster)), std::move(models));
}

}  // namespace weir
