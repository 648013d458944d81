#pragma once
// A source note as data: the setups that it describes, and every figure that it claims, with the
// way in which the figure is recomputed and the other figures that it must agree with. Files of
// data/claims/, whose format docs/claims.md describes.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "claims/assumptions.h"
#include "claims/expression.h"

namespace weir {

// How a figure is written: "ms" is 1e-3 of the seconds that are computed.
struct Unit {
  std::string_view name;
  double scale = 1;
  bool is_ratio = false;  // Says who wins: above or below 1.
};
[[nodiscard]] const Unit* find_unit(std::string_view name);

// In base units. A claim of one number has low == high.
struct ClaimedRange {
  double low = 0;
  double high = 0;
  [[nodiscard]] double middle() const { return (low + high) / 2; }

  bool operator==(const ClaimedRange&) const = default;
};

// Another figure of the notes, or what follows from them, that says the same thing.
struct Counterpart {
  Expression value;
  std::string says;  // "the table's own sum"
  double within = 0.01;
};
// A limit that no arrangement can pass.
struct Limit {
  Expression value;
  std::string says;  // "what one A100 holds"
  bool is_upper = true;
};

struct Claim {
  std::string name;   // "tpot.baseline", unique with the row.
  std::string row;    // "8192"; empty outside tables with rows.
  std::string table;  // The table's title.
  std::string says;   // In words, where the name is not enough.
  const Unit* unit = nullptr;
  ClaimedRange claimed = {};
  std::optional<Expression> compute = {};
  std::string unchecked = {};  // Why it cannot be recomputed, where there is no `compute`.
  std::vector<Counterpart> agrees_with = {};
  std::vector<Limit> limits = {};
  // Who must win against whom for the direction to be right: another claim's name in the same row.
  std::string rival = {};
  bool has_trend = false;                        // From one row of the table to the next.
  bool is_gain = false;                          // A difference, above 0 where somebody wins.
  std::map<std::string, double> variables = {};  // Of the row.

  // "tpot.baseline@8192"
  [[nodiscard]] bool says_who_wins() const { return unit->is_ratio || is_gain; }
  [[nodiscard]] std::string id() const { return row.empty() ? name : name + "@" + row; }
};

struct SetupSpec {
  std::string strategy;
  // "=split", "=scores" and "=microbatches" are the assumptions of those names, "=one_layer_kib" a
  // cache that holds one layer and not two.
  std::map<std::string, std::string, std::less<>> options;
};

struct StatedAssumption {
  std::string value;
  std::string because;  // What in the note speaks for it.
};

struct Note {
  std::string name;    // "fa-pool-1"
  std::string title;   // The note's own.
  std::string preset;  // The model.
  std::map<std::string, SetupSpec> setups;
  std::map<std::string, StatedAssumption> assumptions;
  std::vector<Claim> claims;  // In the order of the note.
};

inline constexpr std::size_t kMaxClaims = 4096;  // Of one note.

// The error lists every problem at once, names that nothing stands for among them.
[[nodiscard]] Result<Note> note_from_json(const nlohmann::json& json);
[[nodiscard]] Result<Note> load_note(const std::string& path);
// Figures that name other notes are looked up in `notes`; an error names those that are nowhere.
[[nodiscard]] Status check_figures(const std::vector<Note>& notes);

// The notes of data/claims/, in the order of bundled_notes().
[[nodiscard]] Result<std::vector<Note>> load_bundled_notes();

// nullptr where there is none.
[[nodiscard]] const Claim* find_claim(const Note& note, std::string_view name,
                                      std::string_view row);

}  // namespace weir
