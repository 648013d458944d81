#include "sim/generation.h"

#include <cmath>
#include <map>
#include <numeric>

#include <fmt/format.h>

#include "sim/device_totals.h"
#include "sim/step_costs.h"

namespace weir {
namespace {

// Of all requests together. Each has a time in the timeline: half a gigabyte of them.
constexpr std::int64_t kMostTokens = std::int64_t{1} << 26;
constexpr double kNanosecondsPerYear = 365.25 * 24 * 3600 * 1e9;

// What of a simulated decode step the steps around it take over.
struct Sample {
  double ns = 0;
  double joules = 0;
  std::vector<DeviceMetrics> devices = {};
};

class GenerationRun {
 public:
  GenerationRun(const PlanOf& plan_of, const Machine& machine, const GenerationShape& shape,
                const GenerationSimOptions& options)
      : plan_of_(plan_of), machine_(machine), shape_(shape), options_(options) {}

  Result<GenerationPrediction> run() {
    if (auto status = check(); !status) return tl::unexpected(status.error());
    StepLengths lengths;
    for (const std::int64_t prompt : shape_.prompt_lens)
      lengths.push_back({.q_len = prompt, .kv_len = prompt});
    auto prefill = step(lengths);
    if (!prefill) return tl::unexpected(prefill.error());
    result_.prefill = *std::move(prefill);
    result_.last_decode = result_.prefill;
    steps_.resize(static_cast<std::size_t>(shape_.output_len));
    take(0, sample_of(result_.prefill));
    if (shape_.output_len > 1) {
      if (auto status = decode(); !status) return tl::unexpected(status.error());
    }
    if (auto status = check_end(); !status) return tl::unexpected(status.error());
    finish();
    return std::move(result_);
  }

 private:
  struct StepTotals {
    double ns = 0;
    double joules = 0;
  };
  static SimTime time_of(const StepTotals& step) {
    return {static_cast<std::int64_t>(std::llround(step.ns))};
  }
  // On the host.
  [[nodiscard]] SimTime time_before(const StepTotals& step) const {
    return host_time(machine_, options_, time_of(step));
  }

  [[nodiscard]] Status check() const {
    if (shape_.prompt_lens.empty())
      return invalid_input("prompt_lens: found none, allowed at least one");
    for (const std::int64_t prompt : shape_.prompt_lens) {
      if (prompt < 1)
        return invalid_input(fmt::format("prompt_lens: found {}, allowed at least 1", prompt));
    }
    if (shape_.output_len < 1) {
      return invalid_input(
          fmt::format("output_len: found {}, allowed at least 1", shape_.output_len));
    }
    const std::int64_t requests = std::ssize(shape_.prompt_lens);
    if (shape_.output_len > kMostTokens / requests) {
      return invalid_input(fmt::format("output_len: found {} for each of {} requests, allowed {}",
                                       shape_.output_len, requests, kMostTokens / requests));
    }
    return {};
  }

  // Each step ends in time, but there may be many.
  [[nodiscard]] Status check_end() const {
    double ns = 0;
    for (const StepTotals& step : steps_) ns += step.ns + static_cast<double>(time_before(step).ns);
    constexpr double kLongest = 0x1p62;
    if (ns < kLongest) return {};
    return invalid_input(
        fmt::format("output_len: found {}, which takes {:.0f} years, allowed fewer than {:.0f}",
                    shape_.output_len, ns / kNanosecondsPerYear, kLongest / kNanosecondsPerYear));
  }

  static double sum(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
  }

  Result<SimulatedStep> step(const StepLengths& lengths) {
    const auto plan = plan_of_(lengths);
    if (!plan) return tl::unexpected(plan.error());
    ++result_.simulated_steps;
    auto simulated = simulate(**plan, machine_, lengths, options_.step);
    if (!simulated || !options_.on_step) return simulated;
    if (auto seen = options_.on_step(*simulated, lengths); !seen)
      return tl::unexpected(seen.error());
    return simulated;
  }

  static Sample sample_of(const SimulatedStep& step) {
    return {.ns = static_cast<double>(step.timeline.end.ns),
            .joules = sum(step.joules),
            .devices = compute_metrics(step.timeline).devices};
  }

  // Decode step i, the first being 1: every request has i tokens beyond its prompt.
  Result<const Sample*> sample(std::int64_t i) {
    if (const auto known = samples_.find(i); known != samples_.end()) return &known->second;
    StepLengths lengths;
    for (const std::int64_t prompt : shape_.prompt_lens)
      lengths.push_back({.q_len = 1, .kv_len = prompt + i});
    auto simulated = step(lengths);
    if (!simulated) return tl::unexpected(simulated.error());
    const Sample& made = samples_[i] = sample_of(*simulated);
    take(i, made);
    if (i == shape_.output_len - 1) result_.last_decode = *std::move(simulated);
    return &made;
  }

  // Step i, as simulated.
  void take(std::int64_t i, const Sample& sample) {
    steps_[static_cast<std::size_t>(i)] = {.ns = sample.ns, .joules = sample.joules};
    totals_.add(sample.devices, 1);
  }

  Status decode() {
    const std::int64_t last = shape_.output_len - 1;
    for (const std::int64_t end : {std::int64_t{1}, last}) {
      if (const auto sampled = sample(end); !sampled) return tl::unexpected(sampled.error());
    }
    return fill(1, last);
  }

  // Steps between two samples: on the line between them if the middle is; otherwise both halves on
  // their own.
  Status fill(std::int64_t first, std::int64_t last) {
    if (last - first < 2) return {};
    const std::int64_t middle = first + (last - first) / 2;
    const auto sampled = sample(middle);
    if (!sampled) return tl::unexpected(sampled.error());
    const Sample& a = samples_.at(first);
    const Sample& b = samples_.at(last);
    const auto share_of = [&](std::int64_t i) {
      return static_cast<double>(i - first) / static_cast<double>(last - first);
    };
    const double off = std::abs(std::lerp(a.ns, b.ns, share_of(middle)) - (*sampled)->ns);
    if (off > std::max(1.0, options_.line_tolerance * (*sampled)->ns)) {
      if (auto status = fill(first, middle); !status) return status;
      return fill(middle, last);
    }
    double of_b = 0;
    for (std::int64_t i = first + 1; i < last; ++i) {
      if (i == middle) continue;
      const double share = share_of(i);
      steps_[static_cast<std::size_t>(i)] = {.ns = std::lerp(a.ns, b.ns, share),
                                             .joules = std::lerp(a.joules, b.joules, share)};
      of_b += share;
    }
    totals_.add(a.devices, static_cast<double>(last - first - 2) - of_b);
    totals_.add(b.devices, of_b);
    return {};
  }

  void finish() {
    Timeline& timeline = result_.timeline;
    timeline.devices = result_.prefill.timeline.devices;
    const auto requests = static_cast<std::int64_t>(shape_.prompt_lens.size());
    for (const std::int64_t prompt : shape_.prompt_lens)
      timeline.requests.push_back({.input_tokens = prompt, .arrival = {}, .token_times = {}});
    double resting = 0;
    double usd_per_second = 0;
    constexpr double kSecondsPerHour = 3600;
    for (std::size_t d = 0; d < timeline.devices.size(); ++d) {
      const auto device = static_cast<DeviceId>(d);
      resting += machine_.model_of(device).resting_watts();
      usd_per_second +=
          machine_.cluster().type_of(device).usd_per_hour.value_or(0) / kSecondsPerHour;
    }
    SimTime now;
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      const SimTime between_steps = time_before(steps_[i]);
      now += between_steps;
      const SimTime start = now;
      now += time_of(steps_[i]);
      timeline.steps.push_back(
          {.prefill = i == 0, .new_tokens = requests, .start = start, .end = now});
      for (RequestRecord& request : timeline.requests) request.token_times.push_back(now);
      result_.joules += steps_[i].joules + resting * to_seconds(between_steps);
    }
    timeline.end = now;
    result_.resting_joules = resting * to_seconds(now);
    result_.devices = totals_.over(now);
    result_.usd = usd_per_second * to_seconds(now);
    result_.output_tokens = requests * shape_.output_len;
  }

  const PlanOf& plan_of_;
  const Machine& machine_;
  const GenerationShape& shape_;
  const GenerationSimOptions& options_;
  std::map<std::int64_t, Sample> samples_;
  std::vector<StepTotals> steps_;  // The prefill, then the decode steps.
  DeviceTotals totals_;
  GenerationPrediction result_;
};

}  // namespace

SimTime host_time(const Machine& machine, const GenerationSimOptions& options, SimTime step) {
  if (options.between_steps) return *options.between_steps;
  const Host& host = machine.topology().cluster().node_types.front().host;
  const bool is_short =
      host.short_step_latency && host.short_step && to_seconds(step) <= host.short_step->value;
  const std::optional<Seconds> latency = is_short ? host.short_step_latency : host.step_latency;
  return to_sim_time(latency.value_or(Seconds{}));
}

Metrics metrics_of(const GenerationPrediction& prediction) {
  Metrics metrics = compute_metrics(prediction.timeline);
  if (!prediction.devices.empty()) set_devices(metrics, prediction.devices);
  return metrics;
}

double GenerationPrediction::joules_per_token() const {
  return joules / static_cast<double>(output_tokens);
}

double GenerationPrediction::usd_per_million_tokens() const {
  return usd / static_cast<double>(output_tokens) * 1e6;
}

Result<GenerationPrediction> simulate_generation(const PlanOf& plan_of, const Machine& machine,
                                                 const GenerationShape& shape,
                                                 const GenerationSimOptions& options) {
  return GenerationRun(plan_of, machine, shape, options).run();
}

Result<ServingPrediction> simulate_serving(const PlanOf& plan_of, const Machine& machine,
                                           const ServingShape& shape,
                                           const GenerationSimOptions& options) {
  if (shape.concurrency < 1)
    return invalid_input(
        fmt::format("concurrency: found {}, allowed at least 1", shape.concurrency));
  const auto batch =
      simulate_generation(plan_of, machine,
                          {.prompt_lens = std::vector<std::int64_t>(
                               static_cast<std::size_t>(shape.concurrency), shape.prompt_len),
                           .output_len = shape.output_len},
                          options);
  if (!batch) return tl::unexpected(batch.error());
  const auto alone = simulate_generation(
      plan_of, machine, {.prompt_lens = {shape.prompt_len}, .output_len = 1}, options);
  if (!alone) return tl::unexpected(alone.error());

  const auto steps = static_cast<double>(shape.output_len);
  const auto requests = static_cast<double>(shape.concurrency);
  ServingPrediction prediction;
  prediction.prefill = {to_seconds(alone->timeline.end)};
  if (shape.output_len > 1) {
    const SimTime decoding = batch->timeline.end - batch->timeline.steps[0].end;
    prediction.decode_step = {to_seconds(decoding) / (steps - 1)};
  }
  prediction.tpot = prediction.decode_step + prediction.prefill * ((requests - 1) / steps);
  // A request's first token comes with its prefill, the others with decode steps.
  const double cycle =
      prediction.decode_step.value * (steps - 1) + prediction.prefill.value * requests;
  prediction.output_tps = requests * steps / cycle;
  return prediction;
}

}  // namespace weir
