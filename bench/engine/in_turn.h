#pragma once
// Several ways of running a model, timed in turn, so that what disturbs the machine for a while
// disturbs them alike.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/engine/figures.h"
#include "bench/engine/model_run.h"

namespace weir::bench {

struct TurnTimes {
  Summary prefill;
  Summary decode_step;  // Of the rounds' medians; zeros where nothing was decoded.
};

using Runs = std::vector<std::unique_ptr<ModelRun>>;
[[nodiscard]] Result<Runs> make_runs(const ModelOnDisk& model, std::span<const Split> splits);

// After a round that is not counted unless it takes long, rounds of one run each: up to five, but
// two where they take more than six seconds together, and one where that takes more than 25.
[[nodiscard]] Result<std::vector<TurnTimes>> run_in_turn(Runs& runs, const Prompts& prompts);

}  // namespace weir::bench
