#pragma once
// Where a device finds K or V: in its KV store, or in a buffer that was copied for one round of
// attention.

#include <list>

#include "exec/device_state.h"

namespace weir {

struct KvWanted {
  ValueId cache{};  // Of role k_cache or v_cache.
  std::int64_t request = 0;
  Interval heads;
  Interval dims;
  Interval positions;  // Not empty.
};

// `blocks` holds heads and dims beginning with these; what was wanted is inside.
struct KvView {
  kernel::KvBlocks blocks;
  std::int64_t first_head = 0;
  std::int64_t first_dim = 0;
};

// Does the value outlive the step?
[[nodiscard]] bool is_state(const ValidPlan& plan, ValueId cache);

[[nodiscard]] KvKey key_of(const StepView& step, ValueId cache, std::int64_t request);

// The plan is valid, so it is there. `pointers` keeps what the view's blocks point to and must
// outlive it.
[[nodiscard]] KvView find_kv(const StepView& step, const DeviceState& device,
                             const KvWanted& wanted, std::list<const void*>& pointers);

}  // namespace weir
