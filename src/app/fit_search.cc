#include "app/fit_search.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/sweep_axis.h"

namespace weir {
namespace {

// Beyond this many devices a change is no small one.
constexpr std::int64_t kMostDevices = 4096;

// "h100-sxm" of "h100-sxm:2x8"; the whole where no counts follow.
std::string without_counts(const std::string& cluster) {
  const std::size_t colon = cluster.rfind(':');
  if (colon == std::string::npos || colon + 1 == cluster.size()) return cluster;
  return cluster.find_first_not_of("0123456789x", colon + 1) == std::string::npos
             ? cluster.substr(0, colon)
             : cluster;
}

class FitSearch {
 public:
  FitSearch(const PredictionInput& input, const Setup& setup) : input_(input), setup_(setup) {}

  std::vector<FittingChange> run() {
    smaller_dtypes();
    more_microbatches();
    fewer_requests();
    shorter_prompts();
    more_devices();
    other_devices();
    return std::move(changes_);
  }

 private:
  // Sets a value; false where that is impossible.
  using Edit = std::function<bool(PredictionInput&, std::int64_t)>;

  // The strategy's devices where the changed input is possible and fits.
  static std::optional<std::int64_t> devices_if_fits(const PredictionInput& input) {
    const auto verdict = judge_memory(input);
    if (!verdict || verdict->shortage) return std::nullopt;
    return verdict->num_devices;
  }

  bool add_if_fits(const PredictionInput& input, std::string flags, std::string instead_of) {
    const auto devices = devices_if_fits(input);
    if (!devices) return false;
    changes_.push_back(
        {.flags = std::move(flags), .instead_of = std::move(instead_of), .num_devices = *devices});
    return true;
  }

  void smaller_dtypes() {
    if (setup_.header.kv_dtype == DType::f32) {
      PredictionInput changed = input_;
      changed.setup.kv_dtype = DType::bf16;
      add_if_fits(changed, "--kv-dtype bf16", "f32");
    }
    if (setup_.header.activation_dtype == DType::f32) {
      PredictionInput changed = input_;
      changed.setup.activation_dtype = DType::bf16;
      add_if_fits(changed, "--activation-dtype bf16", "f32");
    }
  }

  [[nodiscard]] const OptionSpec* option(std::string_view name) const {
    const StrategyEntry* entry = find_strategy(input_.setup.strategy.name);
    const auto place = std::ranges::find(entry->options, name, &OptionSpec::name);
    return place == entry->options.end() ? nullptr : &*place;
  }

  // As given, or the default. The options were valid when the setup was made.
  [[nodiscard]] std::int64_t value_of(const OptionSpec& spec) const {
    const auto given = input_.setup.strategy.values.find(spec.name);
    return std::stoll(given == input_.setup.strategy.values.end() ? std::string(spec.default_value)
                                                                  : given->second);
  }

  struct Doubled {
    std::int64_t fits = 0;
    std::int64_t fails = 0;  // The value before, which does not.
  };
  // Doubles a value, `most` being the last, until it fits; nullopt once a value is impossible or
  // leaves as much missing as the one before.
  [[nodiscard]] std::optional<Doubled> double_until_fit(std::int64_t now, std::int64_t most,
                                                        const Edit& edit) const {
    std::int64_t missing = std::numeric_limits<std::int64_t>::max();
    while (now < most) {
      const std::int64_t next = std::clamp<std::int64_t>(2 * now, 1, most);
      PredictionInput changed = input_;
      if (!edit(changed, next)) return std::nullopt;
      const auto verdict = judge_memory(changed);
      if (!verdict) return std::nullopt;
      if (!verdict->shortage) return Doubled{.fits = next, .fails = now};
      if (verdict->missing >= missing) return std::nullopt;
      missing = verdict->missing;
      now = next;
    }
    return std::nullopt;
  }

  void more_microbatches() {
    const OptionSpec* spec = option("microbatches");
    if (spec == nullptr) return;
    const std::int64_t now = value_of(*spec);
    const auto doubled = double_until_fit(
        now, input_.requests.batch_size, [](PredictionInput& input, std::int64_t count) {
          input.setup.strategy.values["microbatches"] = std::to_string(count);
          return true;
        });
    if (doubled) add(fmt::format("--microbatches {}", doubled->fits), now);
  }

  // The value nearest to `bad`, which does not fit, on the side of `good`, by halving. nullopt
  // where even `good` does not fit. What is returned has been found to fit.
  [[nodiscard]] std::optional<std::int64_t> nearest_fit(std::int64_t good, std::int64_t bad,
                                                        const Edit& edit) const {
    const auto fits = [&](std::int64_t value) {
      PredictionInput changed = input_;
      return edit(changed, value) && devices_if_fits(changed).has_value();
    };
    if (good == bad || !fits(good)) return std::nullopt;
    while (good - bad > 1 || bad - good > 1) {
      const std::int64_t middle = good + (bad - good) / 2;
      (fits(middle) ? good : bad) = middle;
    }
    return good;
  }

  void fewer_requests() {
    const std::int64_t now = input_.requests.batch_size;
    const auto most = nearest_fit(1, now, [](PredictionInput& input, std::int64_t n) {
      input.requests.batch_size = n;
      return true;
    });
    if (most) add(fmt::format("--batch {}", *most), now);
  }

  void shorter_prompts() {
    const std::int64_t now = input_.requests.prompt_len;
    const auto most = nearest_fit(1, now, [](PredictionInput& input, std::int64_t n) {
      input.requests.prompt_len = n;
      return true;
    });
    if (most) add(fmt::format("--prompt-len {}", *most), now);
  }

  void add(std::string flags, std::int64_t instead_of) {
    changes_.push_back({.flags = std::move(flags),
                        .instead_of = std::to_string(instead_of),
                        .num_devices = std::ssize(setup_.header.devices)});
  }

  // Nodes with the same devices each, so that a cluster can be written with counts.
  [[nodiscard]] std::optional<std::int64_t> devices_per_node() const {
    const auto& types = setup_.cluster.node_types;
    if (types.size() != 1 || types[0].devices.size() != 1) return std::nullopt;
    return types[0].devices[0].count;
  }

  // Makes room for the strategy's devices; true unless that is impossible. `flags` gets the larger
  // cluster's name.
  bool grow_cluster(PredictionInput& changed, std::string& flags) const {
    const StrategyChoice& choice = changed.setup.strategy;
    const auto made = make_strategy(choice.name, choice.values, changed.model);
    if (!made) return true;  // It may need to know the devices: judged as it is.
    const std::int64_t wanted = made->strategy->num_devices();
    if (wanted > kMostDevices) return false;
    const bool is_local = without_counts(changed.setup.cluster) == "local";
    if (wanted <= std::ssize(setup_.cluster.devices) || is_local) return true;
    const auto per_node = devices_per_node();
    if (!per_node) return false;
    changed.setup.cluster = fmt::format("{}:{}x{}", without_counts(changed.setup.cluster),
                                        (wanted + *per_node - 1) / *per_node, *per_node);
    flags += " -c " + changed.setup.cluster;
    return true;
  }

  // Raises an option by doubling until it fits; counted one by one, then comes back as far as it
  // still does.
  void raise(const std::string& strategy, const SweepName& name, std::int64_t now) {
    const bool other = strategy != input_.setup.strategy.name;
    std::string flags;  // Of the last edit.
    const Edit edit = [&](PredictionInput& changed, std::int64_t value) {
      if (other) changed.setup.strategy = {.name = strategy, .values = {{"tp", "1"}}};
      changed.setup.strategy.values[std::string(name.name)] = std::to_string(value);
      flags =
          fmt::format("{}--{} {}", other ? fmt::format("-s {} ", strategy) : "", name.name, value);
      return grow_cluster(changed, flags);
    };
    const auto doubled = double_until_fit(now, name.max, edit);
    if (!doubled) return;
    const auto least =
        name.one_by_one ? nearest_fit(doubled->fits, doubled->fails, edit) : std::nullopt;
    PredictionInput chosen = input_;
    if (!edit(chosen, least.value_or(doubled->fits))) return;
    add_if_fits(chosen, flags, other ? input_.setup.strategy.name : std::to_string(now));
  }

  void more_devices() {
    const auto first = std::ssize(changes_);
    if (input_.setup.strategy.name == "single") {
      for (const SweepName& name : sweep_names(*find_strategy("tp_pp"))) {
        if (name.name == "tp" || name.name == "pp") raise("tp_pp", name, 1);
      }
    } else {
      for (const SweepName& name : sweep_names(*find_strategy(input_.setup.strategy.name))) {
        const OptionSpec* spec = option(name.name);
        if (spec != nullptr && adds_devices(*spec)) {
          raise(input_.setup.strategy.name, name, value_of(*spec));
        }
      }
    }
    std::stable_sort(changes_.begin() + first, changes_.end(),
                     [](const FittingChange& a, const FittingChange& b) {
                       return a.num_devices < b.num_devices;
                     });
  }

  // Whether twice as much of the option is more devices.
  [[nodiscard]] bool adds_devices(const OptionSpec& spec) const {
    OptionValues values = input_.setup.strategy.values;
    values[std::string(spec.name)] =
        std::to_string(std::min(spec.max, std::max<std::int64_t>(2 * value_of(spec), 1)));
    const auto made = make_strategy(input_.setup.strategy.name, values, input_.model);
    return made && made->strategy->num_devices() > std::ssize(setup_.header.devices);
  }

  void other_devices() {
    const DeviceType& now = setup_.cluster.type_of(DeviceId{0});
    const auto per_node = devices_per_node();
    if (now.kind != DeviceKind::gpu || !per_node) return;
    std::vector<std::pair<double, std::string>> larger;  // Bytes, name with counts.
    for (const std::string_view name : cluster_catalogue()) {
      const auto cluster = load_cluster(std::string(name));
      if (!cluster) continue;
      const DeviceType& type = cluster->type_of(DeviceId{0});
      if (type.kind != DeviceKind::gpu || type.memory.value <= now.memory.value) continue;
      larger.emplace_back(static_cast<double>(type.memory.value),
                          fmt::format("{}:{}x{}", name, setup_.cluster.nodes.size(), *per_node));
    }
    std::ranges::sort(larger);
    for (const auto& [bytes, name] : larger) {
      PredictionInput changed = input_;
      changed.setup.cluster = name;
      if (add_if_fits(changed, "-c " + name, input_.setup.cluster)) return;
    }
  }

  const PredictionInput& input_;
  const Setup& setup_;
  std::vector<FittingChange> changes_;
};

}  // namespace

std::vector<FittingChange> find_fitting_changes(const PredictionInput& input) {
  const auto setup = set_up(input.model, input.setup);
  if (!setup) return {};
  return FitSearch(input, *setup).run();
}

std::string fitting_changes_text(const std::vector<FittingChange>& changes) {
  if (changes.empty())
    return "no single change of dtypes, requests, lengths or devices makes it fit\n";
  std::string text = "it would fit with any one of these, each recomputed, smallest first:\n";
  for (const FittingChange& change : changes) {
    text += fmt::format("  {} instead of {} ({} device{})\n", change.flags, change.instead_of,
                        change.num_devices, change.num_devices == 1 ? "" : "s");
  }
  return text;
}

nlohmann::json fitting_changes_to_json(const std::vector<FittingChange>& changes) {
  nlohmann::json list = nlohmann::json::array();
  for (const FittingChange& change : changes) {
    list.push_back(nlohmann::json::object({{"flags", change.flags},
                                           {"instead_of", change.instead_of},
                                           {"devices", change.num_devices}}));
  }
  return list;
}

}  // namespace weir
