#pragma once
// The last layer of a step that wants the logits of each request's last token only: K and V are of
// all tokens, what follows from them is of that one row.

#include "plan/step_layouts.h"

namespace weir {

// The layouts of a layer where it has one row of each request. One row is not cut by tokens: of the
// pieces that differ in their tokens alone, the first takes it, and a residual that is cut is where
// the FFN is. So a ring of several rounds becomes one, in which the queries are with all parts of K
// and V at once. Caches and kv stay as named.
[[nodiscard]] LayerLayouts last_rows_of(const LayerLayouts& layer);

}  // namespace weir
