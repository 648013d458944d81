#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "claims/bundled_notes.h"
#include "claims/note.h"
#include "claims/vocabulary.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

constexpr std::array kUnits = {
    Unit{"s", 1},        Unit{"ms", 1e-3},   Unit{"us", 1e-6},     Unit{"%", 1e-2},
    Unit{"x", 1, true},  Unit{"GB", 1e9},    Unit{"MB", 1e6},      Unit{"GB/s", 1e9},
    Unit{"W", 1},        Unit{"kW", 1e3},    Unit{"B", 1e9},       Unit{"M", 1e6},
    Unit{"tokens/s", 1}, Unit{"tokens", 1},  Unit{"GPUs", 1},      Unit{"layers", 1},
    Unit{"heads", 1},    Unit{"columns", 1}, Unit{"sequences", 1}, Unit{"", 1},
};

constexpr NumberLimits kFigures = {.min = -1e18, .max = 1e18};
constexpr NumberLimits kTolerance = {.min = 0, .max = 1};

using Names = std::set<std::string, std::less<>>;

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

// "8192", or 0.5 as "0.5".
std::string label_of(double number) { return fmt::format("{}", number); }

std::optional<ClaimedRange> range_of(const nlohmann::json& value, double scale) {
  const auto fits = [](const nlohmann::json& one) {
    return one.is_number() && std::abs(one.get<double>()) <= kFigures.max;
  };
  if (fits(value)) return ClaimedRange{value.get<double>() * scale, value.get<double>() * scale};
  if (!value.is_array() || value.size() != 2 || !fits(value[0]) || !fits(value[1]))
    return std::nullopt;
  const ClaimedRange range{value[0].get<double>() * scale, value[1].get<double>() * scale};
  if (range.low > range.high) return std::nullopt;
  return range;
}

class NoteReader {
 public:
  explicit NoteReader(const nlohmann::json& json) : json_(json) {}

  Result<Note> read() {
    ObjectReader reader(json_, "note", problems_);
    note_.name = plain_name(reader, "name");
    note_.title = reader.string("title");
    note_.preset = reader.string("model");
    read_assumptions(reader.raw("assumptions"));
    read_setups(reader.raw("setups"));
    for (ObjectReader& table : reader.objects("tables")) read_table(table);
    reader.refuse_unknown_keys();
    check_claims();
    if (!problems_.empty()) return invalid_input(join_problems(problems_));
    return std::move(note_);
  }

 private:
  std::string plain_name(ObjectReader& reader, std::string_view key) {
    std::string name = reader.string(key);
    if (!is_plain_name(name)) {
      reader.problem(key, fmt::format("found \"{}\", allowed 1 to 64 of a-z, 0-9, _ and -", name));
      name = "unnamed";
    }
    return name;
  }

  static std::string taken(const std::string& path, std::string_view name) {
    return fmt::format("{}: found the name \"{}\", allowed a-z, 0-9 and _ that mean nothing else",
                       path, name);
  }

  void read_assumptions(const nlohmann::json& json) {
    if (!json.is_object()) {
      problems_.emplace_back("note.assumptions: allowed an object");
      return;
    }
    for (const auto& [name, value] : json.items()) {
      ObjectReader reader(value, "note.assumptions." + name, problems_);
      note_.assumptions[name] = {.value = text_or_number(reader, "value"),
                                 .because = reader.string("because")};
      reader.refuse_unknown_keys();
    }
  }

  // Option values and assumptions, as the command line has them.
  static std::string text_or_number(ObjectReader& reader, std::string_view key) {
    const nlohmann::json& value = reader.raw(key);
    if (value.is_number_integer()) return fmt::format("{}", value.get<std::int64_t>());
    return reader.string(key);
  }

  void read_setups(const nlohmann::json& json) {
    if (!json.is_object()) {
      problems_.emplace_back("note.setups: allowed an object");
      return;
    }
    for (const auto& [name, value] : json.items()) {
      ObjectReader reader(value, "note.setups." + name, problems_);
      SetupSpec setup{.strategy = reader.string("strategy"), .options = {}};
      ObjectReader options = reader.object("options");
      const nlohmann::json none = nlohmann::json::object();
      const nlohmann::json& values =
          value.is_object() && value.contains("options") && value.at("options").is_object()
              ? value.at("options")
              : none;
      for (const auto& [option, ignored] : values.items())
        setup.options[option] = text_or_number(options, option);
      reader.refuse_unknown_keys();
      if (!is_free_name(name)) problems_.push_back(taken("note.setups", name));
      note_.setups[name] = std::move(setup);
      setup_names_.insert(name);
    }
  }

  void read_table(ObjectReader& reader) {
    const std::string name = plain_name(reader, "name");
    const std::string title = reader.string("title");
    if (reader.has("claims")) {
      for (ObjectReader& one : reader.objects("claims")) {
        Claim claim = read_claim(one, name, title, {});
        const auto range = range_of(one.raw("claimed"), claim.unit->scale);
        if (range) {
          claim.claimed = *range;
        } else {
          one.problem("claimed", "allowed a number or [lowest, highest]");
        }
        one.refuse_unknown_keys();
        add(std::move(claim));
      }
    } else {
      read_rows(reader, name, title);
    }
    reader.refuse_unknown_keys();
  }

  void read_rows(ObjectReader& reader, const std::string& table, const std::string& title) {
    const std::string variable = reader.string("row");
    if (!is_free_name(variable) || is_word(variable) || setup_names_.contains(variable))
      problems_.push_back(taken(reader.path() + ".row", variable));
    std::vector<Claim> columns;
    for (ObjectReader& column : reader.objects("columns")) {
      columns.push_back(read_claim(column, table, title, {variable}));
      column.refuse_unknown_keys();
    }
    const nlohmann::json& rows = reader.raw("rows");
    if (!rows.is_array() || rows.empty()) {
      reader.problem("rows", "allowed an array of at least one row");
      return;
    }
    for (const nlohmann::json& row : rows) {
      if (!row.is_array() || row.size() != columns.size() + 1 || !range_of(row[0], 1)) {
        reader.problem("rows", fmt::format("found {}, allowed a number and {} cells", shown(row),
                                           columns.size()));
        continue;
      }
      read_row(reader, variable, row, columns);
    }
  }

  void read_row(ObjectReader& reader, const std::string& variable, const nlohmann::json& row,
                const std::vector<Claim>& columns) {
    const double value = range_of(row[0], 1)->low;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const nlohmann::json& cell = row[c + 1];
      if (cell.is_null()) continue;  // The note has nothing there.
      Claim claim = columns[c];
      const auto range = range_of(cell, claim.unit->scale);
      if (!range) {
        reader.problem("rows", fmt::format("found {}, allowed null, a number or [lowest, highest]",
                                           shown(cell)));
        continue;
      }
      claim.claimed = *range;
      claim.row = label_of(value);
      claim.variables[variable] = value;
      add(std::move(claim));
    }
  }

  // All of a claim but the figure.
  Claim read_claim(ObjectReader& reader, const std::string& table, const std::string& title,
                   const Names& variables) {
    Claim claim{.name = fmt::format("{}.{}", table, plain_name(reader, "name")),
                .row = {},
                .table = title,
                .says = reader.optional_string("says").value_or("")};
    std::vector<std::string_view> units;
    for (const Unit& unit : kUnits) units.push_back(unit.name);
    claim.unit = &kUnits[reader.choice("unit", units)];
    if (reader.has("compute")) {
      claim.compute = expression(reader, "compute", variables);
    } else {
      claim.unchecked = reader.optional_string("unchecked").value_or("");
      if (claim.unchecked.empty())
        reader.problem("unchecked", "found nothing, allowed a reason where there is no compute");
    }
    if (reader.has("agrees_with")) {
      for (ObjectReader& one : reader.objects("agrees_with")) {
        claim.agrees_with.push_back(
            {.value = expression(one, "value", variables),
             .says = one.string("says"),
             .within = one.optional_number("within", kTolerance).value_or(0.01)});
        one.refuse_unknown_keys();
      }
    }
    if (reader.has("limits")) {
      for (ObjectReader& one : reader.objects("limits")) {
        claim.limits.push_back({.value = expression(one, "value", variables),
                                .says = one.string("says"),
                                .is_upper = one.optional_boolean("is_upper").value_or(true)});
        one.refuse_unknown_keys();
      }
    }
    claim.rival = reader.optional_string("rival").value_or("");
    if (!claim.rival.empty()) claim.rival = fmt::format("{}.{}", table, claim.rival);
    claim.has_trend = reader.optional_boolean("trend").value_or(false);
    claim.is_gain = reader.optional_boolean("gain").value_or(false);
    return claim;
  }

  Expression expression(ObjectReader& reader, std::string_view key, const Names& variables) {
    const std::string text = reader.string(key);
    auto parsed = parse_expression(text);
    if (parsed) {
      if (const auto status = check_words(*parsed, setup_names_, variables); !status)
        parsed = tl::unexpected(status.error());
    }
    if (parsed) return *std::move(parsed);
    reader.problem(key, parsed.error().message);
    return {};
  }

  void add(Claim claim) {
    if (!ids_.insert(claim.id()).second)
      problems_.push_back(fmt::format("note.tables: found {} twice, allowed once", claim.id()));
    if (ids_.size() == kMaxClaims + 1)
      problems_.push_back(fmt::format("note.tables: found more than {} figures", kMaxClaims));
    if (note_.claims.size() < kMaxClaims) note_.claims.push_back(std::move(claim));
  }

  void check_claims() {
    for (const Claim& claim : note_.claims) {
      // A cell of the rival's column may be empty, the column may not be missing.
      const bool known =
          claim.rival.empty() ||
          std::ranges::find(note_.claims, claim.rival, &Claim::name) != note_.claims.end();
      if (!known) {
        problems_.push_back(
            fmt::format("note.tables: {}.rival: found {}, allowed another figure of its table",
                        claim.name, claim.rival));
      }
    }
    AssumptionValues values;
    for (const auto& [name, stated] : note_.assumptions) values[name] = stated.value;
    const auto assumptions = make_assumptions(values, "note.assumptions");
    if (!assumptions) {
      problems_.push_back(assumptions.error().message);
    } else if (const auto model = assumed_model(note_.preset, *assumptions); !model) {
      problems_.push_back("note.model: " + model.error().message);
    }
    for (const auto& [name, setup] : note_.setups) {
      if (find_strategy(setup.strategy) == nullptr) {
        std::vector<std::string_view> known;
        for (const StrategyEntry& entry : strategies()) known.push_back(entry.name);
        problems_.push_back(fmt::format("note.setups.{}.strategy: found {}, allowed {}", name,
                                        setup.strategy, fmt::join(known, ", ")));
      }
    }
  }

  const nlohmann::json& json_;
  std::vector<std::string> problems_;
  Note note_;
  Names setup_names_;
  Names ids_;
};

// Whether the figure is there for some row.
bool is_known(const std::vector<Note>& notes, const std::string& asking, const FigureName& figure) {
  const std::string& name = figure.note.empty() ? asking : figure.note;
  const auto note = std::ranges::find(notes, name, &Note::name);
  if (note == notes.end()) return false;
  return std::ranges::any_of(note->claims, [&](const Claim& claim) {
    return claim.name == figure.claim && (figure.row.empty() || claim.row == figure.row);
  });
}

}  // namespace

const Unit* find_unit(std::string_view name) {
  const auto* found = std::ranges::find(kUnits, name, &Unit::name);
  return found == kUnits.end() ? nullptr : found;
}

const Claim* find_claim(const Note& note, std::string_view name, std::string_view row) {
  const auto found = std::ranges::find_if(
      note.claims, [&](const Claim& claim) { return claim.name == name && claim.row == row; });
  return found == note.claims.end() ? nullptr : &*found;
}

Result<Note> note_from_json(const nlohmann::json& json) { return NoteReader(json).read(); }

Result<Note> load_note(const std::string& path) {
  const auto json = read_json_file(path);
  if (!json) return tl::unexpected(json.error());
  auto note = note_from_json(*json);
  if (!note) return invalid_input(fmt::format("{}: {}", path, note.error().message));
  return note;
}

Status check_figures(const std::vector<Note>& notes) {
  std::vector<std::string> problems;
  for (const Note& note : notes) {
    const auto check = [&](const Claim& claim, const Expression& expression) {
      for (const Expression* part : parts_of(expression, Expression::Kind::figure)) {
        if (is_known(notes, note.name, part->figure)) continue;
        problems.push_back(fmt::format("{}: {}: found the figure [{}{}{}], which no note has",
                                       note.name, claim.id(), part->figure.note,
                                       part->figure.note.empty() ? "" : ":", part->figure.claim));
      }
    };
    for (const Claim& claim : note.claims) {
      if (claim.compute) check(claim, *claim.compute);
      for (const Counterpart& counterpart : claim.agrees_with) check(claim, counterpart.value);
      for (const Limit& limit : claim.limits) check(claim, limit.value);
    }
  }
  if (problems.empty()) return {};
  return invalid_input(join_problems(problems));
}

Result<std::vector<Note>> load_bundled_notes() {
  std::vector<Note> notes;
  for (const BundledNote& bundled : bundled_notes()) {
    const auto json = parse_json(bundled.text, bundled.name);
    if (!json) return tl::unexpected(json.error());
    auto note = note_from_json(*json);
    if (!note) return invalid_input(fmt::format("{}: {}", bundled.name, note.error().message));
    notes.push_back(*std::move(note));
  }
  if (auto status = check_figures(notes); !status) return tl::unexpected(status.error());
  return notes;
}

}  // namespace weir
