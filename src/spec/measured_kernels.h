#pragma once
// What the kernels of a CPU device take, as `weir calibrate` has measured them on it: the cost of
// one value of an operand that many rows share (a weight, a key, a stored value), by the number of
// rows that share it and by where the operand lies. Between two measured numbers of rows a cost
// lies on the line between theirs. Times belong to the device as it is, with all of its cores.

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/dtype.h"
#include "base/result.h"

namespace weir {

class ObjectReader;

// The smallest that holds everything which a step streams; a type lists those it has figures for.
enum class CacheLevel : std::uint8_t { l2, l3, memory };
[[nodiscard]] std::string_view to_string(CacheLevel level);

// out[rows, o] = x[rows, i] w[o, i]: picoseconds per weight, all rows together.
struct LinearCost {
  std::int64_t rows = 0;
  double ps_per_weight = 0;

  bool operator==(const LinearCost&) const = default;
};
struct LinearCurve {
  DType weight = DType::f32;
  CacheLevel level = CacheLevel::memory;
  std::int64_t devices = 1;       // At the same time.
  std::vector<LinearCost> costs;  // Rows ascending.

  bool operator==(const LinearCurve&) const = default;
};

// Attention of `rows` (query, head) pairs that share one KV head: per key, per key and value of its
// vectors (head_dim of K and of V), and once per value whatever the keys: reading queries, writing
// outputs. More rows than the last are done in blocks of it.
struct AttentionCost {
  std::int64_t rows = 0;
  double ps_per_key = 0;
  double ps_per_value = 0;
  double ps_to_begin = 0;

  bool operator==(const AttentionCost&) const = default;
};
struct AttentionCurve {
  DType kv = DType::f32;
  CacheLevel level = CacheLevel::memory;
  std::int64_t devices = 1;  // At the same time.
  std::vector<AttentionCost> costs;

  bool operator==(const AttentionCurve&) const = default;
};

// Passes over activations: per byte read or written. `append` writes new keys and values to the
// cache.
enum class StreamKind : std::uint8_t { copy, add, norm, rotate, silu, gelu_erf, gelu_tanh, append };
[[nodiscard]] std::string_view to_string(StreamKind kind);
struct StreamCost {
  StreamKind kind = StreamKind::copy;
  CacheLevel level = CacheLevel::memory;
  std::int64_t devices = 1;
  double ps_per_byte = 0;

  bool operator==(const StreamCost&) const = default;
};

// How much of a set that is read again and again a cache serves, by the size of the set, where so
// many devices each read one of their own: a cache does not keep all that is smaller than it, nor
// lose all that is larger. All up to the first size, nothing beyond the last, between two sizes on
// the line.
struct ServedShare {
  std::int64_t bytes = 0;
  double share = 0;

  bool operator==(const ServedShare&) const = default;
};
struct ServedCurve {
  CacheLevel level = CacheLevel::l2;
  std::int64_t devices = 1;         // At the same time.
  std::vector<ServedShare> shares;  // Bytes ascending.

  bool operator==(const ServedCurve&) const = default;
};

struct MeasuredKernels {
  std::vector<LinearCurve> linear;
  std::vector<AttentionCurve> attention;
  std::vector<StreamCost> stream;
  std::vector<ServedCurve> served;  // None of a level: all that fits it, and nothing else.

  bool operator==(const MeasuredKernels&) const = default;
};

// The key "kernels" of a device type in docs/cluster.md.
[[nodiscard]] MeasuredKernels read_measured_kernels(ObjectReader reader);
[[nodiscard]] nlohmann::json to_json(const MeasuredKernels& kernels);

}  // namespace weir
