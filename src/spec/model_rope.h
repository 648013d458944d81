#pragma once
// Reading the rotary embedding out of a config.json, in the classic spelling (rope_theta,
// rope_scaling) and in that of transformers 5 (rope_parameters). Used by model.cc only.

#include "base/json.h"
#include "spec/model.h"

namespace weir {

// `model` must hold the architecture, head_dim and max_position. Problems go to the reader; the
// result is then within limits but meaningless.
[[nodiscard]] RopeSpec read_rope(ObjectReader& config, const ModelSpec& model);

}  // namespace weir
