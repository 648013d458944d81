#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/output.h"
#include "claims/assumptions.h"
#include "claims/note.h"
#include "claims/recomputation.h"
#include "claims/verdict.h"
#include "report/format.h"
#include "report/table.h"

namespace weir {
namespace {

// How a finding is called within its table.
std::string label_of(const Claim& claim) {
  std::string label = claim.says;
  if (label.empty()) label = claim.name.substr(claim.name.find('.') + 1);
  return claim.row.empty() ? label : fmt::format("{} at {}", label, claim.row);
}

std::string computed_cell(const Finding& finding) {
  return format_or_undefined(finding.computed,
                             [&](double value) { return in_unit(*finding.claim->unit, value); });
}

std::string ratio_cell(const Finding& finding) {
  return format_or_undefined(finding.ratio, [](double ratio) {
    const double size = std::abs(ratio);
    return size >= 1000 || (size > 0 && size < 0.001) ? fmt::format("{:.1e}", ratio)
                                                      : fmt::format("{:.3g}", ratio);
  });
}

// The first reason; the others are in --json.
std::string reason_cell(const Finding& finding) {
  if (finding.reasons.empty()) return {};
  if (finding.reasons.size() == 1) return finding.reasons[0];
  return fmt::format("{} (and {} more)", finding.reasons[0], finding.reasons.size() - 1);
}

Table findings_table(const std::vector<const Finding*>& findings) {
  Table table{.columns = {{"figure", Align::left},
                          {"claimed"},
                          {"computed"},
                          {"claimed/computed"},
                          {"verdict", Align::left},
                          {"why", Align::left}},
              .rows = {}};
  for (const Finding* finding : findings) {
    table.rows.push_back(
        {.cells = {label_of(*finding->claim),
                   in_unit(*finding->claim->unit, finding->claim->claimed), computed_cell(*finding),
                   ratio_cell(*finding), std::string(to_string(finding->verdict)),
                   reason_cell(*finding)}});
  }
  return table;
}

Table assumptions_table(const NoteFindings& note) {
  Table table{
      .columns = {{"assumption", Align::left}, {"value", Align::left}, {"because", Align::left}},
      .rows = {}};
  for (const MadeAssumption& one : note.assumptions)
    table.rows.push_back({.cells = {std::string(one.name), one.value, one.because}});
  return table;
}

using Counts = std::map<Verdict, std::int64_t>;

Counts counts_of(const NoteFindings& note) {
  Counts counts;
  for (const Finding& finding : note.findings) ++counts[finding.verdict];
  return counts;
}

Table summary_table(const std::vector<NoteFindings>& notes) {
  Table table{.columns = {{"note", Align::left}, {"figures"}}, .rows = {}};
  for (const Verdict verdict : kVerdicts)
    table.columns.push_back({std::string(to_string(verdict))});
  Counts sums;
  std::size_t figures = 0;
  const auto add_row = [&](const std::string& name, std::size_t number, Counts& counts) {
    Table::Row row{.cells = {name, fmt::format("{}", number)}};
    for (const Verdict verdict : kVerdicts) row.cells.push_back(fmt::format("{}", counts[verdict]));
    table.rows.push_back(std::move(row));
  };
  for (const NoteFindings& note : notes) {
    Counts counts = counts_of(note);
    for (const auto& [verdict, count] : counts) sums[verdict] += count;
    figures += note.findings.size();
    add_row(note.note->name, note.findings.size(), counts);
  }
  if (notes.size() > 1) {
    add_row("all", figures, sums);
    table.rows.back().rule_above = true;
  }
  return table;
}

nlohmann::json finding_to_json(const Finding& finding) {
  const Claim& claim = *finding.claim;
  nlohmann::json json = {{"id", claim.id()},
                         {"table", claim.table},
                         {"figure", label_of(claim)},
                         {"unit", claim.unit->name},
                         {"claimed_low", claim.claimed.low / claim.unit->scale},
                         {"claimed_high", claim.claimed.high / claim.unit->scale},
                         {"computed", nullptr},
                         {"ratio", nullptr},
                         {"verdict", to_string(finding.verdict)},
                         {"reasons", finding.reasons}};
  if (finding.computed) json["computed"] = *finding.computed / claim.unit->scale;
  if (finding.ratio) json["ratio"] = *finding.ratio;
  return json;
}

nlohmann::json note_to_json(const NoteFindings& note) {
  nlohmann::json assumptions = nlohmann::json::array();
  for (const MadeAssumption& one : note.assumptions) {
    nlohmann::json json = nlohmann::json::object();
    json["name"] = one.name;
    json["value"] = one.value;
    json["because"] = one.because;
    assumptions.push_back(std::move(json));
  }
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& finding : note.findings) findings.push_back(finding_to_json(finding));
  nlohmann::json counts = nlohmann::json::object();
  for (const Verdict verdict : kVerdicts) counts[std::string(to_string(verdict))] = 0;
  for (const auto& [verdict, count] : counts_of(note))
    counts[std::string(to_string(verdict))] = count;
  nlohmann::json json = nlohmann::json::object();
  json["note"] = note.note->name;
  json["title"] = note.note->title;
  json["assumptions"] = std::move(assumptions);
  json["findings"] = std::move(findings);
  json["verdicts"] = std::move(counts);
  return json;
}

void print_findings(const NoteFindings& note) {
  print(fmt::format("{}: {}\n\n", printable(note.note->name), printable(note.note->title)));
  print(render(assumptions_table(note), 2));
  for (std::size_t begin = 0; begin < note.findings.size();) {
    const std::string& table = note.findings[begin].claim->table;
    std::vector<const Finding*> findings;
    std::size_t end = begin;
    while (end < note.findings.size() && note.findings[end].claim->table == table)
      findings.push_back(&note.findings[end++]);
    print(fmt::format("\n  {}\n\n", printable(table)));
    print(render(findings_table(findings), 2));
    begin = end;
  }
  print("\n");
}

class ClaimsCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_texts(app, {.name = "--note", .help = "only this note (may be given several times)"},
              notes_);
    add_texts(app,
              {.name = "--file",
               .help = "judge a note of one's own (docs/claims.md) instead of the bundled ones"},
              files_);
    add_switch(app, {.name = "--json", .help = "machine-readable, on stdout"}, json_);
    for (const AssumptionSpec& spec : assumption_specs()) {
      std::string flag = "--" + std::string(spec.name);
      std::ranges::replace(flag, '_', '-');
      add_text(app,
               {.name = flag,
                .help = std::string(spec.help),
                .value = "VALUE",
                .group = "Assumptions (default: as printed, note by note)"},
               assumptions_[std::string(spec.name)]);
    }
    add_examples(app,
                 "  weir claims\n"
                 "  weir claims --note fa-pool-1 --split kv_blocks --batch-size 1\n"
                 "  weir claims --note cache-fit --tpot-tokens request --json");
  }

  Result<ExitCode> run() override {
    auto notes = load_notes();
    if (!notes) return tl::unexpected(notes.error());
    const auto selected = select(*notes);
    if (!selected) return tl::unexpected(selected.error());
    AssumptionValues overrides;
    for (const auto& [name, value] : assumptions_) {
      if (value) overrides[name] = *value;
    }
    if (const auto checked = make_assumptions(overrides, "assumptions"); !checked)
      return tl::unexpected(checked.error());
    std::vector<NoteFindings> findings;
    RunCache runs;
    for (const Note* note : *selected) {
      auto one = recompute(*notes, *note, overrides, runs);
      if (!one) return tl::unexpected(one.error());
      findings.push_back(*std::move(one));
    }
    report(findings);
    return ExitCode::success;
  }

 private:
  // The bundled ones, then the files'.
  Result<std::vector<Note>> load_notes() const {
    auto notes = load_bundled_notes();
    if (!notes) return notes;
    for (const std::string& file : files_) {
      auto note = load_note(file);
      if (!note) return tl::unexpected(note.error());
      if (std::ranges::find(*notes, note->name, &Note::name) != notes->end()) {
        return invalid_input(fmt::format(
            "--file: found a second note {} in {}, allowed another name", note->name, file));
      }
      notes->push_back(*std::move(note));
    }
    if (auto status = check_figures(*notes); !status) return tl::unexpected(status.error());
    return notes;
  }

  Result<std::vector<const Note*>> select(const std::vector<Note>& notes) const {
    for (const std::string& name : notes_) {
      if (std::ranges::find(notes, name, &Note::name) != notes.end()) continue;
      std::vector<std::string_view> names;
      names.reserve(notes.size());
      for (const Note& note : notes) names.push_back(note.name);
      return invalid_input(
          fmt::format("--note: found {}, allowed {}", name, fmt::join(names, ", ")));
    }
    std::vector<const Note*> selected;
    for (std::size_t i = 0; i < notes.size(); ++i) {
      const bool is_own = i + files_.size() >= notes.size();
      const bool wanted = notes_.empty() ? files_.empty() || is_own
                                         : std::ranges::find(notes_, notes[i].name) != notes_.end();
      if (wanted) selected.push_back(&notes[i]);
    }
    return selected;
  }

  void report(const std::vector<NoteFindings>& findings) const {
    if (json_) {
      nlohmann::json json = nlohmann::json::array();
      for (const NoteFindings& note : findings) json.push_back(note_to_json(note));
      nlohmann::json document = nlohmann::json::object();
      document["notes"] = std::move(json);
      print_json(document);
      return;
    }
    for (const NoteFindings& note : findings) print_findings(note);
    print(render(summary_table(findings)));
  }

  std::vector<std::string> notes_;
  std::vector<std::string> files_;
  std::map<std::string, std::optional<std::string>> assumptions_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_claims_command() { return std::make_unique<ClaimsCommand>(); }

}  // namespace weir
