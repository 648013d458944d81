#pragma once
// Small notes to judge: one model on one or two devices, so that a recomputation takes
// milliseconds.

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "claims/note.h"
#include "claims/recomputation.h"

namespace weir {

// `claims` is what stands between the brackets of a list of claims.
inline nlohmann::json note_json(const std::string& claims) {
  const auto parsed = parse_json(
      R"json({"name": "small", "title": "A small note", "model": "tiny",
          "assumptions": {
            "batch_size": {"value": 4, "because": "stated"},
            "output_len": {"value": 8, "because": "stated"},
            "cluster": {"value": "h100-sxm", "because": "stated"}},
          "setups": {
            "one": {"strategy": "single", "options": {}},
            "two": {"strategy": "tp_pp", "options": {"tp": 2}},
            "pool": {"strategy": "attention_pool",
                     "options": {"tp": 1, "pool": 2, "pool_policy": "fixed", "threshold": 100,
                                 "split": "=split"}}},
          "tables": [{"name": "t", "title": "A table", "claims": [)json" +
          claims + "]}]}",
      "test");
  EXPECT_TRUE(parsed) << claims;
  return parsed.value_or(nlohmann::json());
}

inline Note small_note(const std::string& claims) {
  auto note = note_from_json(note_json(claims));
  EXPECT_TRUE(note) << note.error().message;
  return note.value_or(Note{});
}

inline std::vector<Finding> judged(const Note& note, const AssumptionValues& overrides = {}) {
  RunCache runs;
  const std::vector<Note> notes = {note};
  const auto findings = recompute(notes, note, overrides, runs);
  EXPECT_TRUE(findings) << findings.error().message;
  return findings ? findings->findings : std::vector<Finding>();
}

}  // namespace weir
