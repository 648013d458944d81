#pragma once
// The part of an executor that runs on every rank but 0: this rank's device, which does what the
// executor of rank 0 says until that one goes away.

#include "base/result.h"
#include "checkpoint/checkpoint.h"
#include "comm/ranks.h"
#include "exec/executor.h"
#include "spec/model.h"

namespace weir {

// `device` is the one whose id is this rank. Failures are told to rank 0 first, which then ends the
// run; returned is what has kept this rank from going on.
[[nodiscard]] Status follow(Ranks& ranks, const Checkpoint& checkpoint, const ModelSpec& model,
                            const ExecDevice& device);

}  // namespace weir
