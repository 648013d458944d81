#include "claims/run_figures.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"

namespace weir {
namespace {

using ClassSeconds = std::array<double, kTimeClasses.size()>;

double in_class(const ClassSeconds& seconds, TimeClass time_class) {
  return seconds[static_cast<std::size_t>(time_class)];
}

double in_share(const ClassSeconds& seconds, TimeShare share) {
  const auto of = [&](TimeClass one) { return in_class(seconds, one); };
  switch (share) {
    case TimeShare::attention:
      return of(TimeClass::attention);
    case TimeShare::linear:
      return of(TimeClass::linear);
    case TimeShare::elementwise:
      return of(TimeClass::elementwise);
    case TimeShare::compute:
      return of(TimeClass::attention) + of(TimeClass::linear) + of(TimeClass::elementwise);
    case TimeShare::communication:
      return of(TimeClass::exposed_comm);
    case TimeShare::synchronisation:
      return of(TimeClass::synchronisation);
    case TimeShare::idle:
      return of(TimeClass::idle);
    case TimeShare::overhead:
      return of(TimeClass::exposed_comm) + of(TimeClass::synchronisation);
  }
  CHECK(false, "unknown share");
}

double in_part(const DeviceRun& device, MemoryPart part) {
  switch (part) {
    case MemoryPart::weights:
      return device.weights;
    case MemoryPart::kv_cache:
      return device.kv_cache;
    case MemoryPart::activations:
      return device.activations;
    case MemoryPart::attention:
      return device.attention;
    case MemoryPart::total:
      return device.total_bytes;
  }
  CHECK(false, "unknown part");
}

template <std::size_t n>
std::size_t index_in(const std::array<std::string_view, n>& words, std::string_view word) {
  const auto* found = std::ranges::find(words, word);
  CHECK(found != words.end(), "the word has been checked");
  return static_cast<std::size_t>(found - words.begin());
}

// Those of a group; an error where there are none.
Result<std::vector<const DeviceRun*>> devices_of(const SimulatedRun& run, const std::string& word) {
  const auto set = static_cast<DeviceSet>(index_in(kDeviceSets, word));
  std::vector<const DeviceRun*> devices;
  for (const DeviceRun& device : run.devices) {
    if (set == DeviceSet::all || device.is_pool == (set == DeviceSet::pool))
      devices.push_back(&device);
  }
  if (devices.empty()) {
    return invalid_input(
        fmt::format("found no {} devices at this length, allowed a length with some", word));
  }
  return devices;
}

double joules_of(const SimulatedRun& run) {
  double joules = 0;
  for (const DeviceRun& device : run.devices) joules += device.joules;
  return joules;
}

double tokens_of(const RunQuestion& question) {
  const Assumptions& assumed = question.assumptions;
  const std::int64_t each =
      assumed.tps_tokens == TpsTokens::all ? question.seq_len : assumed.output_len;
  return static_cast<double>(each) * static_cast<double>(assumed.batch_size);
}

// Time of communication within what tpot_of takes, mean over devices.
double comm_per_token(const SimulatedRun& run, const RunQuestion& question) {
  RunTimes overhead;
  for (const DeviceRun& device : run.devices) {
    overhead.total += in_share(device.seconds, TimeShare::overhead);
    overhead.decode_step += in_share(device.decode_seconds, TimeShare::overhead);
  }
  overhead.total /= static_cast<double>(run.devices.size());
  overhead.decode_step /= static_cast<double>(run.devices.size());
  return tpot_of(overhead, question);
}

}  // namespace

double tpot_of(const RunTimes& times, const RunQuestion& question) {
  const Assumptions& assumed = question.assumptions;
  const double each = assumed.tpot == TpotReading::generation
                          ? times.total / static_cast<double>(assumed.output_len)
                          : times.decode_step;
  return assumed.tpot_tokens == TpotTokens::request
             ? each
             : each / static_cast<double>(assumed.batch_size);
}

double tps_of(const RunTimes& times, const RunQuestion& question) {
  if (question.assumptions.tps_tokens == TpsTokens::decode)
    return static_cast<double>(question.assumptions.batch_size) / times.decode_step;
  return tokens_of(question) / times.total;
}

Result<double> run_figure(Function function, const SimulatedRun& run,
                          const std::vector<std::string>& words, const RunQuestion& question) {
  const RunTimes times{.decode_step = run.decode_step, .total = run.total};
  switch (function) {
    case Function::tpot:
      return tpot_of(times, question);
    case Function::tps:
      return tps_of(times, question);
    case Function::prefill:
      return run.prefill;
    case Function::step:
      return run.decode_step;
    case Function::comm_per_token:
      return comm_per_token(run, question);
    case Function::mean_watts:
      return joules_of(run) / run.total;
    case Function::tokens_per_joule:
      return tokens_of(question) / joules_of(run);
    case Function::share: {
      const auto devices = devices_of(run, words[0]);
      if (!devices) return tl::unexpected(devices.error());
      const auto share = static_cast<TimeShare>(index_in(kTimeShares, words[1]));
      double seconds = 0;
      for (const DeviceRun* device : *devices) seconds += in_share(device->seconds, share);
      return seconds / (run.total * static_cast<double>(devices->size()));
    }
    case Function::memory: {
      const auto devices = devices_of(run, words[0]);
      if (!devices) return tl::unexpected(devices.error());
      const auto part = static_cast<MemoryPart>(index_in(kMemoryParts, words[1]));
      double most = 0;
      for (const DeviceRun* device : *devices) most = std::max(most, in_part(*device, part));
      return most;
    }
    case Function::gpus:
    case Function::pool:
    case Function::rule_pool:
    case Function::best_pool:
    case Function::peak_watts:
    case Function::parameters:
      break;
  }
  CHECK(false, "the function is of a run");
}

double most_kept(const SimulatedRun& run) {
  double most = 0;
  for (const DeviceRun& device : run.devices)
    most = std::max(most, device.weights + device.kv_cache);
  return most;
}

}  // namespace weir
