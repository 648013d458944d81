#pragma once
// How many pool devices a sequence of a given length gets.

#include <cstdint>
#include <span>
#include <string_view>

namespace weir {

// The source notes contradict each other; each of their tables is kept as it stands.
//   linear     min(ceil(seq / 1024), p_max) above the threshold (deployment analysis, third note).
//   results    The pool sizes beside the measured times (first note): 8 devices from 2,048 tokens
//   on,
//              below the note's own threshold of 4,096, and 16, 24, 32 at 8K, 16K, 32K.
//   assignment The "GPU assignment matrix" (second note): no pool up to 4,096, then 8 to 32. At
//   8,192
//              it has 10 devices where the first note has 16 and the third 8.
//   fixed      p_max devices above the threshold.
enum class PoolPolicy { linear, results, assignment, fixed };
inline constexpr std::string_view kPoolPolicies[] = {"linear", "results", "assignment", "fixed"};

struct PoolSizing {
  PoolPolicy policy = PoolPolicy::linear;
  std::int64_t threshold = 4096;  // Of linear and fixed; the tables have their own.
  std::int64_t p_max = 32;
};

// Sequences up to this length use no pool.
[[nodiscard]] std::int64_t crest(const PoolSizing& sizing);
// Pool devices for a sequence of `length` tokens: 0 up to the crest, never falling, at most p_max.
[[nodiscard]] std::int64_t pool_size(const PoolSizing& sizing, std::int64_t length);

}  // namespace weir
