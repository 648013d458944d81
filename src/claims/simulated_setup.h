#pragma once
// One setup of a note, put before the simulator: what a batch of sequences of one length costs,
// from their arrival to their last token, and what every device holds then. The figures are those
// that `weir simulate` prints for the same model, cluster, strategy and batch.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "claims/assumptions.h"
#include "claims/note.h"
#include "plan/memory.h"
#include "result/metrics.h"
#include "spec/cluster.h"
#include "spec/model.h"
#include "strategy/strategy.h"

namespace weir {

// Batches up to this size are simulated as they are. A pool exchanges messages per sequence and
// device, so larger ones are drawn from two smaller: all costs grow on a line with the batch, which
// a test holds against the whole batch.
inline constexpr std::int64_t kMostPoolRequests = 64;

struct DeviceRun {
  std::array<double, kTimeClasses.size()> seconds{};         // By TimeClass, over the generation.
  std::array<double, kTimeClasses.size()> decode_seconds{};  // In the last decode step.
  // The most bytes of each category at any instant; they need not fall together.
  double weights = 0;
  double kv_cache = 0;
  double activations = 0;  // With communication buffers,
  double attention = 0;    // without these.
  double total_bytes = 0;  // The most at one instant.
  double joules = 0;
  bool is_pool = false;  // Has no weights.
};

// Of a whole batch, times in seconds.
struct SimulatedRun {
  double prefill = 0;
  double decode_step = 0;  // The mean; 0 with an output of one token.
  double total = 0;
  std::vector<DeviceRun> devices = {};
  bool is_drawn = false;  // From smaller batches.
};

// How many devices a setup has for sequences of one length: a pool is sized for that length once,
// as the notes size it.
struct DeviceCount {
  std::int64_t base = 0;
  std::int64_t pool = 0;
  [[nodiscard]] std::int64_t total() const { return base + pool; }
};

// By model, assumptions, strategy and length.
using RunCache = std::map<std::string, SimulatedRun, std::less<>>;

class SimulatedSetup {
 public:
  // Fails where the strategy refuses an option, as it would on the command line.
  static Result<SimulatedSetup> make(ModelSpec model, const SetupSpec& setup,
                                     const Assumptions& assumptions);

  // `seq_len` counts prompt and output.
  [[nodiscard]] Result<DeviceCount> devices_at(std::int64_t seq_len) const;
  // Simulated once for all setups that come to the same: the cache must outlive the result.
  [[nodiscard]] Result<const SimulatedRun*> run(std::int64_t seq_len, RunCache& cache) const;
  [[nodiscard]] const DeviceType& device_type() const;

 private:
  SimulatedSetup() = default;
  [[nodiscard]] Result<NamedStrategy> strategy_at(std::int64_t seq_len) const;
  [[nodiscard]] Result<SimulatedRun> simulate(std::int64_t seq_len, const DeviceCount& count,
                                              const NamedStrategy& strategy) const;

  ModelSpec model_;
  SetupSpec setup_;
  Assumptions assumptions_;
  ClusterSpec cluster_;  // As named, without regard to how many devices are wanted.
};

// The assumed cluster with at least this many devices, in whole nodes.
[[nodiscard]] Result<ClusterSpec> cluster_of(const Assumptions& assumptions,
                                             std::int64_t num_devices);

}  // namespace weir
