#include "exec/device_weights.h"

#include <cstring>
#include <tuple>

#include "base/check.h"

namespace weir {
namespace {

bool is_rotated(WeightKind kind) {
  using enum WeightKind;
  return kind == q_proj || kind == k_proj || kind == q_bias || kind == k_bias || kind == q_norm ||
         kind == k_norm;
}

// Where the checkpoint keeps the dimension that plans call `dim`: pairs 2i, 2i + 1 lie rotary_dim /
// 2 apart.
std::int64_t stored_dim(std::int64_t dim, std::int64_t rotary_dim) {
  if (dim >= rotary_dim) return dim;
  return dim / 2 + (dim % 2) * (rotary_dim / 2);
}

// The stored indices of heads x dims, in the plan's order.
std::vector<std::int64_t> stored_indices(Interval heads, Interval dims, std::int64_t head_dim,
                                         std::int64_t rotary_dim) {
  std::vector<std::int64_t> indices;
  indices.reserve(static_cast<std::size_t>(heads.size() * dims.size()));
  for (std::int64_t head = heads.begin; head < heads.end; ++head) {
    for (std::int64_t dim = dims.begin; dim < dims.end; ++dim) {
      indices.push_back(head * head_dim + stored_dim(dim, rotary_dim));
    }
  }
  return indices;
}

bool is_contiguous(std::span<const std::int64_t> indices) {
  for (std::size_t i = 1; i < indices.size(); ++i) {
    if (indices[i] != indices[0] + static_cast<std::int64_t>(i)) return false;
  }
  return true;
}

float widened(const void* data, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::f32:
      return static_cast<const float*>(data)[index];
    case DType::bf16:
      return bf16_to_f32(static_cast<const std::uint16_t*>(data)[index]);
    case DType::f16:
      return f16_to_f32(static_cast<const std::uint16_t*>(data)[index]);
  }
  CHECK(false, "unknown dtype");
}

const std::byte* element(const StoredWeight& stored, std::int64_t row, std::int64_t col) {
  return static_cast<const std::byte*>(stored.data) +
         (row * stored.row_stride + col) * size_in_bytes(stored.dtype);
}

}  // namespace

bool DeviceWeights::Less::operator()(const WeightSlice& a, const WeightSlice& b) const {
  const auto key = [](const WeightSlice& s) {
    return std::tuple(s.layer, s.kind, s.row_heads.begin, s.row_heads.end, s.row_dims.begin,
                      s.row_dims.end, s.col_heads.begin, s.col_heads.end, s.col_dims.begin,
                      s.col_dims.end);
  };
  return key(a) < key(b);
}

const kernel::PackedWeights& DeviceWeights::matrix(Team& team, const WeightSlice& slice) {
  auto& packed = matrices_[slice];
  if (packed != nullptr) return *packed;
  const StoredWeight stored = checkpoint_.weight(slice.kind, slice.layer);
  const std::int64_t rotary_dim = is_rotated(slice.kind) ? model_.rope.rotary_dim : 0;
  const auto rows = stored_indices(slice.row_heads, slice.row_dims, model_.head_dim, rotary_dim);
  const auto cols = stored_indices(slice.col_heads, slice.col_dims, model_.head_dim, 0);
  kernel::WeightView view = {.data = nullptr,
                             .dtype = stored.dtype,
                             .out_features = slice.rows(),
                             .in_features = slice.cols(),
                             .row_stride = stored.row_stride};
  std::vector<std::byte> gathered;
  if (is_contiguous(rows) && is_contiguous(cols)) {
    view.data = rows.empty() || cols.empty() ? stored.data : element(stored, rows[0], cols[0]);
  } else {
    // Rows or columns that do not lie together are brought together first.
    const std::int64_t size = size_in_bytes(stored.dtype);
    gathered.resize(static_cast<std::size_t>(slice.elements() * size));
    std::byte* out = gathered.data();
    for (const std::int64_t row : rows) {
      if (is_contiguous(cols)) {
        std::memcpy(out, element(stored, row, cols[0]),
                    cols.size() * static_cast<std::size_t>(size));
        out += cols.size() * static_cast<std::size_t>(size);
        continue;
      }
      for (const std::int64_t col : cols) {
        std::memcpy(out, element(stored, row, col), static_cast<std::size_t>(size));
        out += size;
      }
    }
    view.data = gathered.data();
    view.row_stride = slice.cols();
  }
  packed = std::make_unique<kernel::PackedWeights>(team, view, &arena_);
  bytes_ += packed->bytes();
  return *packed;
}

std::span<const float> DeviceWeights::vector(const WeightSlice& slice) {
  auto& values = vectors_[slice];
  if (!values.empty() || slice.elements() == 0) return values;
  const StoredWeight stored = checkpoint_.weight(slice.kind, slice.layer);
  const std::int64_t rotary_dim = is_rotated(slice.kind) ? model_.rope.rotary_dim : 0;
  for (const std::int64_t index :
       stored_indices(slice.col_heads, slice.col_dims, model_.head_dim, rotary_dim)) {
    values.push_back(widened(stored.data, stored.dtype, index));
  }
  bytes_ += static_cast<std::int64_t>(values.size() * sizeof(float));
  return values;
}

kernel::EmbeddingTable DeviceWeights::table(const WeightSlice& slice) const {
  const StoredWeight stored = checkpoint_.weight(slice.kind, slice.layer);
  return {.data = element(stored, slice.row_dims.begin, 0),
          .dtype = stored.dtype,
          .first_row = slice.row_dims.begin,
          .rows = slice.row_dims.size(),
          .row_stride = stored.row_stride};
}

}  // namespace weir
