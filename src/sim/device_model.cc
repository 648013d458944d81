#include "sim/device_model.h"

#include <algorithm>

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

KernelCost DeviceModel::gemm(const GemmShape& shape, const MemoryLevel& weights) const {
  return std::visit([&](const auto& model) { return model.gemm(shape, weights); }, model_);
}

KernelCost DeviceModel::attention(const AttentionShape& shape, const MemoryLevel& cache) const {
  return std::visit([&](const auto& model) { return model.attention(shape, cache); }, model_);
}

KernelCost DeviceModel::stream(const StreamShape& shape, const MemoryLevel& streamed) const {
  return std::visit([&](const auto& model) { return model.stream(shape, streamed); }, model_);
}

const std::vector<MemoryLevel>& DeviceModel::levels() const {
  return std::visit(
      [](const auto& model) -> const auto& { return model.levels(); }, model_);
}

const MemoryLevel& DeviceModel::level_for(std::int64_t streamed_bytes) const {
  for (const MemoryLevel& level : levels()) {
    if (streamed_bytes <= level.capacity) return level;
  }
  return levels().back();
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
