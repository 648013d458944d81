// Source of the tile and wave view of a GEMM: NVIDIA, "Matrix Multiplication Background User's
// Guide" (tile and wave quantisation). Of attention over split keys: Dao et al., "Flash-Decoding
// for long-context inference".

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "base/check.h"
#include "plan/work.h"
#include "sim/calibration.h"
#include "sim/device_model.h"

namespace weir {
namespace {

// Output tiles that the libraries have kernels for.
struct TileSize {
  std::int64_t rows;
  std::int64_t cols;
};
constexpr std::array kTiles = {TileSize{64, 64},   TileSize{64, 128},  TileSize{128, 64},
                               TileSize{128, 128}, TileSize{128, 256}, TileSize{256, 128},
                               TileSize{64, 256}};
// Into how many parts the depth may be split, and the depth that a tile's main loop takes at once.
constexpr std::array<std::int64_t, 8> kDepthSplits = {1, 2, 3, 4, 6, 8, 12, 16};
constexpr std::int64_t kDepthStep = 64;
// Queries and keys of one step of attention, and into how many parts its keys may be split.
constexpr std::int64_t kQueryBlock = 128;
constexpr std::int64_t kKeyBlock = 128;
constexpr std::int64_t kMostKeySplits = 128;
// The exponent p of (compute^p + memory^p)^(1/p) in a GEMM: the two hide each other almost wholly.
constexpr double kGemmOverlap = 4;
// Of L2, what a stream that is read again and again can keep, and the rate at which it is read.
constexpr double kL2Share = 0.8;

double together(double a, double b, double exponent) {
  const double larger = std::max(a, b);
  if (larger <= 0) return 0;
  return larger *
         std::pow(std::pow(a / larger, exponent) + std::pow(b / larger, exponent), 1 / exponent);
}

std::int64_t blocks_of(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

// Steps over key blocks that the tiles of an attention launch take.
struct AttentionSteps {
  std::int64_t tiles = 0;
  std::int64_t steps = 0;    // Of all tiles together,
  std::int64_t longest = 0;  // and of the longest.
  bool packed =
      true;  // The query heads that share a KV head fit one tile: keys are the whole work.
};

void count_steps(const AttentionTile& tile, std::int64_t window, AttentionSteps& total) {
  if (tile.q_len == 0 || tile.q_heads == 0 || tile.key_end <= tile.key_begin) return;
  const std::int64_t group = blocks_of(tile.q_heads, std::max<std::int64_t>(tile.kv_heads, 1));
  const auto steps_of = [&](Interval queries) {
    Interval seen = {.begin = tile.key_begin,
                     .end = std::min(tile.key_end, tile.past_len + queries.end)};
    if (window > 0) seen.begin = std::max(seen.begin, tile.past_len + queries.begin + 1 - window);
    return blocks_of(seen.size(), kKeyBlock);
  };
  if (tile.q_len * group <= kQueryBlock) {
    const std::int64_t steps = steps_of({.begin = 0, .end = tile.q_len});
    total.tiles += tile.kv_heads;
    total.steps += tile.kv_heads * steps;
    total.longest = std::max(total.longest, steps);
    return;
  }
  total.packed = false;
  for (std::int64_t begin = 0; begin < tile.q_len; begin += kQueryBlock) {
    const std::int64_t steps =
        steps_of({.begin = begin, .end = std::min(tile.q_len, begin + kQueryBlock)});
    total.tiles += tile.q_heads;
    total.steps += tile.q_heads * steps;
    total.longest = std::max(total.longest, steps);
  }
}

}  // namespace

Result<GpuModel> GpuModel::make(const DeviceType& type) {
  std::vector<std::string> problems;
  const auto need = [&](bool there, const char* key) {
    if (!there)
      problems.push_back("device type " + type.name + ": found no " + key + ", allowed a rate");
  };
  need(type.memory_bandwidth.has_value() && type.memory_bandwidth->value > 0, "memory_gb_per_s");
  need(type.num_cores.has_value() && *type.num_cores > 0, "num_cores");
  need(type.matrix_flops != PeakFlops{} || type.vector_flops != PeakFlops{}, "matrix_tflops");
  if (!problems.empty()) return invalid_input(join_problems(problems));

  GpuModel model;
  model.constants_ = &calibration_for(type);
  model.matrix_ = type.matrix_flops;
  model.vector_ = type.vector_flops;
  model.num_sms_ = *type.num_cores;
  model.memory_bandwidth_ = type.memory_bandwidth->value;
  model.l2_bandwidth_ = type.l2_bandwidth ? type.l2_bandwidth->value : 0;
  model.resting_watts_ = type.idle_watts ? *type.idle_watts : model.constants_->power.static_watts;
  model.max_watts_ = type.max_watts.value_or(0);
  if (type.l2 && model.l2_bandwidth_ > 0) {
    model.levels_.push_back(
        {.name = "L2",
         .cache = CacheLevel::l2,
         .capacity = static_cast<std::int64_t>(kL2Share * static_cast<double>(type.l2->value)),
         .bandwidth = {kL2Share * model.l2_bandwidth_}});
  }
  model.levels_.push_back(
      {.name = "memory",
       .cache = CacheLevel::memory,
       .capacity = type.memory.value,
       .bandwidth = {model.constants_->gemm.memory_efficiency * model.memory_bandwidth_}});
  return model;
}

double GpuModel::peak(DType dtype) const {
  if (const auto rate = matrix_.of(dtype)) return rate->value;
  if (const auto rate = vector_.of(dtype)) return rate->value;
  // Operands are converted to what the device knows; the slowest of that is the widest.
  double slowest = std::numeric_limits<double>::infinity();
  for (const PeakFlops* rates : {&matrix_, &vector_}) {
    for (const auto& rate : {rates->f32, rates->bf16, rates->f16}) {
      if (rate) slowest = std::min(slowest, rate->value);
    }
  }
  return slowest;
}

KernelCost GpuModel::within_power(double seconds, double flops, double bytes) const {
  const PowerConstants& power = constants_->power;
  const double arithmetic = power.joules_per_flop * flops;
  const double joules = arithmetic + power.joules_per_byte * bytes;
  const double available = max_watts_ - power.static_watts;
  if (available > 0) {
    const Seconds launch = constants_->gemm.launch;
    seconds = std::max(seconds, launch.value + arithmetic / available);
  }
  return {.time = {seconds}, .joules = joules};
}

KernelCost GpuModel::gemm(const GemmShape& shape, const MemoryLevel& weights) const {
  const GemmConstants& c = constants_->gemm;
  const ShapeWork work = work_of(shape);
  if (work.flops == 0) return {};
  const double sms = static_cast<double>(num_sms_);
  const double tensor_rate = peak(shape.activation) * c.tensor_efficiency / sms;
  const double l2_rate = l2_bandwidth_ * c.l2_efficiency / sms;
  const double operand_bytes = static_cast<double>(size_in_bytes(shape.activation));
  const double outputs = static_cast<double>(shape.rows) * static_cast<double>(shape.cols);
  double best = std::numeric_limits<double>::infinity();
  for (const TileSize tile : kTiles) {
    const double tiles_of_output = static_cast<double>(blocks_of(shape.rows, tile.rows)) *
                                   static_cast<double>(blocks_of(shape.cols, tile.cols));
    for (const std::int64_t splits : kDepthSplits) {
      if (splits > 1 && shape.depth < kDepthStep * splits) break;
      const auto depth =
          static_cast<double>(blocks_of(shape.depth, kDepthStep * splits) * kDepthStep);
      const double tiles = tiles_of_output * static_cast<double>(splits);
      const double loop = 2.0 * static_cast<double>(tile.rows * tile.cols) * depth / tensor_rate;
      const double load =
          l2_rate > 0 ? static_cast<double>(tile.rows + tile.cols) * depth * operand_bytes / l2_rate
                      : 0;
      const double compute =
          std::ceil(tiles / sms) * (std::max(loop, load) + c.tile_overhead.value);
      // Parts of a split product are written and read once in f32, mostly within L2.
      const double parts = splits > 1 ? static_cast<double>(splits) * outputs * 4 : 0;
      const double drawn = std::min(tiles, sms) * c.sm_bandwidth.value;
      const double memory = work.weight_bytes / std::min(weights.bandwidth.value, drawn) +
                            (work.activation_bytes + parts) /
                                std::min(c.memory_efficiency * memory_bandwidth_, drawn);
      const double beside = c.launch.value + (splits > 1 ? c.split_overhead.value : 0);
      if (beside + std::max(compute, memory) >= best) continue;  // Together take no less.
      best = std::min(best, beside + together(compute, memory, kGemmOverlap));
    }
  }
  return within_power(best, work.flops, work.weight_bytes + work.activation_bytes);
}

KernelCost GpuModel::attention(const AttentionShape& shape, const MemoryLevel& cache) const {
  const AttentionConstants& c = constants_->attention;
  AttentionSteps total;
  for (const AttentionTile& tile : shape.tiles) count_steps(tile, shape.window, total);
  if (total.steps == 0) return {};
  const double sms = static_cast<double>(num_sms_);
  const double dims = static_cast<double>(shape.head_dim + shape.value_dim);
  const double key_bytes =
      static_cast<double>(kKeyBlock) * dims * static_cast<double>(size_in_bytes(shape.kv));
  const double step_flops = 2.0 * static_cast<double>(kQueryBlock * kKeyBlock) * dims;
  const double step = total.packed
                          ? std::max(c.step_overhead.value, key_bytes / c.sm_bandwidth.value)
                          : c.step_overhead.value +
                                step_flops / (peak(shape.activation) * c.tensor_efficiency / sms);

  const ShapeWork work = work_of(shape);
  const double full_rate = c.memory_efficiency * memory_bandwidth_;
  const bool from_memory = cache == levels_.back();
  const double memory = work.weight_bytes / (from_memory ? full_rate : cache.bandwidth.value) +
                        work.activation_bytes / full_rate;
  double best = std::numeric_limits<double>::infinity();
  for (std::int64_t splits = 1; splits <= std::min(kMostKeySplits, total.longest); splits *= 2) {
    const double tiles = static_cast<double>(total.tiles * splits);
    const double longest =
        static_cast<double>(blocks_of(total.longest, splits)) * step + c.tile_latency.value;
    const double mean =
        static_cast<double>(total.steps) / tiles * step + c.tile_latency.value * c.tile_occupancy;
    const double compute = std::max(longest, std::ceil(tiles / sms) * mean);
    const double merge =
        splits > 1 ? c.split_overhead.value + c.split_cost.value * static_cast<double>(splits) : 0;
    best = std::min(best, c.launch.value + together(compute, memory, c.overlap) + merge);
  }
  return within_power(best, work.flops, work.weight_bytes + work.activation_bytes);
}

KernelCost GpuModel::stream(const StreamShape& shape, const MemoryLevel& /*streamed*/) const {
  const GemmConstants& c = constants_->gemm;
  const double bytes = static_cast<double>(shape.bytes);
  const double flops = static_cast<double>(shape.flops);
  const auto vector_rate = vector_.f32;
  const double compute = vector_rate ? flops / vector_rate->value : 0;
  const double seconds =
      c.launch.value + std::max(compute, bytes / (c.memory_efficiency * memory_bandwidth_));
  return within_power(seconds, 0, bytes);
}

}  // namespace weir
