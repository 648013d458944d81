// A CPU device is a group of cores that share their caches: a kernel takes as long as its
// arithmetic at the rate of the cores or its operands from where they lie, whichever is longer. The
// rates of a cluster file are what the machine reaches, not what its data sheet says, so there are
// no efficiencies here.

#include <algorithm>
#include <limits>
#include <string>

#include "plan/work.h"
#include "sim/device_model.h"

namespace weir {
namespace {

// Handing a kernel to the cores of a device and waiting for the last, where the file says nothing.
constexpr Seconds kDefaultLaunch{2e-6};

}  // namespace

Result<CpuModel> CpuModel::make(const DeviceType& type) {
  std::vector<std::string> problems;
  if (!type.memory_bandwidth || type.memory_bandwidth->value <= 0) {
    problems.push_back("device type " + type.name + ": found no memory_gb_per_s, allowed a rate");
  }
  if (type.matrix_flops == PeakFlops{} && type.vector_flops == PeakFlops{}) {
    problems.push_back("device type " + type.name +
                       ": found neither matrix_tflops nor vector_tflops, allowed a rate");
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  CpuModel model;
  model.matrix_ = type.matrix_flops;
  model.vector_ = type.vector_flops;
  model.launch_ = type.launch_latency.value_or(kDefaultLaunch);
  model.resting_watts_ = type.idle_watts.value_or(0);
  model.active_watts_ = std::max(0.0, type.max_watts.value_or(0) - model.resting_watts_);
  if (type.l2 && type.l2_bandwidth) {
    model.levels_.push_back(
        {.name = "L2", .capacity = type.l2->value, .bandwidth = *type.l2_bandwidth});
  }
  if (type.l3 && type.l3_bandwidth) {
    model.levels_.push_back(
        {.name = "L3", .capacity = type.l3->value, .bandwidth = *type.l3_bandwidth});
  }
  model.levels_.push_back(
      {.name = "memory", .capacity = type.memory.value, .bandwidth = *type.memory_bandwidth});
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

KernelCost CpuModel::cost(double seconds) const {
  const double time = launch_.value + seconds;
  return {.time = {time}, .joules = active_watts_ * time};
}

KernelCost CpuModel::gemm(const GemmShape& shape, const MemoryLevel& weights) const {
  const ShapeWork work = work_of(shape);
  if (work.flops == 0) return {};
  const MemoryLevel& activations = level_for(static_cast<std::int64_t>(work.activation_bytes));
  const double memory = work.weight_bytes / weights.bandwidth.value +
                        work.activation_bytes / activations.bandwidth.value;
  return cost(std::max(work.flops / peak(shape.activation), memory));
}

KernelCost CpuModel::attention(const AttentionShape& shape, const MemoryLevel& cache) const {
  const ShapeWork work = work_of(shape);
  if (work.flops == 0) return {};
  const MemoryLevel& activations = level_for(static_cast<std::int64_t>(work.activation_bytes));
  const double memory = work.weight_bytes / cache.bandwidth.value +
                        work.activation_bytes / activations.bandwidth.value;
  return cost(std::max(work.flops / peak(shape.activation), memory));
}

KernelCost CpuModel::stream(const StreamShape& shape) const {
  const double compute =
      static_cast<double>(shape.flops) / (vector_.f32 ? vector_.f32->value : peak(DType::f32));
  const double memory = static_cast<double>(shape.bytes) / level_for(shape.bytes).bandwidth.value;
  return cost(std::max(compute, memory));
}

}  // namespace weir
