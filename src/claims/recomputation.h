#pragma once
// Recomputes a note: every expression is given its value by the simulator, the plan and the model's
// shapes, under the assumptions; every figure gets its verdict. Simulated runs are kept, so that a
// table's columns share them.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "claims/assumptions.h"
#include "claims/note.h"
#include "claims/simulated_setup.h"
#include "claims/verdict.h"

namespace weir {

struct Finding {
  const Claim* claim = nullptr;      // Of the note.
  std::optional<double> computed;    // In base units.
  std::optional<double> ratio = {};  // Claimed / computed.
  Verdict verdict = Verdict::unchecked;
  std::vector<std::string> reasons = {};
};

// An assumption as it was made.
struct MadeAssumption {
  std::string_view name;
  std::string value;
  std::string because;
};

struct NoteFindings {
  const Note* note = nullptr;
  std::vector<MadeAssumption> assumptions;  // In the order of assumption_specs().
  std::vector<Finding> findings = {};       // In the order of the claims.
};

// `overrides` are assumptions that the user makes instead of the notes'. Other notes' figures are
// looked up in `notes`, of which `note` is one; `runs` is shared by all notes. Fails on what makes
// a setup impossible to plan.
[[nodiscard]] Result<NoteFindings> recompute(const std::vector<Note>& notes, const Note& note,
                                             const AssumptionValues& overrides, RunCache& runs);

// 45 ms, 85-90%, 1.34 B: a value in base units as the claim writes it.
[[nodiscard]] std::string in_unit(const Unit& unit, double value);
[[nodiscard]] std::string in_unit(const Unit& unit, ClaimedRange range);

}  // namespace weir
