#include "claims/recomputation.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "base/check.h"
#include "claims/bounds.h"
#include "claims/model_figures.h"
#include "claims/run_figures.h"
#include "claims/vocabulary.h"
#include "report/format.h"
#include "strategy/pool_policy.h"

namespace weir {
namespace {

// Bounds and figures are rounded where they are written.
constexpr double kRounding = 0.01;

using Run = std::pair<std::string, std::int64_t>;  // Setup and length.

class Recomputer {
 public:
  Recomputer(const std::vector<Note>& notes, const Note& note, Assumptions assumptions,
             ModelSpec model, ClusterSpec cluster, RunCache& runs)
      : notes_(notes),
        note_(note),
        assumptions_(std::move(assumptions)),
        model_(std::move(model)),
        cluster_(std::move(cluster)),
        runs_(runs) {}

  Status add_setups() {
    for (const auto& [name, spec] : note_.setups) {
      auto setup = SimulatedSetup::make(model_, spec, assumptions_);
      if (!setup) return invalid_input(fmt::format("setup {}: {}", name, setup.error().message));
      setups_.emplace(name, *std::move(setup));
    }
    return {};
  }

  Result<Finding> find(const Claim& claim) {
    Evidence evidence{.claimed = claim.claimed, .says_who_wins = claim.says_who_wins()};
    const auto computed = value_of(claim);
    if (!computed) return tl::unexpected(computed.error());
    evidence.computed = *computed;
    for (const auto& step :
         {&Recomputer::add_limits, &Recomputer::add_memory_bound, &Recomputer::add_time_bound,
          &Recomputer::add_contradictions, &Recomputer::add_direction}) {
      if (auto status = (this->*step)(claim, evidence); !status)
        return tl::unexpected(status.error());
    }
    Finding finding{.claim = &claim, .computed = evidence.computed, .verdict = judge(evidence)};
    if (evidence.computed) finding.ratio = ratio_of(claim.claimed, *evidence.computed);
    finding.reasons = evidence.broken;
    finding.reasons.insert(finding.reasons.end(), evidence.contradictions.begin(),
                           evidence.contradictions.end());
    if (evidence.direction == false && finding.verdict != Verdict::holds)
      finding.reasons.emplace_back(wrong_direction(claim));
    if (finding.verdict == Verdict::unchecked) finding.reasons.push_back(claim.unchecked);
    return finding;
  }

 private:
  static std::string wrong_direction(const Claim& claim) {
    if (claim.says_who_wins() || !claim.rival.empty()) return "the other side wins";
    return "goes the other way from row to row";
  }

  // What the claim's expression comes to; nullopt where it has none.
  Result<std::optional<double>> value_of(const Claim& claim) {
    if (!claim.compute) return std::nullopt;
    if (const auto known = values_.find(claim.id()); known != values_.end()) return known->second;
    const auto value = evaluate(*claim.compute, scope_of(claim));
    if (!value) {
      return invalid_input(
          fmt::format("{}: {}: {}", note_.name, claim.id(), value.error().message));
    }
    return values_[claim.id()] = *value;
  }

  Scope scope_of(const Claim& claim) {
    return {.name = [this, &claim](const std::string& name) -> Result<double> {
              const auto variable = claim.variables.find(name);
              if (variable != claim.variables.end()) return variable->second;
              return named_figure(name, model_, assumptions_, cluster_);
            },
            .figure = [this, &claim](const FigureName& figure) { return figure_of(claim, figure); },
            .call = [this](const std::string& name, std::span<const Argument> arguments)
                -> Result<double> { return call(function_of(name), arguments); },
            .is_word =
                [this](const std::string& name) {
                  return note_.setups.contains(name) || is_word(name);
                }};
  }

  Result<std::optional<double>> figure_of(const Claim& claim, const FigureName& figure) const {
    const std::string& name = figure.note.empty() ? note_.name : figure.note;
    const auto note = std::ranges::find(notes_, name, &Note::name);
    if (note == notes_.end()) {
      // A note that was not read with the others is as good as absent.
      if (figure.optional) return std::nullopt;
      return invalid_input(fmt::format("found the note {}, which is not there", name));
    }
    const Claim* found =
        find_claim(*note, figure.claim, figure.row.empty() ? claim.row : figure.row);
    if (found == nullptr && figure.row.empty()) found = find_claim(*note, figure.claim, "");
    if (found != nullptr) return found->claimed.middle();
    if (figure.optional) return std::nullopt;
    return invalid_input(fmt::format("found the figure [{}] without a row {}, allowed [{}?]",
                                     figure.claim, claim.row, figure.claim));
  }

  static Result<std::int64_t> length_of(double length) {
    constexpr double kLongest = 1e9;
    if (length >= 1 && length <= kLongest) return std::llround(length);
    return invalid_input(
        fmt::format("found sequences of {} tokens, allowed 1..{}", length, kLongest));
  }

  Result<const SimulatedRun*> run_of(const std::string& setup, double length) {
    const auto tokens = length_of(length);
    if (!tokens) return tl::unexpected(tokens.error());
    return setups_.at(setup).run(*tokens, runs_);
  }

  Result<double> call(Function function, std::span<const Argument> arguments) {
    const auto word = [&](std::size_t i) -> const std::string& {
      return std::get<std::string>(arguments[i]);
    };
    // A length, where there is one, comes last.
    const auto* length = std::get_if<double>(&arguments.back());
    switch (function) {
      case Function::parameters:
        return parameters_of(model_, word(0));
      case Function::rule_pool: {
        const auto tokens = length_of(*length);
        if (!tokens) return tl::unexpected(tokens.error());
        return static_cast<double>(pool_size({.policy = PoolPolicy::linear}, *tokens));
      }
      case Function::gpus:
      case Function::pool:
      case Function::peak_watts:
        return device_figure(function, word(0), *length);
      case Function::best_pool:
        return best_pool(arguments);
      case Function::tpot:
      case Function::tps:
      case Function::prefill:
      case Function::step:
      case Function::comm_per_token:
      case Function::mean_watts:
      case Function::tokens_per_joule:
      case Function::share:
      case Function::memory: {
        const auto run = run_of(word(0), *length);
        if (!run) return tl::unexpected(run.error());
        std::vector<std::string> words;
        for (const Argument& argument : arguments.subspan(1, arguments.size() - 2))
          words.push_back(std::get<std::string>(argument));
        return run_figure(function, **run, words,
                          {.assumptions = assumptions_,
                           .seq_len = static_cast<std::int64_t>(std::llround(*length))});
      }
    }
    CHECK(false, "unknown function");
  }

  Result<double> device_figure(Function function, const std::string& setup, double length) const {
    const auto tokens = length_of(length);
    if (!tokens) return tl::unexpected(tokens.error());
    const auto count = setups_.at(setup).devices_at(*tokens);
    if (!count) return tl::unexpected(count.error());
    if (function == Function::pool) return static_cast<double>(count->pool);
    if (function == Function::gpus) return static_cast<double>(count->total());
    auto watts = named_figure("max_watts", model_, assumptions_, cluster_);
    if (!watts) return watts;
    return *watts * static_cast<double>(count->total());
  }

  // By tokens per second and device.
  Result<double> best_pool(std::span<const Argument> arguments) {
    double best = 0;
    double size = 0;
    const double length = std::get<double>(arguments.back());
    for (const Argument& argument : arguments.first(arguments.size() - 1)) {
      const auto& setup = std::get<std::string>(argument);
      const auto run = run_of(setup, length);
      if (!run) return tl::unexpected(run.error());
      auto gpus = device_figure(Function::gpus, setup, length);
      if (!gpus) return gpus;
      const double rate = 1 / ((*run)->total * *gpus);
      if (rate <= best) continue;
      best = rate;
      auto pool = device_figure(Function::pool, setup, length);
      if (!pool) return pool;
      size = *pool;
    }
    return size;
  }

  Status add_limits(const Claim& claim, Evidence& evidence) {
    for (const Limit& limit : claim.limits) {
      const auto value = evaluate(limit.value, scope_of(claim));
      if (!value) return tl::unexpected(value.error());
      if (!*value) continue;
      const bool broken = limit.is_upper ? claim.claimed.low > **value * (1 + kRounding)
                                         : claim.claimed.high < **value * (1 - kRounding);
      if (broken) {
        evidence.broken.push_back(fmt::format("{}: {} {}", limit.says,
                                              limit.is_upper ? "at most" : "at least",
                                              in_unit(*claim.unit, **value)));
      }
    }
    return {};
  }

  // The runs that an expression's calls simulate, memory's own aside: there what is needed is the
  // very figure.
  Result<std::vector<Run>> runs_in(const Claim& claim) {
    std::vector<Run> runs;
    if (!claim.compute) return runs;
    for (const Expression* one : parts_of(*claim.compute, Expression::Kind::call)) {
      if (setups_.empty() || one->operands.empty() ||
          !note_.setups.contains(one->operands.front().name)) {
        continue;
      }
      const Function function = function_of(one->name);
      if (function == Function::memory || function == Function::gpus ||
          function == Function::pool || function == Function::peak_watts) {
        continue;
      }
      const auto length = evaluate(one->operands.back(), scope_of(claim));
      if (!length) return tl::unexpected(length.error());
      if (!*length) continue;
      const auto tokens = length_of(**length);
      if (!tokens) return tl::unexpected(tokens.error());
      for (const Expression& operand : one->operands) {
        const Run run{operand.name, *tokens};
        const bool is_setup =
            operand.kind == Expression::Kind::name && note_.setups.contains(operand.name);
        if (is_setup && std::ranges::find(runs, run) == runs.end()) runs.push_back(run);
      }
    }
    return runs;
  }

  // Weights and KV cache must lie somewhere from the prompt to the last token.
  Status add_memory_bound(const Claim& claim, Evidence& evidence) {
    const auto runs = runs_in(claim);
    if (!runs) return tl::unexpected(runs.error());
    for (const Run& one : *runs) {
      const auto run = run_of(one.first, static_cast<double>(one.second));
      if (!run) return tl::unexpected(run.error());
      const double held = most_kept(**run);
      const auto capacity = static_cast<double>(setups_.at(one.first).device_type().memory.value);
      if (held <= capacity) continue;
      evidence.broken.push_back(
          fmt::format("memory: {} needs {} of weights and KV cache on a GPU of {}", one.first,
                      format_bytes(held), format_bytes(capacity)));
    }
    return {};
  }

  // Where the figure itself is a time or a rate.
  Status add_time_bound(const Claim& claim, Evidence& evidence) {
    if (!claim.compute || claim.compute->kind != Expression::Kind::call) return {};
    const auto& name = claim.compute->name;
    if (name != "tpot" && name != "tps") return {};
    const auto runs = runs_in(claim);
    if (!runs) return tl::unexpected(runs.error());
    if (runs->empty()) return {};  // Its length is a figure that is absent.
    const auto& [setup, length] = runs->front();
    const auto count = setups_.at(setup).devices_at(length);
    if (!count) return tl::unexpected(count.error());
    const auto least = least_time(model_,
                                  {.batch_size = assumptions_.batch_size,
                                   .seq_len = length,
                                   .output_len = assumptions_.output_len,
                                   .dtype = assumptions_.dtype},
                                  setups_.at(setup).device_type(), count->total());
    if (!least) return {};
    const RunTimes times{.decode_step = least->decode_step, .total = least->total};
    const RunQuestion question{.assumptions = assumptions_, .seq_len = length};
    if (name == "tpot") {
      const double floor = tpot_of(times, question);
      if (claim.claimed.high >= floor * (1 - kRounding)) return {};
      evidence.broken.push_back(
          fmt::format("at least {} ({})", in_unit(*claim.unit, floor), least->says));
    } else {
      const double ceiling = tps_of(times, question);
      if (claim.claimed.low <= ceiling * (1 + kRounding)) return {};
      evidence.broken.push_back(
          fmt::format("at most {} ({})", in_unit(*claim.unit, ceiling), least->says));
    }
    return {};
  }

  Status add_contradictions(const Claim& claim, Evidence& evidence) {
    for (const Counterpart& counterpart : claim.agrees_with) {
      const auto value = evaluate(counterpart.value, scope_of(claim));
      if (!value) return tl::unexpected(value.error());
      if (!*value) continue;
      const double room = counterpart.within * std::abs(**value) + 1e-12;
      if (**value >= claim.claimed.low - room && **value <= claim.claimed.high + room) continue;
      evidence.contradictions.push_back(
          fmt::format("{}: {}", counterpart.says, in_unit(*claim.unit, **value)));
    }
    return {};
  }

  Status add_direction(const Claim& claim, Evidence& evidence) {
    if (!evidence.computed) return {};
    const auto with = [&](bool agrees) {
      evidence.direction = evidence.direction.value_or(true) && agrees;
    };
    const double claimed = claim.claimed.middle();
    if (claim.unit->is_ratio) with(order_of(claimed, 1) == order_of(*evidence.computed, 1));
    if (claim.is_gain) with(order_of(claimed, 0) == order_of(*evidence.computed, 0));
    std::vector<const Claim*> others;
    if (!claim.rival.empty()) others.push_back(find_claim(note_, claim.rival, claim.row));
    if (claim.has_trend) others.push_back(neighbour_of(claim));
    for (const Claim* other : others) {
      if (other == nullptr) continue;
      const auto value = value_of(*other);
      if (!value) return tl::unexpected(value.error());
      if (*value)
        with(order_of(claimed, other->claimed.middle()) == order_of(*evidence.computed, **value));
    }
    return {};
  }

  // The row before, of the first row the one after.
  [[nodiscard]] const Claim* neighbour_of(const Claim& claim) const {
    const Claim* before = nullptr;
    bool is_next = false;
    for (const Claim& other : note_.claims) {
      if (other.name != claim.name) continue;
      if (is_next) return &other;
      if (&other == &claim) {
        if (before != nullptr) return before;
        is_next = true;
      }
      before = &other;
    }
    return nullptr;
  }

  const std::vector<Note>& notes_;
  const Note& note_;
  Assumptions assumptions_;
  ModelSpec model_;
  ClusterSpec cluster_;
  std::map<std::string, SimulatedSetup, std::less<>> setups_;
  RunCache& runs_;
  std::map<std::string, std::optional<double>> values_;  // By claim.
};

std::vector<MadeAssumption> made_assumptions(const Note& note, const AssumptionValues& overrides) {
  std::vector<MadeAssumption> made;
  for (const AssumptionSpec& spec : assumption_specs()) {
    MadeAssumption one{
        .name = spec.name, .value = std::string(spec.default_value), .because = "not stated"};
    if (const auto stated = note.assumptions.find(std::string(spec.name));
        stated != note.assumptions.end()) {
      one.value = stated->second.value;
      one.because = stated->second.because;
    }
    if (const auto given = overrides.find(spec.name); given != overrides.end()) {
      one.value = given->second;
      one.because = "as given";
    }
    made.push_back(std::move(one));
  }
  return made;
}

std::string number_in_unit(const Unit& unit, double value) {
  const double shown = value / unit.scale;
  const double magnitude = std::abs(shown);
  if (magnitude >= 1e9 || (magnitude > 0 && magnitude < 1e-3)) return fmt::format("{:.2e}", shown);
  if (magnitude >= 1000) return fmt::format("{:.0f}", shown);
  return fmt::format("{:.{}g}", shown, magnitude >= 100 ? 4 : 3);
}

std::string with_name(const Unit& unit, std::string number) {
  if (unit.name.empty()) return number;
  if (unit.name == "%" || unit.name == "x") return number + std::string(unit.name);
  return fmt::format("{} {}", number, unit.name);
}

}  // namespace

std::string in_unit(const Unit& unit, double value) {
  return with_name(unit, number_in_unit(unit, value));
}

std::string in_unit(const Unit& unit, ClaimedRange range) {
  if (range.low == range.high) return in_unit(unit, range.low);
  return with_name(unit, fmt::format("{}-{}", number_in_unit(unit, range.low),
                                     number_in_unit(unit, range.high)));
}

Result<NoteFindings> recompute(const std::vector<Note>& notes, const Note& note,
                               const AssumptionValues& overrides, RunCache& runs) {
  AssumptionValues values;
  for (const auto& [name, stated] : note.assumptions) values[name] = stated.value;
  for (const auto& [name, value] : overrides) values[name] = value;
  auto assumptions = make_assumptions(values, note.name);
  if (!assumptions) return tl::unexpected(assumptions.error());
  auto model = assumed_model(note.preset, *assumptions);
  if (!model) return tl::unexpected(model.error());
  auto cluster = cluster_of(*assumptions, 1);
  if (!cluster) return tl::unexpected(cluster.error());
  Recomputer recomputer(notes, note, *std::move(assumptions), *std::move(model),
                        *std::move(cluster), runs);
  if (auto status = recomputer.add_setups(); !status) return tl::unexpected(status.error());

  NoteFindings result{.note = &note, .assumptions = made_assumptions(note, overrides)};
  for (const Claim& claim : note.claims) {
    auto finding = recomputer.find(claim);
    if (!finding) return tl::unexpected(finding.error());
    result.findings.push_back(*std::move(finding));
  }
  return result;
}

}  // namespace weir
