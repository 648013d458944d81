#pragma once
// Law 1 asked of one case: the strategy's run beside that of a single device.

#include <optional>
#include <string>

#include "comm/ranks.h"
#include "tests/engine/equivalence_case.h"
#include "tests/engine/small_model.h"

namespace weir {

// What is wrong with the case; nullopt where the law holds. With ranks, the strategy's devices are
// theirs, and `model` is the case's, opened by all of them.
[[nodiscard]] std::optional<std::string> problem_of(const EquivalenceCase& instance);
[[nodiscard]] std::optional<std::string> problem_of(const EquivalenceCase& instance,
                                                    const SmallModel& model, Ranks* ranks);

}  // namespace weir
