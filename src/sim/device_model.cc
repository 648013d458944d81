#include "sim/device_model.h"

#include <algorithm>
#include <cmath>

#include "plan/work.h"

namespace weir {

Result<DeviceModel> DeviceModel::make(const DeviceType& type) {
  switch (type.kind) {
    case DeviceKind::gpu: {
      auto model = GpuModel::make(type);
      if (!model) return tl::unexpected(model.error());
      return DeviceModel(*std::move(model));
    }
    case DeviceKind::cpu:
      break;
  }
  auto model = CpuModel::make(type);
  if (!model) return tl::unexpected(model.error());
  return DeviceModel(*std::move(model));
}

namespace {

// What it costs with operands in one level, taken for each of theirs.
template <class CostIn>
KernelCost cost_in(const Residence& where, CostIn cost_in_level) {
  KernelCost cost = cost_in_level(*where.level);
  if (where.beyond == nullptr) return cost;
  const KernelCost beyond = cost_in_level(*where.beyond);
  return {.time = {std::lerp(beyond.time.value, cost.time.value, where.share)},
          .joules = std::lerp(beyond.joules, cost.joules, where.share)};
}

}  // namespace

KernelCost DeviceModel::gemm(const GemmShape& shape, const Residence& weights) const {
  return cost_in(weights, [&](const MemoryLevel& level) {
    return std::visit([&](const auto& model) { return model.gemm(shape, level); }, model_);
  });
}

KernelCost DeviceModel::attention(const AttentionShape& shape, const Residence& cache) const {
  return cost_in(cache, [&](const MemoryLevel& level) {
    return std::visit([&](const auto& model) { return model.attention(shape, level); }, model_);
  });
}

KernelCost DeviceModel::stream(const StreamShape& shape, const Residence& streamed) const {
  return cost_in(streamed, [&](const MemoryLevel& level) {
    return std::visit([&](const auto& model) { return model.stream(shape, level); }, model_);
  });
}

const std::vector<MemoryLevel>& DeviceModel::levels() const {
  return std::visit(
      [](const auto& model) -> const auto& { return model.levels(); }, model_);
}

Residence DeviceModel::residence_of(std::int64_t streamed_bytes, std::int64_t devices,
                                    std::optional<std::int64_t> in_l3) const {
  const std::vector<MemoryLevel>& all = levels();
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    const bool is_l3 = all[i].cache == CacheLevel::l3;
    const std::int64_t bytes = is_l3 ? in_l3.value_or(streamed_bytes) : streamed_bytes;
    const double share = std::visit(
        [&](const auto& model) { return model.share_served(all[i], bytes, devices); }, model_);
    if (share >= 1) return all[i];
    if (share > 0) return {all[i], all[i + 1], share};
  }
  return all.back();
}

double DeviceModel::resting_watts() const {
  return std::visit([](const auto& model) { return model.resting_watts(); }, model_);
}

Seconds roofline(const DeviceType& type, DType dtype, double flops, double bytes) {
  const auto matrix = type.matrix_flops.of(dtype);
  const auto vector = type.vector_flops.of(dtype);
  const double peak = std::max(matrix ? matrix->value : 0, vector ? vector->value : 0);
  const double compute = peak > 0 ? flops / peak : 0;
  const double memory = type.memory_bandwidth ? bytes / type.memory_bandwidth->value : 0;
  return {std::max(compute, memory)};
}

ShapeWork work_of(const GemmShape& shape) {
  const double rows = static_cast<double>(shape.rows);
  const double cols = static_cast<double>(shape.cols);
  const double depth = static_cast<double>(shape.depth);
  return {.flops = 2 * rows * cols * depth,
          .weight_bytes = cols * depth * static_cast<double>(size_in_bytes(shape.weight)),
          .activation_bytes =
              rows * (cols + depth) * static_cast<double>(size_in_bytes(shape.activation))};
}

std::int64_t visible_pairs(const AttentionTile& tile, std::int64_t window) {
  const std::optional<std::int64_t> limit = window > 0 ? std::optional(window) : std::nullopt;
  return visible_pairs({.begin = 0, .end = tile.q_len}, tile.past_len,
                       {.begin = tile.key_begin, .end = tile.key_end}, limit);
}

std::int64_t visible_keys(const AttentionTile& tile, std::int64_t window) {
  if (tile.q_len == 0) return 0;
  Interval seen = {.begin = 0, .end = tile.past_len + tile.q_len};
  if (window > 0) seen.begin = std::max<std::int64_t>(0, tile.past_len + 1 - window);
  return intersect(seen, {.begin = tile.key_begin, .end = tile.key_end}).size();
}

ShapeWork work_of(const AttentionShape& shape) {
  const double dims = static_cast<double>(shape.head_dim + shape.value_dim);
  ShapeWork work;
  for (const AttentionTile& tile : shape.tiles) {
    const double queries = static_cast<double>(tile.q_len * tile.q_heads);
    work.flops += 2.0 * static_cast<double>(visible_pairs(tile, shape.window)) *
                  static_cast<double>(tile.q_heads) * dims;
    work.weight_bytes += static_cast<double>(visible_keys(tile, shape.window) * tile.kv_heads) *
                         dims * static_cast<double>(size_in_bytes(shape.kv));
    work.activation_bytes += queries * dims * static_cast<double>(size_in_bytes(shape.activation));
  }
  return work;
}

}  // namespace weir
