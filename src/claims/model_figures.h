#pragma once
// Figures that need no simulation: of the model's shapes, the assumptions and the cluster's
// devices.

#include <string>

#include "base/result.h"
#include "claims/assumptions.h"
#include "spec/cluster.h"
#include "spec/model.h"

namespace weir {

// `part` is one of kModelParts.
[[nodiscard]] double parameters_of(const ModelSpec& model, const std::string& part);

// `name` is one of kNames. Fails where the cluster does not state it.
[[nodiscard]] Result<double> named_figure(const std::string& name, const ModelSpec& model,
                                          const Assumptions& assumptions,
                                          const ClusterSpec& cluster);

}  // namespace weir
