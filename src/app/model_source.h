#pragma once
// The model that `--model` names.

#include <string>

#include "base/result.h"
#include "spec/model.h"

namespace weir {

// The spec of a model folder, of a config.json, or of a preset at its full size; in this order
// where `what` could be several. The spec's name is the folder's or the preset's.
[[nodiscard]] Result<ModelSpec> load_model(const std::string& what);

// "tiny, fa-pool-4l, ..."
[[nodiscard]] std::string preset_names();

}  // namespace weir
