// A CPU device is a group of cores that share their caches. Where its kernels have been measured, a
// kernel takes what the curves say; otherwise its arithmetic at the rate of the cores or its
// operands from where they lie, whichever is longer. Both are what the machine reaches, not what
// its data sheet says, so there are no efficiencies here.

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "plan/work.h"
#include "sim/device_model.h"

namespace weir {
namespace {

// Handing a kernel to the cores of a device and waiting for the last, where the file says nothing.
constexpr Seconds kDefaultLaunch{2e-6};
constexpr double kPicosecond = 1e-12;

std::vector<std::string> missing_figures(const DeviceType& type) {
  std::vector<std::string> problems;
  if (type.kernels) return problems;
  if (!type.memory_bandwidth || type.memory_bandwidth->value <= 0) {
    problems.push_back("device type " + type.name + ": found no memory_gb_per_s, allowed a rate");
  }
  if (type.matrix_flops == PeakFlops{} && type.vector_flops == PeakFlops{}) {
    problems.push_back("device type " + type.name +
                       ": found neither matrix_tflops nor vector_tflops, allowed a rate");
  }
  return problems;
}

// What was measured nearest to what is asked for: dtype (or kind) first, then the level, the next
// one down rather than one up; of these the last with at most and the first with at least so many
// devices at once.
template <class Measured, class What>
struct Around {
  const Measured* fewer = nullptr;
  const Measured* more = nullptr;
  double share = 0;  // Of the way from `fewer` to `more`.

  Around(const std::vector<Measured>& all, What Measured::*what_of, What what, CacheLevel level,
         std::int64_t together) {
    const auto distance = [&](const Measured& one) {
      const int down = static_cast<int>(one.level) - static_cast<int>(level);
      return std::pair(one.*what_of == what ? 0 : 1, down >= 0 ? down : 8 - down);
    };
    const Measured& nearest = *std::ranges::min_element(all, {}, distance);
    for (const Measured& one : all) {
      if (one.*what_of != nearest.*what_of || one.level != nearest.level) continue;
      if (one.devices <= together && (fewer == nullptr || one.devices > fewer->devices))
        fewer = &one;
      if (one.devices >= together && (more == nullptr || one.devices < more->devices)) more = &one;
    }
    if (fewer == nullptr) fewer = more;
    if (more == nullptr) more = fewer;
    if (more->devices > fewer->devices) {
      share = static_cast<double>(together - fewer->devices) /
              static_cast<double>(more->devices - fewer->devices);
    }
  }
  template <class CostOf>
  [[nodiscard]] double operator()(CostOf cost_of) const {
    return std::lerp(cost_of(*fewer), cost_of(*more), share);
  }
};

// What a cost is at `rows`: on the line between the two measured numbers of rows around it, beyond
// the last on the line through the last two.
template <class Cost>
double cost_at(const std::vector<Cost>& costs, double Cost::*cost, double rows) {
  const auto rows_of = [](const Cost& c) { return static_cast<double>(c.rows); };
  auto next = std::ranges::lower_bound(costs, rows, {}, rows_of);
  if (next == costs.begin()) return (*next).*cost;
  if (next == costs.end()) --next;
  if (next == costs.begin()) return (*next).*cost * rows / rows_of(*next);
  const Cost& a = *(next - 1);
  const Cost& b = *next;
  const double share = (rows - rows_of(a)) / (rows_of(b) - rows_of(a));
  return std::max(0.0, std::lerp(a.*cost, b.*cost, share));
}

}  // namespace

Result<CpuModel> CpuModel::make(const DeviceType& type) {
  if (const auto problems = missing_figures(type); !problems.empty())
    return invalid_input(join_problems(problems));
  CpuModel model;
  if (type.kernels) model.kernels_ = std::make_shared<const MeasuredKernels>(*type.kernels);
  model.matrix_ = type.matrix_flops;
  model.vector_ = type.vector_flops;
  model.launch_ = type.launch_latency.value_or(kDefaultLaunch);
  model.resting_watts_ = type.idle_watts.value_or(0);
  model.active_watts_ = std::max(0.0, type.max_watts.value_or(0) - model.resting_watts_);
  const auto add_level = [&](std::string_view name, CacheLevel cache, Bytes capacity,
                             std::optional<BytesPerSecond> bandwidth) {
    model.levels_.push_back({.name = name,
                             .cache = cache,
                             .capacity = capacity.value,
                             .bandwidth = bandwidth.value_or(BytesPerSecond{})});
  };
  if (type.l2 && (type.l2_bandwidth || type.kernels))
    add_level("L2", CacheLevel::l2, *type.l2, type.l2_bandwidth);
  if (type.l3 && (type.l3_bandwidth || type.kernels))
    add_level("L3", CacheLevel::l3, *type.l3, type.l3_bandwidth);
  add_level("memory", CacheLevel::memory, type.memory, type.memory_bandwidth);
  return model;
}

double CpuModel::peak(DType dtype) const {
  double fastest = 0;
  for (const PeakFlops* rates : {&matrix_, &vector_}) {
    if (const auto rate = rates->of(dtype)) fastest = std::max(fastest, rate->value);
  }
  if (fastest > 0) return fastest;
  // Operands are widened to what the cores know; the slowest of that is the widest.
  double slowest = std::numeric_limits<double>::infinity();
  for (const PeakFlops* rates : {&matrix_, &vector_}) {
    for (const auto& rate : {rates->f32, rates->bf16, rates->f16}) {
      if (rate) slowest = std::min(slowest, rate->value);
    }
  }
  return slowest;
}

const MemoryLevel& CpuModel::level_for(std::int64_t bytes) const {
  for (const MemoryLevel& level : levels_) {
    if (bytes <= level.capacity) return level;
  }
  return levels_.back();
}

double CpuModel::share_served(const MemoryLevel& level, std::int64_t bytes,
                              std::int64_t devices) const {
  // Of the most devices that are not more, else of the fewest.
  const auto distance = [&](const ServedCurve& curve) {
    return curve.devices <= devices ? std::pair(0, devices - curve.devices)
                                    : std::pair(1, curve.devices);
  };
  const ServedCurve* curve = nullptr;
  const std::vector<ServedCurve> none;
  for (const ServedCurve& one : kernels_ ? kernels_->served : none) {
    if (one.level != level.cache) continue;
    if (curve == nullptr || distance(one) < distance(*curve)) curve = &one;
  }
  if (curve == nullptr) return bytes <= level.capacity ? 1 : 0;
  const auto next = std::ranges::lower_bound(curve->shares, bytes, {}, &ServedShare::bytes);
  if (next == curve->shares.begin()) return 1;
  if (next == curve->shares.end()) return 0;
  const ServedShare& before = *(next - 1);
  const double part =
      static_cast<double>(bytes - before.bytes) / static_cast<double>(next->bytes - before.bytes);
  return std::lerp(before.share, next->share, part);
}

KernelCost CpuModel::cost(double seconds) const {
  const double time = launch_.value + seconds;
  return {.time = {time}, .joules = active_watts_ * time};
}

KernelCost CpuModel::gemm(const GemmShape& shape, const MemoryLevel& weights) const {
  const ShapeWork work = work_of(shape);
  if (work.flops == 0) return {};
  if (kernels_) {
    const Around around(kernels_->linear, &LinearCurve::weight, shape.weight, weights.cache,
                        shape.together);
    const double per_weight = around([&](const LinearCurve& curve) {
      return cost_at(curve.costs, &LinearCost::ps_per_weight, static_cast<double>(shape.rows));
    });
    return cost(per_weight * kPicosecond * static_cast<double>(shape.cols * shape.depth));
  }
  const MemoryLevel& activations = level_for(static_cast<std::int64_t>(work.activation_bytes));
  const double memory = work.weight_bytes / weights.bandwidth.value +
                        work.activation_bytes / activations.bandwidth.value;
  return cost(std::max(work.flops / peak(shape.activation), memory));
}

KernelCost CpuModel::attention(const AttentionShape& shape, const MemoryLevel& cache) const {
  const ShapeWork work = work_of(shape);
  if (work.flops == 0) return {};
  if (kernels_) {
    const Around around(kernels_->attention, &AttentionCurve::kv, shape.kv, cache.cache,
                        shape.together);
    return cost(
        around([&](const AttentionCurve& curve) { return measured_attention(shape, curve); }));
  }
  const MemoryLevel& activations = level_for(static_cast<std::int64_t>(work.activation_bytes));
  const double memory = work.weight_bytes / cache.bandwidth.value +
                        work.activation_bytes / activations.bandwidth.value;
  return cost(std::max(work.flops / peak(shape.activation), memory));
}

// Rows are cut into blocks of equal size; each walks the keys that its rows see.
double CpuModel::measured_attention(const AttentionShape& shape,
                                    const AttentionCurve& curve) const {
  const std::int64_t block = curve.costs.back().rows;
  const double dims = static_cast<double>(shape.head_dim + shape.value_dim);
  double picoseconds = 0;
  for (const AttentionTile& tile : shape.tiles) {
    if (tile.q_len == 0 || tile.kv_heads == 0) continue;
    const std::int64_t group = std::max<std::int64_t>(1, tile.q_heads / tile.kv_heads);
    const std::int64_t blocks = (tile.q_len * group + block - 1) / block;
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t begin = tile.q_len * b / blocks;
      AttentionTile part = tile;
      part.q_len = tile.q_len * (b + 1) / blocks - begin;
      part.past_len = tile.past_len + begin;
      if (part.q_len == 0) continue;
      const double rows = static_cast<double>(part.q_len * group);
      const double keys =
          static_cast<double>(visible_pairs(part, shape.window)) / static_cast<double>(part.q_len);
      const double per_key = cost_at(curve.costs, &AttentionCost::ps_per_key, rows) +
                             cost_at(curve.costs, &AttentionCost::ps_per_value, rows) * dims;
      const double begin_and_end = cost_at(curve.costs, &AttentionCost::ps_to_begin, rows) * dims;
      picoseconds += static_cast<double>(tile.kv_heads) * (keys * per_key + begin_and_end);
    }
  }
  return picoseconds * kPicosecond;
}

KernelCost CpuModel::stream(const StreamShape& shape, const MemoryLevel& streamed) const {
  const MemoryLevel& level = shape.cold ? streamed : level_for(shape.bytes);
  if (kernels_) {
    const auto per_byte = [&](const MemoryLevel& from) {
      const Around around(kernels_->stream, &StreamCost::kind, shape.kind, from.cache,
                          shape.together);
      return around([](const StreamCost& known) { return known.ps_per_byte; });
    };
    // What the op before has made is still in the cache; what is older has been pushed out by the
    // weights that passed, but for what L2 holds.
    const bool pushed_out = level.cache != CacheLevel::l2 && streamed.cache > level.cache;
    const double mean = pushed_out ? (per_byte(level) + per_byte(streamed)) / 2 : per_byte(level);
    return cost(mean * kPicosecond * static_cast<double>(shape.bytes));
  }
  const double compute =
      static_cast<double>(shape.flops) / (vector_.f32 ? vector_.f32->value : peak(DType::f32));
  const double memory = static_cast<double>(shape.bytes) / level.bandwidth.value;
  return cost(std::max(compute, memory));
}

}  // namespace weir
