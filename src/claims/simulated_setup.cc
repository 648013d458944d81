#include "claims/simulated_setup.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "engine/plan_cache.h"
#include "sim/generation.h"
#include "sim/memory_trace.h"
#include "spec/sizes.h"
#include "strategy/pool_policy.h"

namespace weir {
namespace {

constexpr std::string_view kPool = "attention_pool";
// A prompt of at least one token.
Status check_length(std::int64_t seq_len, const Assumptions& assumptions, const ModelSpec& model) {
  if (seq_len > assumptions.output_len && seq_len <= model.max_position) return {};
  return invalid_input(
      fmt::format("found sequences of {} tokens, allowed {}..{}: more than output_len, and what {} "
                  "is made for",
                  seq_len, assumptions.output_len + 1, model.max_position, model.name));
}

std::int64_t number_in(const OptionValues& options, std::string_view name, std::int64_t otherwise) {
  const auto found = options.find(name);
  if (found == options.end()) return otherwise;
  std::int64_t number = otherwise;
  const std::string& text = found->second;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;  // What is no number is refused when the strategy is made.
}

// How a pool setup sizes its pool.
PoolSizing sizing_of(const OptionValues& options) {
  PoolSizing sizing{.threshold = number_in(options, "threshold", PoolSizing{}.threshold),
                    .p_max = number_in(options, "pool", PoolSizing{}.p_max)};
  if (const auto policy = options.find("pool_policy"); policy != options.end()) {
    const auto* found = std::ranges::find(kPoolPolicies, policy->second);
    if (found != std::end(kPoolPolicies))
      sizing.policy = static_cast<PoolPolicy>(found - std::begin(kPoolPolicies));
  }
  return sizing;
}

Result<OptionValues> resolved(const SetupSpec& setup, const Assumptions& assumptions,
                              const ModelSpec& model) {
  OptionValues values;
  for (const auto& [name, value] : setup.options) {
    if (value == "=split") {
      values[name] = assumptions.split;
    } else if (value == "=scores") {
      values[name] = assumptions.scores;
    } else if (value == "=microbatches") {
      values[name] = fmt::format("{}", assumptions.microbatches);
    } else if (value == "=one_layer_kib") {
      // Room for a layer and its activations, not for two layers.
      constexpr std::int64_t kBytesPerKib = 1024;
      const std::int64_t layer = layer_weight_bytes(model, assumptions.dtype).value;
      values[name] = fmt::format("{}", layer * 3 / 2 / kBytesPerKib);
    } else if (value.starts_with('=')) {
      return invalid_input(fmt::format(
          "{}: found {}, allowed =split, =scores, =microbatches, =one_layer_kib or a value", name,
          value));
    } else {
      values[name] = value;
    }
  }
  return values;
}

DeviceFacts facts_of(const ClusterSpec& cluster) {
  const DeviceType& type = cluster.type_of(DeviceId{0});
  DeviceFacts facts;
  if (type.l2) facts.l2_bytes = type.l2->value;
  if (type.l3) facts.l3_bytes = type.l3->value;
  return facts;
}

// One simulated batch.
class Batch {
 public:
  Batch(const Strategy& strategy, PlanHeader header, const Machine& machine,
        const Assumptions& assumptions, std::int64_t seq_len)
      : plans_(strategy, std::move(header)),
        machine_(machine),
        output_len_(assumptions.output_len),
        seq_len_(seq_len) {}

  Result<SimulatedRun> run(std::int64_t batch_size) {
    const GenerationShape shape{.prompt_lens = std::vector<std::int64_t>(
                                    static_cast<std::size_t>(batch_size), seq_len_ - output_len_),
                                .output_len = output_len_};
    const auto prediction = simulate_generation(
        [this](const StepLengths& lengths) { return plan_of(lengths); }, machine_, shape);
    if (!prediction) return tl::unexpected(prediction.error());
    const auto steps = static_cast<double>(output_len_ - 1);
    SimulatedRun run{.prefill = to_seconds(prediction->timeline.steps[0].end),
                     .total = to_seconds(prediction->timeline.end)};
    if (output_len_ > 1) run.decode_step = (run.total - run.prefill) / steps;
    run.devices.resize(machine_devices());
    const double last = to_seconds(prediction->last_decode.timeline.end);
    // Decode steps differ little in where their time goes; the last stands for all.
    const double decodes = output_len_ > 1 ? steps * run.decode_step / last : 0;
    add_times(prediction->prefill, 1, run);
    add_times(prediction->last_decode, decodes, run);
    if (output_len_ > 1) keep_decode(prediction->last_decode, run);
    add_memory(prefill_, prediction->prefill, run);
    if (decode_.plan != nullptr) add_memory(decode_, prediction->last_decode, run);
    return run;
  }

 private:
  struct PlannedStep {
    const ValidPlan* plan = nullptr;
    StepLengths lengths;
  };

  std::size_t machine_devices() const { return plans_.header().devices.size(); }

  Result<const ValidPlan*> plan_of(const StepLengths& lengths) {
    PlanRequest request;
    const bool prefill = lengths[0].q_len == lengths[0].kv_len;
    for (const RequestLengths& one : lengths) {
      request.shape.push_back(
          {.past_len = one.kv_len - one.q_len, .q_len = one.q_len, .max_len = seq_len_});
      request.limits.push_back({.q_len = one.q_len, .kv_len = prefill ? one.kv_len : seq_len_});
    }
    auto plan = plans_.find(request);
    if (plan) {
      PlannedStep& step = prefill ? prefill_ : decode_;
      if (step.plan == nullptr || step.lengths[0].kv_len < lengths[0].kv_len)
        step = {.plan = *plan, .lengths = lengths};
    }
    return plan;
  }

  static void add_times(const SimulatedStep& step, double times, SimulatedRun& run) {
    const Metrics metrics = compute_metrics(step.timeline);
    for (std::size_t d = 0; d < run.devices.size(); ++d) {
      for (std::size_t c = 0; c < kTimeClasses.size(); ++c) {
        run.devices[d].seconds[c] +=
            times * to_seconds(metrics.devices[d].breakdown[kTimeClasses[c]]);
      }
      run.devices[d].joules += times * step.joules[d];
    }
  }

  static void keep_decode(const SimulatedStep& step, SimulatedRun& run) {
    const Metrics metrics = compute_metrics(step.timeline);
    for (std::size_t d = 0; d < run.devices.size(); ++d) {
      for (std::size_t c = 0; c < kTimeClasses.size(); ++c) {
        run.devices[d].decode_seconds[c] =
            to_seconds(metrics.devices[d].breakdown[kTimeClasses[c]]);
      }
    }
  }

  // The most of each category over prefill and decode, and the most of all together.
  static void add_memory(const PlannedStep& step, const SimulatedStep& simulated,
                         SimulatedRun& run) {
    const MemoryTrace trace = trace_memory(simulated.timeline, 0, step.plan->plan(), step.lengths);
    const auto grow = [](double& most, std::int64_t bytes) {
      most = std::max(most, static_cast<double>(bytes));
    };
    for (std::size_t d = 0; d < run.devices.size(); ++d) {
      DeviceRun& device = run.devices[d];
      for (const MemorySample& sample : trace.devices[d]) {
        const DeviceMemory& memory = sample.memory;
        grow(device.weights, memory.weights);
        grow(device.kv_cache, memory.kv_cache);
        grow(device.activations, memory.activations + memory.comm_buffers);
        grow(device.attention, memory.attention);
        grow(device.total_bytes, memory.total());
      }
      device.is_pool = device.weights == 0;
    }
  }

  PlanCache plans_;
  const Machine& machine_;
  std::int64_t output_len_;
  std::int64_t seq_len_;
  PlannedStep prefill_;
  PlannedStep decode_;
};

// What lies on the line through the runs of two batches.
class Line {
 public:
  Line(std::int64_t first, std::int64_t second, std::int64_t wanted)
      : beyond_(static_cast<double>(wanted - second) / static_cast<double>(second - first)) {}

  [[nodiscard]] double at(double first, double second) const {
    return second + beyond_ * (second - first);
  }

  [[nodiscard]] DeviceRun at(const DeviceRun& first, const DeviceRun& second) const {
    DeviceRun run{.weights = second.weights,
                  .kv_cache = at(first.kv_cache, second.kv_cache),
                  .activations = at(first.activations, second.activations),
                  .attention = at(first.attention, second.attention),
                  .total_bytes = at(first.total_bytes, second.total_bytes),
                  .joules = at(first.joules, second.joules),
                  .is_pool = second.is_pool};
    for (std::size_t c = 0; c < kTimeClasses.size(); ++c) {
      run.seconds[c] = std::max(0.0, at(first.seconds[c], second.seconds[c]));
      run.decode_seconds[c] = std::max(0.0, at(first.decode_seconds[c], second.decode_seconds[c]));
    }
    return run;
  }

  [[nodiscard]] SimulatedRun at(const SimulatedRun& first, const SimulatedRun& second) const {
    SimulatedRun run{.prefill = at(first.prefill, second.prefill),
                     .decode_step = at(first.decode_step, second.decode_step),
                     .total = at(first.total, second.total),
                     .is_drawn = true};
    for (std::size_t d = 0; d < first.devices.size(); ++d)
      run.devices.push_back(at(first.devices[d], second.devices[d]));
    return run;
  }

 private:
  double beyond_;
};

}  // namespace

Result<ClusterSpec> cluster_of(const Assumptions& assumptions, std::int64_t num_devices) {
  auto cluster = load_cluster(assumptions.cluster);
  if (!cluster) return invalid_input("cluster: " + cluster.error().message);
  const auto size = static_cast<std::int64_t>(cluster->devices.size());
  if (size >= num_devices) return cluster;
  const std::int64_t nodes = (num_devices + size - 1) / size;
  auto larger = load_cluster(fmt::format("{}:{}", assumptions.cluster, nodes));
  if (!larger) return invalid_input("cluster: " + larger.error().message);
  return larger;
}

Result<SimulatedSetup> SimulatedSetup::make(ModelSpec model, const SetupSpec& setup,
                                            const Assumptions& assumptions) {
  auto options = resolved(setup, assumptions, model);
  if (!options) return tl::unexpected(options.error());
  auto cluster = cluster_of(assumptions, 1);
  if (!cluster) return tl::unexpected(cluster.error());
  // What is wrong with an option is said before the pool's are replaced by its size at a length.
  if (const auto strategy = make_strategy(setup.strategy, *options, model, facts_of(*cluster));
      !strategy) {
    return tl::unexpected(strategy.error());
  }
  SimulatedSetup result;
  result.model_ = std::move(model);
  result.setup_ = {.strategy = setup.strategy, .options = *std::move(options)};
  result.assumptions_ = assumptions;
  result.cluster_ = *std::move(cluster);
  return result;
}

const DeviceType& SimulatedSetup::device_type() const { return cluster_.type_of(DeviceId{0}); }

Result<NamedStrategy> SimulatedSetup::strategy_at(std::int64_t seq_len) const {
  OptionValues options(setup_.options.begin(), setup_.options.end());
  if (setup_.strategy == kPool) {
    const PoolSizing sizing = sizing_of(options);
    // Up to the threshold there would be no pool: what has one below it, as the first note's table,
    // spills all of a sequence.
    const std::int64_t prompt = seq_len - assumptions_.output_len;
    options["pool"] = fmt::format("{}", pool_size(sizing, seq_len));
    options["pool_policy"] = "fixed";
    options["threshold"] = fmt::format("{}", prompt > sizing.threshold ? sizing.threshold : 0);
  }
  return make_strategy(setup_.strategy, options, model_, facts_of(cluster_));
}

Result<DeviceCount> SimulatedSetup::devices_at(std::int64_t seq_len) const {
  if (auto status = check_length(seq_len, assumptions_, model_); !status)
    return tl::unexpected(status.error());
  const auto strategy = strategy_at(seq_len);
  if (!strategy) return tl::unexpected(strategy.error());
  DeviceCount count{.base = strategy->strategy->num_devices()};
  if (setup_.strategy == kPool) {
    const OptionValues options(setup_.options.begin(), setup_.options.end());
    count.pool = pool_size(sizing_of(options), seq_len);
    count.base -= count.pool;
  }
  return count;
}

Result<const SimulatedRun*> SimulatedSetup::run(std::int64_t seq_len, RunCache& cache) const {
  const auto count = devices_at(seq_len);
  if (!count) return tl::unexpected(count.error());
  const auto strategy = strategy_at(seq_len);
  CHECK(strategy.has_value(), "the strategy has been made before");
  const std::string key =
      fmt::format("{} {} {} {}: {} x {} with {} on {}: {}", model_.name, model_.gated_ffn,
                  model_.vocab_size, to_string(assumptions_.dtype), assumptions_.batch_size,
                  seq_len, assumptions_.output_len, assumptions_.cluster, strategy->label);
  if (const auto known = cache.find(key); known != cache.end()) return &known->second;
  auto run = simulate(seq_len, *count, *strategy);
  if (!run) return tl::unexpected(run.error());
  return &cache.emplace(key, *std::move(run)).first->second;
}

Result<SimulatedRun> SimulatedSetup::simulate(std::int64_t seq_len, const DeviceCount& count,
                                              const NamedStrategy& strategy) const {
  auto cluster = cluster_of(assumptions_, count.total());
  if (!cluster) return tl::unexpected(cluster.error());
  const auto machine = Machine::make(*std::move(cluster));
  if (!machine) return invalid_input("cluster: " + machine.error().message);
  PlanHeader header{.model = model_,
                    .strategy = strategy.label,
                    .activation_dtype = assumptions_.dtype,
                    .kv_dtype = assumptions_.dtype,
                    .limits = {},
                    .devices = {}};
  // Without capacities: what does not fit has a time all the same.
  for (std::int64_t d = 0; d < count.total(); ++d)
    header.devices.push_back({.name = fmt::format("gpu{}", d), .memory_bytes = {}});

  const std::int64_t wanted = assumptions_.batch_size;
  const auto run_batch = [&](std::int64_t batch_size) {
    return Batch(*strategy.strategy, header, *machine, assumptions_, seq_len).run(batch_size);
  };
  if (count.pool == 0 || wanted <= kMostPoolRequests) return run_batch(wanted);
  constexpr std::int64_t kFirst = kMostPoolRequests / 2;
  auto first = run_batch(kFirst);
  if (!first) return first;
  auto second = run_batch(kMostPoolRequests);
  if (!second) return second;
  return Line(kFirst, kMostPoolRequests, wanted).at(*first, *second);
}

}  // namespace weir
