#include "sim/fold.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "sim/folded_pass.h"

namespace weir {
namespace {

// Which layers of a step are alike: those with the same layouts after a layer with the same
// layouts. The first layer stands for itself.
struct LayerFolding {
  std::vector<std::uint32_t>
      kept;  // Layers of the model, ascending: the layers of the folded plan.
  std::vector<std::uint32_t> stand_in;  // By layer of the model: which of the kept ones.
  std::vector<std::uint32_t> kinds;     // By layer of the model: equal where layouts are.
};

// Equal numbers for layers that all microbatches lay out alike and that do the same.
std::vector<std::uint32_t> kinds_of(const PlanHeader& header, const StepLayouts& layouts) {
  std::vector<std::uint32_t> kinds = layouts.microbatches.front().of_layer;
  for (std::size_t m = 1; m < layouts.microbatches.size(); ++m) {
    const std::vector<std::uint32_t>& more = layouts.microbatches[m].of_layer;
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> joined;
    for (std::size_t layer = 0; layer < kinds.size(); ++layer) {
      const auto next = static_cast<std::uint32_t>(joined.size());
      kinds[layer] = joined.try_emplace({kinds[layer], more[layer]}, next).first->second;
    }
  }
  if (cuts_last_layer(header)) kinds.back() = *std::ranges::max_element(kinds) + 1;
  return kinds;
}

// Keeps a layer wherever its kind follows another than ever before; a stretch of known ones is left
// out where what comes after it, a layer or the logits, then follows the kind that it follows in
// the model.
LayerFolding fold_layers(const PlanHeader& header, const StepLayouts& layouts) {
  LayerFolding folding{.kept = {}, .stand_in = {}, .kinds = kinds_of(header, layouts)};
  const std::vector<std::uint32_t>& kinds = folding.kinds;
  folding.stand_in.resize(kinds.size());
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> known;  // Kind before, kind.
  const auto stand_in_for = [&](std::size_t layer) {
    return known.find({kinds[layer - 1], kinds[layer]});
  };
  for (std::size_t layer = 0; layer < kinds.size(); ++layer) {
    std::size_t next = layer;
    for (std::size_t end = layer; layer > 0 && end < kinds.size(); ++end) {
      const auto found = stand_in_for(end);
      if (found == known.end()) break;
      folding.stand_in[end] = found->second;
      if (kinds[end] == kinds[layer - 1]) next = end + 1;
    }
    layer = next;
    if (layer == kinds.size()) break;
    const auto reduced = static_cast<std::uint32_t>(folding.kept.size());
    folding.kept.push_back(static_cast<std::uint32_t>(layer));
    folding.stand_in[layer] = reduced;
    if (layer > 0) known.try_emplace({kinds[layer - 1], kinds[layer]}, reduced);
  }
  return folding;
}

LayerFolding nothing_folded(const PlanHeader& header, const StepLayouts& layouts) {
  LayerFolding folding{.kept = {}, .stand_in = {}, .kinds = kinds_of(header, layouts)};
  for (std::uint32_t layer = 0; layer < folding.kinds.size(); ++layer)
    folding.kept.push_back(layer);
  folding.stand_in = folding.kept;
  return folding;
}

bool is_of_a_layer(const Phase& phase) {
  return phase.part != Part::embed && phase.part != Part::logits;
}

}  // namespace

// Builds the plan of the kept layers and what goes with it.
class FoldedPlan::Folder {
 public:
  Folder(const PlanHeader& header, const StepLayouts& layouts, LayerFolding folding)
      : header_(header), layouts_(layouts), folding_(std::move(folding)) {}

  tl::expected<FoldedPlan, std::vector<std::string>> run() {
    PlanHeader header = header_;
    header.model.num_layers = std::ssize(folding_.kept);
    const std::vector<Phase> kept = kept_phases();
    PhasedPlan phased = lower_layers(header, layouts_, folding_.kept, kept);
    std::vector<std::int64_t> repeats(folding_.kept.size(), 0);
    for (const std::uint32_t reduced : folding_.stand_in) ++repeats[reduced];
    auto valid = validate(std::move(phased.plan), repeats);
    if (!valid) return tl::unexpected(std::move(valid.error()));

    FoldedPlan folded(*std::move(valid));
    folded.layer_repeats_ = std::move(repeats);
    folded.first_node_ = std::move(phased.first_node);
    folded.phases_ = phases_of_the_step(kept);
    folded.slots_ = slots_of(kept, folded.first_node_);
    if (!reads_the_layer_before(folded, kept))
      return tl::unexpected(std::vector<std::string>{"layers depend on others than the last"});
    return folded;
  }

 private:
  [[nodiscard]] std::size_t key_of(const Phase& phase) const {
    const std::size_t layers = folding_.kept.size();
    const auto part = static_cast<std::size_t>(phase.part);
    const std::size_t layer = is_of_a_layer(phase) ? static_cast<std::size_t>(phase.layer) : 0;
    return (static_cast<std::size_t>(phase.microbatch) * layers + layer) * kNumParts + part;
  }

  [[nodiscard]] std::vector<Phase> kept_phases() const {
    std::vector<Phase> phases;
    for (Phase phase : layouts_.order) {
      if (is_of_a_layer(phase)) {
        const auto layer = static_cast<std::size_t>(phase.layer);
        if (folding_.kept[folding_.stand_in[layer]] != layer) continue;
      }
      renumber(phase);
      phases.push_back(phase);
    }
    return phases;
  }

  void renumber(Phase& phase) const {
    if (phase.part == Part::logits) phase.layer = static_cast<std::int32_t>(folding_.kept.size());
    if (!is_of_a_layer(phase)) return;
    phase.layer =
        static_cast<std::int32_t>(folding_.stand_in[static_cast<std::size_t>(phase.layer)]);
  }

  // All phases of the step, each as the kept phase that stands for it.
  [[nodiscard]] std::vector<std::uint32_t> phases_of_the_step(
      const std::vector<Phase>& kept) const {
    std::vector<std::uint32_t> index(
        layouts_.microbatches.size() * folding_.kept.size() * kNumParts, 0);
    for (std::size_t i = 0; i < kept.size(); ++i)
      index[key_of(kept[i])] = static_cast<std::uint32_t>(i);
    std::vector<std::uint32_t> phases;
    phases.reserve(layouts_.order.size());
    for (Phase phase : layouts_.order) {
      renumber(phase);
      phases.push_back(index[key_of(phase)]);
    }
    return phases;
  }

  [[nodiscard]] std::vector<std::uint32_t> slots_of(
      const std::vector<Phase>& kept, const std::vector<std::uint32_t>& first_node) const {
    const auto place_of = [](const Phase& phase) {
      return static_cast<std::size_t>(phase.microbatch) * kNumParts +
             static_cast<std::size_t>(phase.part);
    };
    std::vector<std::uint32_t> first_slot(layouts_.microbatches.size() * kNumParts + 1, 0);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      std::uint32_t& longest = first_slot[place_of(kept[i]) + 1];
      longest = std::max(longest, first_node[i + 1] - first_node[i]);
    }
    for (std::size_t i = 1; i < first_slot.size(); ++i) first_slot[i] += first_slot[i - 1];
    std::vector<std::uint32_t> slots;
    slots.reserve(first_node.back());
    for (std::size_t i = 0; i < kept.size(); ++i) {
      for (std::uint32_t n = first_node[i]; n < first_node[i + 1]; ++n)
        slots.push_back(first_slot[place_of(kept[i])] + n - first_node[i]);
    }
    return slots;
  }

  // What makes slots right: an op reads what its own layer or the last part of the layer before has
  // written, and that last part is the same in all layers of a kind, so that any of them may have
  // been before.
  [[nodiscard]] bool reads_the_layer_before(const FoldedPlan& folded,
                                            const std::vector<Phase>& kept) const {
    const Plan& plan = folded.plan_.plan();
    std::vector<const Phase*> phase_of(plan.nodes.size());
    std::map<std::pair<std::uint32_t, std::int32_t>, std::size_t> of_kind;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      for (std::uint32_t n = folded.first_node_[i]; n < folded.first_node_[i + 1]; ++n)
        phase_of[n] = &kept[i];
      if (kept[i].part != Part::ffn) continue;
      const auto layer = folding_.kept[static_cast<std::size_t>(kept[i].layer)];
      const auto [place, added] =
          of_kind.try_emplace({folding_.kinds[layer], kept[i].microbatch}, i);
      if (!added && !same_ops(folded, place->second, i)) return false;
    }
    for (std::size_t n = 0; n < plan.nodes.size(); ++n) {
      for (const ValueId input : plan.nodes[n].inputs) {
        const std::size_t producer = index_of(folded.plan_.producers()[index_of(input)]);
        if (producer == plan.nodes.size()) continue;
        const Phase& from = *phase_of[producer];
        const Phase& to = *phase_of[n];
        const bool before =
            from.layer + 1 == to.layer && (from.layer < 0 || from.part == Part::ffn);
        if (from.layer != to.layer && !before) return false;
      }
    }
    return true;
  }

  static bool same_ops(const FoldedPlan& folded, std::size_t a, std::size_t b) {
    const Plan& plan = folded.plan_.plan();
    const auto nodes_of = [&](std::size_t phase) {
      const std::uint32_t first = folded.first_node_[phase];
      return std::span(plan.nodes).subspan(first, folded.first_node_[phase + 1] - first);
    };
    return std::ranges::equal(nodes_of(a), nodes_of(b), [&](const Node& x, const Node& y) {
      return x.kind == y.kind && x.devices == y.devices &&
             std::ranges::equal(x.outputs, y.outputs, [&](ValueId u, ValueId v) {
               return plan.at(u).layout == plan.at(v).layout && plan.at(u).role == plan.at(v).role;
             });
    });
  }

  const PlanHeader& header_;
  const StepLayouts& layouts_;
  LayerFolding folding_;
};

Result<FoldedPlan> FoldedPlan::make(const PlanHeader& header, const StepLayouts& layouts) {
  auto folded = Folder(header, layouts, fold_layers(header, layouts)).run();
  // Problems are told as those of the whole plan, which numbers layers as the model does.
  if (!folded) folded = Folder(header, layouts, nothing_folded(header, layouts)).run();
  if (!folded) {
    return invalid_input(
        fmt::format("{}: no valid plan: {}", header.strategy, join_problems(folded.error())));
  }
  return *std::move(folded);
}

Result<std::optional<FoldedStep>> simulate_folded(const FoldedPlan& plan, const Machine& machine,
                                                  const StepLengths& lengths,
                                                  const SimulateOptions& options) {
  if (auto status = check_simulation(plan.plan().plan(), machine, lengths); !status)
    return tl::unexpected(status.error());
  if (options.method == SimulationMethod::event_loop || options.expand_collectives)
    return std::optional<FoldedStep>();
  const auto costs =
      StepCosts::make(plan.plan(), machine, lengths, options.collectives, plan.layer_repeats());
  if (!costs) return tl::unexpected(costs.error());
  FoldedPass pass(plan, machine, *costs, options.record_tasks);
  pass.run();
  const bool shared = pass.shares_links();
  if (shared && options.method == SimulationMethod::automatic) return std::optional<FoldedStep>();

  FoldedStep result;
  result.step = step_without_tasks(plan.plan().plan(), lengths, pass.end());
  result.step.links_shared = shared;
  result.step.joules = pass.joules();
  result.step.usd = price_of(plan.plan().plan(), machine, pass.end());
  if (options.record_tasks) result.devices = pass.devices();
  result.memory = plan.plan().memory();
  result.folded = true;
  return std::optional(std::move(result));
}

Result<FoldedStep> simulate_folded(const PlanHeader& header, const StepLayouts& layouts,
                                   const Machine& machine, const StepLengths& lengths,
                                   const SimulateOptions& options) {
  // A plan that cannot be folded may be valid as a whole; what is wrong with it is said there.
  if (const auto folded = FoldedPlan::make(header, layouts)) {
    auto step = simulate_folded(*folded, machine, lengths, options);
    if (!step) return tl::unexpected(step.error());
    if (*step) return **std::move(step);
  }

  const auto plan = validate(lower(header, layouts));
  if (!plan) {
    return invalid_input(
        fmt::format("{}: no valid plan: {}", header.strategy, join_problems(plan.error())));
  }
  auto whole = simulate(*plan, machine, lengths, options);
  if (!whole) return tl::unexpected(whole.error());
  FoldedStep result;
  if (options.record_tasks) result.devices = compute_metrics(whole->timeline).devices;
  result.step = *std::move(whole);
  result.step.timeline.tasks.clear();
  result.memory = plan->memory();
  return result;
}

}  // namespace weir
