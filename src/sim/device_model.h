#pragma once
// How long one kernel takes on one device: the place where shapes become seconds. GPUs are modelled
// in gpu_model.h, CPU devices in cpu_model.h; both answer the questions below. Times are of the
// device alone, without waiting for others.

#include <cstdint>
#include <memory>
#include <string_view>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "base/units.h"
#include "spec/cluster.h"

namespace weir {

// A dense product: activations [rows, depth] with a weight [depth, cols].
struct GemmShape {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t depth = 0;
  DType weight = DType::bf16;
  DType activation = DType::bf16;
  std::int64_t together = 1;  // Devices that do the same at the same time on one machine, and so
                              // share a CPU's memory.

  bool operator==(const GemmShape&) const = default;
};

// What one request asks of an attention kernel: its queries [0, q_len) stand at positions
// past_len..past_len + q_len and see the keys of [key_begin, key_end) at or before them.
struct AttentionTile {
  std::int64_t q_len = 0;
  std::int64_t past_len = 0;
  std::int64_t key_begin = 0;
  std::int64_t key_end = 0;
  std::int64_t q_heads = 0;
  std::int64_t kv_heads = 0;

  bool operator==(const AttentionTile&) const = default;
};
// One launch: the tiles of a batch.
struct AttentionShape {
  std::vector<AttentionTile> tiles;
  std::int64_t head_dim = 0;   // Of q and k;
  std::int64_t value_dim = 0;  // of v and the output.
  std::int64_t window = 0;     // Keys that a query sees at most; 0: all.
  DType kv = DType::bf16;
  DType activation = DType::bf16;
  std::int64_t together = 1;
};

// A pass over memory that computes little.
struct StreamShape {
  std::int64_t bytes = 0;  // Read and written.
  std::int64_t flops = 0;  // On vector units.
  DType dtype = DType::bf16;
  StreamKind kind = StreamKind::copy;
  std::int64_t together = 1;
  bool cold = false;  // Its operands lie where the cache of keys and values does.
};

struct MemoryLevel {
  std::string_view name;  // "L2"
  CacheLevel cache = CacheLevel::memory;
  std::int64_t capacity = 0;      // Bytes.
  BytesPerSecond bandwidth = {};  // Reached, not peak.

  bool operator==(const MemoryLevel&) const = default;
};

// Where operands that outlive a step (weights, the KV cache) are read from. They are streamed in
// the same order in every step: a cache that holds all of them serves them all, and one that is
// somewhat smaller serves a part where that was measured, else nothing.
struct Residence {
  // NOLINTNEXTLINE(google-explicit-constructor): all in one level is the usual case.
  Residence(const MemoryLevel& all) : level(&all) {}
  Residence(const MemoryLevel& nearer, const MemoryLevel& farther, double part)
      : level(&nearer), beyond(&farther), share(part) {}

  const MemoryLevel* level;
  const MemoryLevel* beyond = nullptr;  // Where the rest lies.
  double share = 1;                     // Of the operands, in `level`.

  bool operator==(const Residence&) const = default;
};

// Time and dynamic energy (beyond the device's power when it does nothing).
struct KernelCost {
  Seconds time = {};
  double joules = 0;
};

// The figures that a model needs and a device type lacks become an error that names them.
class GpuModel {
 public:
  static Result<GpuModel> make(const DeviceType& type);
  [[nodiscard]] KernelCost gemm(const GemmShape& shape, const MemoryLevel& weights) const;
  [[nodiscard]] KernelCost attention(const AttentionShape& shape, const MemoryLevel& cache) const;
  [[nodiscard]] KernelCost stream(const StreamShape& shape, const MemoryLevel& streamed) const;
  [[nodiscard]] const std::vector<MemoryLevel>& levels() const { return levels_; }
  [[nodiscard]] static double share_served(const MemoryLevel& level, std::int64_t bytes,
                                           std::int64_t /*devices*/) {
    return bytes <= level.capacity ? 1 : 0;
  }
  [[nodiscard]] double resting_watts() const { return resting_watts_; }

 private:
  GpuModel() = default;
  [[nodiscard]] double peak(DType dtype) const;  // Flop/s.
  // Sustained arithmetic never draws more than the power limit: a lower bound of its time. Streams
  // stay below it, and what does both at once is over before the limit acts.
  [[nodiscard]] KernelCost within_power(double seconds, double flops, double bytes) const;

  const struct GpuCalibration* constants_ = nullptr;
  PeakFlops matrix_;
  PeakFlops vector_;
  std::int64_t num_sms_ = 0;
  double l2_bandwidth_ = 0;  // 0: not known, no bound.
  double memory_bandwidth_ = 0;
  double max_watts_ = 0;  // 0: not known, no bound.
  double resting_watts_ = 0;
  std::vector<MemoryLevel> levels_;
};

// With the kernels' measured costs where the type has them, otherwise with its peaks and
// bandwidths.
class CpuModel {
 public:
  static Result<CpuModel> make(const DeviceType& type);
  [[nodiscard]] KernelCost gemm(const GemmShape& shape, const MemoryLevel& weights) const;
  [[nodiscard]] KernelCost attention(const AttentionShape& shape, const MemoryLevel& cache) const;
  [[nodiscard]] KernelCost stream(const StreamShape& shape, const MemoryLevel& streamed) const;
  [[nodiscard]] const std::vector<MemoryLevel>& levels() const { return levels_; }
  // Of a set of so many bytes that each of so many devices reads again and again.
  [[nodiscard]] double share_served(const MemoryLevel& level, std::int64_t bytes,
                                    std::int64_t devices) const;
  [[nodiscard]] double resting_watts() const { return resting_watts_; }

 private:
  CpuModel() = default;
  [[nodiscard]] double peak(DType dtype) const;
  [[nodiscard]] const MemoryLevel& level_for(std::int64_t bytes) const;
  [[nodiscard]] KernelCost cost(double seconds) const;
  [[nodiscard]] double measured_attention(const AttentionShape& shape,
                                          const AttentionCurve& curve) const;

  std::shared_ptr<const MeasuredKernels> kernels_;  // Null: not measured.
  PeakFlops matrix_;
  PeakFlops vector_;
  Seconds launch_ = {};
  double active_watts_ = 0;  // Beyond resting_watts_.
  double resting_watts_ = 0;
  std::vector<MemoryLevel> levels_;
};

class DeviceModel {
 public:
  // Fails where the type lacks a figure that its model needs, naming all of them.
  static Result<DeviceModel> make(const DeviceType& type);

  // `weights`, `cache` and `streamed` are in levels of this model: where lies what the device
  // streams in every step.
  [[nodiscard]] KernelCost gemm(const GemmShape& shape, const Residence& weights) const;
  [[nodiscard]] KernelCost attention(const AttentionShape& shape, const Residence& cache) const;
  [[nodiscard]] KernelCost stream(const StreamShape& shape, const Residence& streamed) const;
  // Of what a device streams in every step, as so many `devices` of its machine do. Where an L3 is
  // shared, `in_l3` is what each of its parts has to hold.
  [[nodiscard]] Residence residence_of(std::int64_t streamed_bytes, std::int64_t devices = 1,
                                       std::optional<std::int64_t> in_l3 = {}) const;
  [[nodiscard]] const std::vector<MemoryLevel>& levels() const;  // Smallest first.
  // Drawn at any time; tasks add their joules.
  [[nodiscard]] double resting_watts() const;

 private:
  explicit DeviceModel(std::variant<GpuModel, CpuModel> model) : model_(std::move(model)) {}
  std::variant<GpuModel, CpuModel> model_;
};

// The floor that any model must beat: max(flops / peak, bytes / peak bandwidth). Needs what
// DeviceModel::make has checked.
[[nodiscard]] Seconds roofline(const DeviceType& type, DType dtype, double flops, double bytes);

// Floating-point operations and bytes of main memory or cache that a shape stands for.
struct ShapeWork {
  double flops = 0;
  double weight_bytes = 0;  // Of weights, or of keys and values.
  double activation_bytes = 0;
};
[[nodiscard]] ShapeWork work_of(const GemmShape& shape);
[[nodiscard]] ShapeWork work_of(const AttentionShape& shape);

// Visible (query, key) pairs of one tile, for one query head.
[[nodiscard]] std::int64_t visible_pairs(const AttentionTile& tile, std::int64_t window);
// The keys that at least one query sees.
[[nodiscard]] std::int64_t visible_keys(const AttentionTile& tile, std::int64_t window);

}  // namespace weir
